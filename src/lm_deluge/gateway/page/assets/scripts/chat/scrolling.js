// The transcript follows a growing answer only while the reader is at its end.

import { el, icon } from "../dom.js";

// A reader this close to the end is at the end.
const NEAR_PIXELS = 40;

export class StickyScroll {
  #scroller;
  #button;
  #isAtEnd = true;

  constructor(scroller, place) {
    this.#scroller = scroller;
    this.#button = el("button", { type: "button", class: "jump", hidden: true, on: { click: () => this.toEnd() } });
    this.#button.append(icon("arrowDown"), el("span", { text: "Latest" }));
    place.append(this.#button);
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.follow()).observe(scroller);
  }

  get isAtEnd() {
    return this.#isAtEnd;
  }

  #distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  #scrolled() {
    this.#isAtEnd = this.#distance() < NEAR_PIXELS;
    this.#show();
  }

  #show() {
    this.#button.hidden = this.#isAtEnd;
  }

  /** Call after the content grew. */
  follow() {
    if (this.#isAtEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
    else this.#show();
  }

  toEnd() {
    this.#isAtEnd = true;
    this.follow();
    this.#show();
  }
}

// The transcript follows a growing answer only while the reader is at its end.

import { el, icon } from "../dom.js";

// A reader this close to the end is at the end.
const NEAR_PIXELS = 40;
// After so long what was unfolded has its size.
const SETTLED_MS = 100;

export class StickyScroll {
  #scroller;
  #button;
  #isAtEnd = true;

  constructor(scroller, content, place) {
    this.#scroller = scroller;
    this.#button = el("button", { type: "button", class: "jump", hidden: true, on: { click: () => this.toEnd() } });
    this.#button.append(icon("arrowDown"), el("span", { text: "Latest" }));
    place.append(this.#button);
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    scroller.addEventListener("click", (event) => event.target.closest("summary") && this.#unfolded());
    const sizes = new ResizeObserver(() => this.follow());
    sizes.observe(scroller);
    sizes.observe(content);
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

  // What the reader unfolds grows below the place that they read.
  #unfolded() {
    this.#isAtEnd = false;
    setTimeout(() => this.#scrolled(), SETTLED_MS);
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

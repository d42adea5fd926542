// The messages of the branch that is shown. Messages are rendered when they come near the visible part, so that a long
// conversation opens at once.

import { el } from "../dom.js";
import { MessageView } from "./message_view.js";
import { StickyScroll } from "./scrolling.js";

// Turns at the end that are rendered before the first paint: more than fit on a screen.
const EAGER_TURNS = 6;
// How far from the visible part messages are rendered.
const MARGIN = "1200px 0px";

export class Transcript {
  #list = el("div", { class: "turns" });
  #actions;
  #views = new Map();
  #rows = new Map();
  #observer;

  constructor(scroller, actions) {
    this.#actions = actions;
    scroller.append(this.#list);
    this.scroll = new StickyScroll(scroller, this.#list, scroller.parentElement);
    this.#observer = new IntersectionObserver((entries) => this.#near(entries), { root: scroller, rootMargin: MARGIN });
  }

  view(id) {
    return this.#views.get(id);
  }

  /** Show turns; views of messages that stay are kept, with their focus and their state. */
  show(turns) {
    const rows = turns.map((turn) => this.#row(turn));
    const kept = new Set(turns.map(keyOf));
    for (const [key, row] of this.#rows) if (!kept.has(key)) this.#drop(key, row);
    placeInOrder(this.#list, rows);
    for (const turn of turns.slice(-EAGER_TURNS)) for (const member of turn.members) this.#views.get(member.id).build();
  }

  clear() {
    this.show([]);
  }

  /** Focus the message before or after the one that has the focus. */
  move(step) {
    const messages = [...this.#list.querySelectorAll(".message")];
    const current = messages.indexOf(document.activeElement?.closest?.(".message"));
    const next = current < 0 ? messages.length - 1 : Math.min(Math.max(current + step, 0), messages.length - 1);
    this.#views.get(messages[next]?.dataset.id)?.focus();
  }

  #row(turn) {
    const key = keyOf(turn);
    const row = this.#rows.get(key) ?? this.#addRow(key, turn);
    for (const member of turn.members) this.#views.get(member.id).setPlace(placeOf(turn, member));
    return row;
  }

  #addRow(key, turn) {
    const views = turn.members.map((member) => this.#addView(member));
    const row = el("div", { class: views.length > 1 ? "turn pair" : "turn" }, views.map((view) => view.element));
    row.viewIds = turn.members.map((member) => member.id);
    this.#rows.set(key, row);
    return row;
  }

  #addView(message) {
    const view = new MessageView(message, this.#actions);
    this.#views.set(message.id, view);
    this.#observer.observe(view.element);
    return view;
  }

  #drop(key, row) {
    for (const id of row.viewIds) {
      this.#observer.unobserve(this.#views.get(id).element);
      this.#views.delete(id);
    }
    row.remove();
    this.#rows.delete(key);
  }

  #near(entries) {
    for (const { isIntersecting, target } of entries) {
      const view = this.#views.get(target.dataset.id);
      if (!isIntersecting || !view) continue;
      this.#observer.unobserve(target);
      view.build();
    }
  }
}

const keyOf = (turn) => turn.members.map((member) => member.id).join(" ");

function placeOf({ members, chosen, position, variants }, member) {
  return { position, count: variants.length, isPair: members.length > 1, isChosen: member === chosen };
}

// Moves only rows that stand elsewhere: a moved element loses its focus.
function placeInOrder(list, rows) {
  let next = list.firstElementChild;
  const added = document.createDocumentFragment();
  for (const row of rows) {
    if (row === next) next = next.nextElementSibling;
    else if (next === null) added.append(row);
    else list.insertBefore(row, next);
  }
  list.append(added);
}

// The form in which a message is edited.

import { el } from "../dom.js";

export class MessageEditor {
  #onSend;
  #onEnd;
  #field = el("textarea", { rows: 3, "aria-label": "Edit the message" });

  constructor(text, { onSend, onEnd }) {
    this.#onSend = onSend;
    this.#onEnd = onEnd;
    this.#field.value = text;
    this.#field.addEventListener("keydown", (event) => this.#pressed(event));
    const cancel = el("button", { type: "button", class: "button", text: "Cancel", on: { click: () => this.#onEnd() } });
    const send = el("button", { type: "submit", class: "button primary", text: "Send" });
    const hint = el("p", { class: "hint", text: "The earlier version is kept." });
    const form = el("form", { class: "editor", on: { submit: (event) => this.#submit(event) } });
    form.append(this.#field, el("div", { class: "row" }, hint, cancel, send));
    this.element = form;
  }

  focus() {
    this.#field.focus();
    this.#field.setSelectionRange(this.#field.value.length, this.#field.value.length);
  }

  #pressed(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      this.#onEnd();
    } else if (event.key === "Enter" && !event.shiftKey) {
      this.#submit(event);
    }
  }

  #submit(event) {
    event.preventDefault();
    const text = this.#field.value.trim();
    if (!text) return;
    this.#onEnd();
    this.#onSend(text);
  }
}

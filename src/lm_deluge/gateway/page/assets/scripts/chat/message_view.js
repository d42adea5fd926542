// One message: its parts, and what can be done with it.

import { el, icon, iconButton } from "../dom.js";
import { sentence } from "../numbers.js";
import { copyText } from "../text/code_blocks.js";
import { MessageEditor } from "./message_editor.js";
import { PartList } from "./part_views.js";
import { showUsage } from "./usage_line.js";

// About the characters of a line and its height in pixels: the scroll bar is nearly right before a message is rendered.
const UNSAVED = "The database of the server does not take this answer at present. The server keeps it, and tries again.";
const LINE_CHARACTERS = 80;
const LINE_PIXELS = 26;
const OTHER_PIXELS = 90;

export const textOf = (message) => message.parts.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n\n");

/**
 * The view of a message. Until `build` it is a stub with the bare text, which costs little and can be searched.
 * `actions` are the methods of the conversation, `isSimulated` whether the simulator answers.
 */
export class MessageView {
  #actions;
  #parts;
  #footer = el("footer", {});
  #usage = el("p", { class: "usage" });
  #state = el("div", { class: "state" });
  #place = { position: 0, count: 1, isPair: false, isChosen: true };

  constructor(message, actions) {
    this.message = message;
    this.isBuilt = false;
    this.#actions = actions;
    const text = textOf(message);
    this.element = el("article", { class: `message ${message.role}`, data: { id: message.id }, tabindex: -1 });
    const lines = text.length / LINE_CHARACTERS;
    this.element.style.setProperty("--size", `${Math.round(OTHER_PIXELS + lines * LINE_PIXELS)}px`);
    this.element.append(el("div", { class: "stub", text }));
  }

  /** Render the message; the second call does nothing. */
  build() {
    if (this.isBuilt) return;
    this.isBuilt = true;
    this.#parts = new PartList(this.message.role);
    this.element.replaceChildren(this.#header(), this.#parts.element, this.#state, this.#footer);
    this.update();
  }

  /** Show what changed. Returns whether everything is shown. */
  update() {
    if (!this.isBuilt) return true;
    const isRunning = this.message.status === "running";
    const isShown = this.#parts.update(this.message.parts, isRunning);
    this.element.classList.toggle("is-running", isRunning);
    this.element.setAttribute("aria-busy", String(isRunning));
    if (this.message.role === "assistant") showUsage(this.#usage, this.message);
    this.#showState();
    if (this.#footer.dataset.for !== this.#footerKey()) this.#showFooter();
    return isShown;
  }

  /** Set where the message stands among its siblings. */
  setPlace(place) {
    this.#place = place;
    this.element.classList.toggle("is-chosen", place.isPair && place.isChosen);
    if (this.isBuilt) this.update();
  }

  focus() {
    this.element.focus({ preventScroll: true });
    this.element.scrollIntoView({ block: "nearest" });
  }

  /** Focus the first of these buttons that can be used: those of the message before are gone. */
  focusAction(...keys) {
    this.build();
    const buttons = keys.map((key) => this.#footer.querySelector(`[data-action=${key}]:not(:disabled)`));
    buttons.find(Boolean)?.focus();
  }

  /** Turn the message of a user into a form. */
  edit() {
    this.build();
    if (this.element.querySelector(".editor")) return;
    const editor = new MessageEditor(textOf(this.message), {
      onSend: (text) => this.#actions.edit(this.message, text),
      onEnd: () => this.#endEdit(editor),
    });
    this.element.classList.add("is-edited");
    this.element.append(editor.element);
    editor.focus();
  }

  #endEdit(editor) {
    editor.element.remove();
    this.element.classList.remove("is-edited");
    this.focusAction("edit");
  }

  #header() {
    const { role, model } = this.message;
    const id = `title-${this.message.id}`;
    const header = el("header", {}, el("h2", { id, text: role === "user" ? "You" : model || "Answer" }));
    this.element.setAttribute("aria-labelledby", id);
    if (role === "assistant" && this.#actions.isSimulated(model)) {
      const title = "The simulator of LM Deluge wrote this answer. No model was asked.";
      header.append(el("span", { class: "badge simulated", text: "simulated, not a model", title }));
    }
    return header;
  }

  #showState() {
    const { status, error } = this.message;
    const key = `${status} ${this.message.unsaved} ${this.message.note ?? ""} ${this.message.parts.length > 0} ${error?.message ?? ""}`;
    if (this.#state.dataset.for === key) return;
    this.#state.dataset.for = key;
    this.#state.replaceChildren(...this.#stateContent(), ...(this.message.unsaved ? [el("p", { class: "note", text: UNSAVED })] : []));
  }

  #stateContent() {
    const { status, parts, note } = this.message;
    if (note) return [el("p", { class: "note", text: note })];
    if (status === "running") return [parts.length ? dots("small") : waiting()];
    if (status === "stopped") return [el("p", { class: "note", text: "Stopped. What had arrived is kept." })];
    return status === "failed" ? [this.#failure()] : [];
  }

  #failure() {
    const { error, parts } = this.message;
    const kept = parts.length ? " What had arrived is kept." : "";
    const retry = el("button", { type: "button", class: "button", on: { click: () => this.#actions.retry(this.message) } });
    retry.append(icon("retry"), "Try again");
    return el(
      "div",
      { class: "failure" },
      icon("warning"),
      el("div", {}, el("p", { class: "failure-title", text: failureTitle(error) }), el("p", { text: failureText(error) + kept })),
      retry,
    );
  }

  #footerKey() {
    const { position, count, isPair, isChosen } = this.#place;
    return `${this.message.status} ${position}/${count} ${isPair} ${isChosen}`;
  }

  // The control that had the focus has it again afterwards.
  #showFooter() {
    const focused = this.#footer.contains(document.activeElement) ? document.activeElement.dataset.action : null;
    this.#footer.dataset.for = this.#footerKey();
    const isRunning = this.message.status === "running";
    const buttons = this.message.role === "user" ? this.#userButtons() : isRunning ? [] : this.#answerButtons();
    const tools = el("div", { class: "tools" }, this.#branches(), buttons, this.#choice());
    this.#footer.replaceChildren(tools);
    if (this.message.role === "assistant") this.#footer.append(this.#usage);
    if (focused) this.focusAction(focused);
  }

  #userButtons() {
    return [this.#copyButton(), action("edit", "edit", "Edit and continue from here", () => this.edit())];
  }

  #answerButtons() {
    return [this.#copyButton(), action("retry", "regenerate", "Regenerate this answer", () => this.#actions.regenerate(this.message))];
  }

  #copyButton() {
    const button = action("copy", "copy", "Copy as Markdown", () => copyText(button, textOf(this.message)));
    return button;
  }

  #branches() {
    const { position, count } = this.#place;
    if (count < 2) return null;
    const move = (step) => this.#actions.switchVariant(this.message, position + step);
    const properties = { class: "branches", role: "group", "aria-label": "Versions of this message" };
    return el(
      "div",
      properties,
      action("chevronLeft", "previous", "Previous version", () => move(-1), { disabled: position === 0 }),
      el("span", { text: `${position + 1} / ${count}`, "aria-label": `Version ${position + 1} of ${count}` }),
      action("chevronRight", "next", "Next version", () => move(1), { disabled: position === count - 1 }),
    );
  }

  #choice() {
    const { isPair, isChosen } = this.#place;
    if (!isPair || this.message.role === "user") return null;
    const properties = { type: "button", class: "choose", "aria-pressed": String(isChosen), data: { action: "choose" } };
    const button = el("button", { ...properties, on: { click: () => this.#actions.choose(this.message) } });
    button.append(icon("check"), isChosen ? "Continues from here" : "Continue from this one");
    return button;
  }
}

function action(name, key, label, onClick, properties = {}) {
  return iconButton(name, label, onClick, { ...properties, data: { action: key } });
}

const dots = (size = "") => el("div", { class: `dots ${size}`, "aria-hidden": "true" }, el("i"), el("i"), el("i"));

const waiting = () => el("div", { class: "waiting" }, dots(), "Waiting for the first token");

const TITLES = {
  AuthenticationError: "The provider did not accept the key",
  RateLimitError: "The provider's rate limit is reached",
  TruncatedError: "The answer was cut off",
  StreamInterruptedError: "The answer was cut off",
  ConnectionLost: "The answer was cut off",
};

// What a reader cannot do anything with: how the end of a stream is found missing.
const TEXTS = { TruncatedError: "The provider ended the connection before the answer was complete." };

const failureText = (error) => TEXTS[error?.type] ?? sentence(error?.message);

const failureTitle = (error) => TITLES[error?.type] ?? "The answer failed";

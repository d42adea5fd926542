// The field for the next message.

import { el } from "../dom.js";
import { draft, setDraft } from "../memory.js";
import { Attachments, receiveFiles } from "./attachments.js";

// Rows that the field grows to where the browser cannot size it by its content.
const MOST_ROWS = 12;

/** `onSend(parts)` may throw: the text and the files stay in the field then, and the error is shown. */
export class Composer {
  #form = document.getElementById("composer");
  #field = document.getElementById("message");
  #send = document.getElementById("send");
  #stop = document.getElementById("stop");
  #problem = document.getElementById("composer-problem");
  #picker = document.getElementById("file-picker");
  #attachments = new Attachments((change) => this.#filesChanged(change));
  #actions;
  #conversation = "new";
  #isRunning = false;

  constructor(actions) {
    this.#actions = actions;
    this.#field.before(this.#attachments.element);
    this.#form.addEventListener("submit", (event) => this.#submit(event));
    this.#field.addEventListener("keydown", (event) => this.#pressed(event));
    this.#field.addEventListener("input", () => this.#changed());
    this.#stop.addEventListener("click", () => this.#actions.stop());
    document.getElementById("attach").addEventListener("click", () => this.#picker.click());
    this.#picker.addEventListener("change", () => this.#picked());
    receiveFiles((files) => this.addFiles(files));
    this.#changed();
  }

  focus() {
    this.#field.focus();
  }

  get isEmpty() {
    return !this.#field.value.trim() && !this.#attachments.parts.length;
  }

  /** Put a text into the field. */
  fill(text) {
    this.#field.value = text;
    this.#changed();
    this.focus();
  }

  addFiles(files) {
    this.#attachments.add(files);
    this.focus();
  }

  /** Show the draft of a conversation; null is a new one. */
  open(conversation) {
    this.#conversation = conversation ?? "new";
    this.#field.value = draft(this.#conversation);
    this.#attachments.clear();
    this.showProblem(null);
    this.#changed();
  }

  /** The new conversation that is open was created. */
  setConversation(conversation) {
    this.#conversation = conversation;
  }

  /** Show Stop in the place of Send. The focus moves with it. */
  setRunning(isRunning) {
    if (this.#isRunning === isRunning) return;
    const hadFocus = document.activeElement === this.#send || document.activeElement === this.#stop;
    this.#isRunning = isRunning;
    this.#send.hidden = isRunning;
    this.#stop.hidden = !isRunning;
    if (hadFocus) this.focus();
    this.#changed();
  }

  /** Show what went wrong above the field; null removes it. */
  showProblem(text, retry = null) {
    this.#problem.hidden = !text;
    this.#problem.replaceChildren(...(text ? [el("p", { text })] : []));
    if (!text || !retry) return;
    this.#problem.append(el("button", { type: "button", class: "button", text: "Try again", on: { click: retry } }));
  }

  #picked() {
    this.addFiles([...this.#picker.files]);
    this.#picker.value = "";
  }

  #filesChanged({ isRemoval }) {
    if (isRemoval) this.focus();
    this.#changed();
    this.#actions.filesChanged(this.#attachments.parts);
  }

  #changed() {
    setDraft(this.#conversation, this.#field.value);
    if (!CSS.supports("field-sizing", "content")) {
      this.#field.rows = Math.min(this.#field.value.split("\n").length, MOST_ROWS);
    }
    const isUploading = this.#attachments.isUploading;
    this.#send.setAttribute("aria-disabled", String(this.isEmpty || isUploading));
  }

  #pressed(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) this.#submit(event);
    else if (event.key === "ArrowUp" && !event.altKey && this.#field.value === "") {
      if (this.#actions.editLast()) event.preventDefault();
    }
  }

  async #submit(event) {
    event.preventDefault();
    if (this.isEmpty || this.#isRunning || this.#attachments.isUploading) return;
    const text = this.#field.value.trim();
    const parts = [...(text ? [{ type: "text", text }] : []), ...this.#attachments.parts];
    this.showProblem(null);
    this.setRunning(true);
    try {
      setDraft(this.#conversation, ""); // a new conversation gets another name for its drafts
      await this.#actions.send(parts);
      this.#field.value = "";
      this.#attachments.clear();
    } catch (error) {
      this.setRunning(false);
      this.showProblem(error.message, () => this.#form.requestSubmit());
    }
    this.#changed();
  }
}

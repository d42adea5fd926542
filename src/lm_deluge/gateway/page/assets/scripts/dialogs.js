// Dialogs. The dialog element keeps the focus inside, closes with Escape, and gives the focus back.

import { el, iconButton } from "./dom.js";
import { COMMAND } from "./keys.js";

/** Open a new dialog with a title; it is removed when it closes. */
export function openDialog(title, { class: className = "" } = {}, ...content) {
  const id = `dialog-${crypto.randomUUID?.() ?? Date.now()}`;
  const dialog = el("dialog", { class: `dialog ${className}`, "aria-labelledby": id });
  const close = iconButton("close", "Close", () => dialog.close(), { class: "dialog-close" });
  dialog.append(el("header", { class: "dialog-head" }, el("h2", { id, text: title }), close), ...content);
  dialog.addEventListener("close", () => dialog.remove());
  // A click on the dialog itself, outside its content, is one on the backdrop.
  dialog.addEventListener("pointerdown", (event) => event.target === dialog && isOutside(dialog, event) && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function isOutside(dialog, { clientX, clientY }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return clientX < left || clientX > right || clientY < top || clientY > bottom;
}

/** Ask for a confirmation; resolves to true or false. */
export function confirm(title, text, action) {
  return new Promise((resolve) => {
    let isConfirmed = false;
    const yes = el("button", { type: "button", class: "button danger", text: action });
    const no = el("button", { type: "button", class: "button", text: "Cancel" });
    const dialog = openDialog(title, { class: "small" }, el("p", { text }), el("div", { class: "row end" }, no, yes));
    no.addEventListener("click", () => dialog.close());
    yes.addEventListener("click", () => {
      isConfirmed = true;
      dialog.close();
    });
    dialog.addEventListener("close", () => resolve(isConfirmed));
    no.focus();
  });
}

/** Ask for a line of text; resolves to the text, or null. */
export function askForText(title, label, value) {
  return new Promise((resolve) => {
    let answer = null;
    const field = el("input", { type: "text", id: "asked-text", value, maxlength: 300, autocomplete: "off" });
    const save = el("button", { type: "submit", class: "button primary", text: "Save" });
    const form = el("form", {}, el("label", { for: "asked-text", text: label }), field, el("div", { class: "row end" }, save));
    const dialog = openDialog(title, { class: "small" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      answer = field.value.trim() || null;
      dialog.close();
    });
    dialog.addEventListener("close", () => resolve(answer));
    field.select();
  });
}

const SHORTCUTS = [
  ["Send the message", ["Enter"]],
  ["New line", ["Shift", "Enter"]],
  ["Stop the answer", ["Esc"]],
  ["Edit the last message", ["↑"], "in the empty field"],
  ["New conversation", [COMMAND, "Shift", "O"]],
  ["Search conversations", [COMMAND, "K"]],
  ["Choose a model", [COMMAND, "."]],
  ["Settings of the conversation", [COMMAND, ","]],
  ["Previous or next message", ["Alt", "↑ ↓"]],
  ["Write a message", ["/"], "outside a field"],
  ["This list", [COMMAND, "/"]],
];

/** Show the keyboard shortcuts. */
export function showShortcuts() {
  const list = el("dl", { class: "shortcuts" });
  for (const [what, keys, where] of SHORTCUTS) {
    const shown = keys.flatMap((key) => el("kbd", { text: key }));
    list.append(el("div", {}, el("dt", {}, what, where ? el("small", { text: ` ${where}` }) : null), el("dd", {}, shown)));
  }
  openDialog("Keyboard shortcuts", { class: "small" }, list);
}

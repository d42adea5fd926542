// Code blocks with their language and a copy button; tables that scroll by themselves.

import { announce } from "../announcer.js";
import { el, icon } from "../dom.js";

// How long "Copied" is shown.
const COPIED_MS = 1600;

/** Create the frame of a code block around `pre`. */
export function codeFrame(pre, language) {
  pre.tabIndex = 0; // it scrolls, so that the keyboard must reach it
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  const button = el("button", { type: "button", class: "copy-code", on: { click: () => copyText(button, pre.textContent) } });
  button.append(icon("copy"), el("span", { text: "Copy" }));
  return el("div", { class: "code" }, el("div", { class: "code-bar" }, el("span", { text: language || "text" }), button), pre);
}

/** Add what rendered Markdown needs beyond its HTML. */
export function decorate(root) {
  for (const pre of root.querySelectorAll("pre")) {
    const language = /language-([^\s]+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
    const place = document.createComment("");
    pre.replaceWith(place);
    place.replaceWith(codeFrame(pre, language));
  }
  for (const table of root.querySelectorAll("table")) {
    const frame = el("div", { class: "table", tabindex: 0, role: "group", "aria-label": "Table" });
    table.replaceWith(frame);
    frame.append(table);
  }
}

/** Copy a text and show for a moment on the button that it is copied. */
export async function copyText(button, text) {
  const isCopied = await writeClipboard(text);
  announce(isCopied ? "Copied" : "The browser did not allow copying.");
  const state = isCopied ? "is-copied" : "is-refused";
  button.classList.add(state);
  setTimeout(() => button.classList.remove(state), COPIED_MS);
}

async function writeClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// Without HTTPS, beyond 127.0.0.1, browsers offer no clipboard API.
function copyBySelection(text) {
  const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
  const focused = document.activeElement;
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return isCopied;
}

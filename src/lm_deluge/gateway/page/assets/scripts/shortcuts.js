// Keyboard shortcuts of the page. A dialog or a menu that is open has the keys to itself.

import { hasCommandKey } from "./keys.js";

const isField = (element) => element.closest?.("input, textarea, select, [contenteditable]") !== null;

/** Run `commands` by their names: newConversation, search, model, settings, shortcuts, write, stop, move(step). */
export function listenForShortcuts(commands) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open], .menu")) return;
    const run = commandOf(event, commands);
    if (!run) return;
    event.preventDefault();
    run();
  });
}

function commandOf(event, commands) {
  if (hasCommandKey(event)) return withCommandKey(event, commands);
  if (event.altKey && !event.ctrlKey) return { ArrowUp: () => commands.move(-1), ArrowDown: () => commands.move(1) }[event.key];
  if (event.key === "Escape") return commands.stop;
  return event.key === "/" && !isField(event.target) ? commands.write : null;
}

function withCommandKey(event, commands) {
  if (event.shiftKey && event.key.toLowerCase() === "o") return commands.newConversation;
  return { k: commands.search, ".": commands.model, ",": commands.settings, "/": commands.shortcuts }[event.key.toLowerCase()];
}

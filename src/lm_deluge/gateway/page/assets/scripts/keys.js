// Keys.

export const deleteKey = (event) => event.key === "Delete" || event.key === "Backspace";

const isMac = /Mac|iPhone|iPad/.test(navigator.platform);

/** Whether the key that commands of the page use is held: Control, or Command on a Mac. */
export const hasCommandKey = (event) => (isMac ? event.metaKey : event.ctrlKey) && !event.altKey;

export const COMMAND = isMac ? "⌘" : "Ctrl";

/** Move an index by an arrow, Home, End or a page key; null for another key. */
export function movedIndex(event, index, length) {
  const steps = { ArrowDown: index + 1, ArrowUp: index - 1, PageDown: index + 8, PageUp: index - 8 };
  if (event.key in steps) return Math.min(Math.max(steps[event.key], 0), length - 1);
  return null;
}

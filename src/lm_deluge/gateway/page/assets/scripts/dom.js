// Elements without HTML strings: under Trusted Types no string can become HTML, except in text/markdown.js.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an element. `on` maps events to listeners, `data` is the dataset; true and false set or omit an attribute.
 * Children may be nodes, texts, arrays of both, or null.
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  const { class: className, text, on, data, ...attributes } = properties;
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  Object.assign(element.dataset, data);
  for (const [name, listener] of Object.entries(on ?? {})) element.addEventListener(name, listener);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

// Paths of 24 x 24 icons, drawn with a line.
const ICONS = {
  arrowDown: "M12 5v14M6 13l6 6 6-6",
  arrowUp: "M12 19V5M6 11l6-6 6 6",
  check: "M5 13l4 4L19 7",
  chevronLeft: "M15 6l-6 6 6 6",
  chevronRight: "M9 6l6 6-6 6",
  chevronDown: "M6 9l6 6 6-6",
  close: "M6 6l12 12M18 6L6 18",
  columns: "M4 5h16v14H4zM12 5v14",
  copy: "M9 9h10v11H9zM5 15V4h10",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  drop: "M12 3c4 5 6.5 8 6.5 11.2A6.5 6.5 0 0 1 12 21a6.5 6.5 0 0 1-6.5-6.8C5.5 11 8 8 12 3z",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  keyboard: "M3 7h18v11H3zM7 11h.01M11 11h.01M15 11h.01M8 15h8",
  link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.6-5.6l-1.4 1.4M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.6 5.6l1.4-1.4",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  paperclip: "M19 11l-7.5 7.5a4.5 4.5 0 0 1-6.4-6.4L13 4.3a3 3 0 0 1 4.3 4.2L9.6 16.2a1.5 1.5 0 0 1-2.1-2.1L14 7.6",
  plus: "M12 5v14M5 12h14",
  retry: "M4 11a8 8 0 0 1 14-4.5L20 9M20 4v5h-5M20 13a8 8 0 0 1-14 4.5L4 15M4 20v-5h5",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l4.5 4.5",
  signOut: "M14 4H5v16h9M10 12h10M16 8l4 4-4 4",
  sliders: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  stop: "M7 7h10v10H7z",
  theme: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  tool: "M14.5 6a4 4 0 0 1 5-1l-2.5 2.5 1.5 1.5L21 6.5a4 4 0 0 1-5.5 5L8 19a2 2 0 0 1-3-3l7.5-7.5a4 4 0 0 1 2-2.5z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
};

/** Create an icon that assistive technology ignores: the control around it has the label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("focusable", "false");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Create a button with an icon; `label` is its accessible name and tooltip. */
export function iconButton(name, label, onClick, properties = {}) {
  const { class: className = "", ...rest } = properties;
  return el(
    "button",
    { type: "button", class: `icon-button ${className}`, "aria-label": label, title: label, on: { click: onClick }, ...rest },
    icon(name),
  );
}

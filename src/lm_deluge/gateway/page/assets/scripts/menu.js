// A menu of a button: arrow keys move, Escape and a click elsewhere close.

import { el, icon } from "./dom.js";
import { movedIndex } from "./keys.js";

let closeOpen = null;

/** Open a menu below `button`. `items` are {label, icon, run} or {label, icon, href}. */
export function openMenu(button, items) {
  const isSame = button.getAttribute("aria-expanded") === "true";
  closeOpen?.();
  if (isSame) return;
  const menu = el("div", { class: "menu", role: "menu", "aria-label": button.getAttribute("aria-label") });
  menu.append(...items.map((item) => menuItem(item)));
  const close = (focus = false) => {
    closeOpen = null;
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    if (focus) button.focus();
  };
  const outside = (event) => !menu.contains(event.target) && event.target.closest("button") !== button && close();
  menu.addEventListener("keydown", (event) => pressed(event, menu, close));
  menu.addEventListener("click", () => close(true));
  document.addEventListener("pointerdown", outside, true);
  closeOpen = close;
  button.setAttribute("aria-expanded", "true");
  (button.closest("nav, main") ?? document.body).append(menu); // in a landmark, as everything else
  place(menu, button);
  menu.firstElementChild.focus();
}

function menuItem({ label, icon: name, run, href, isDanger }) {
  const properties = { role: "menuitem", tabindex: -1, class: isDanger ? "danger" : "" };
  const item = href ? el("a", { ...properties, href, download: "" }) : el("button", { ...properties, type: "button" });
  // After the menu has given the focus back, so that a dialog returns it to the button.
  if (run) item.addEventListener("click", () => queueMicrotask(run));
  item.append(icon(name), label);
  return item;
}

function pressed(event, menu, close) {
  const items = [...menu.children];
  const index = movedIndex(event, items.indexOf(document.activeElement), items.length);
  if (index !== null) {
    event.preventDefault();
    items[index].focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    event.preventDefault();
    event.stopPropagation();
    close(true);
  }
}

function place(menu, button) {
  const { bottom, top, right } = button.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  const hasRoom = bottom + height < innerHeight;
  menu.style.top = `${hasRoom ? bottom + 4 : top - height - 4}px`;
  menu.style.left = `${Math.max(8, right - width)}px`;
}

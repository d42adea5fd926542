// The switch between the theme of the system, light and dark.

import { announce } from "./announcer.js";
import { preference, setPreference } from "./memory.js";

const NEXT = { system: "light", light: "dark", dark: "system" };
const NAMES = { system: "as the system", light: "light", dark: "dark" };

/** Make `button` switch the theme. */
export function startTheme(button) {
  let theme = preference("theme") ?? "system";
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Theme: ${NAMES[theme]}. Switch to ${NAMES[NEXT[theme]]}`);
    button.title = `Theme: ${NAMES[theme]}`;
  };
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    setPreference("theme", theme === "system" ? null : theme);
    show();
    announce(`Theme: ${NAMES[theme]}`);
  });
  show();
}

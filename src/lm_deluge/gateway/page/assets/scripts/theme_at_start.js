// A classic script in the head: the theme is set before the first paint, so that a dark page never flashes white.
{
  let theme = null;
  try {
    theme = localStorage.getItem("deluge-theme");
  } catch {
    // Storage is blocked: the theme of the system applies.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

// Signing in with a key. The key goes to the server once; the page keeps only a cookie that no script can read.

import * as api from "./api.js";
import { announceFailure } from "./announcer.js";

const view = document.getElementById("sign-in");
const form = document.getElementById("sign-in-form");
const field = document.getElementById("key");
const problem = document.getElementById("sign-in-problem");

function show(isShown) {
  view.hidden = !isShown;
  document.getElementById("app").hidden = isShown;
}

/** Ask for a key until the server takes one. */
export function signIn() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  show(true);
  field.focus();
  return new Promise((resolve) => {
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (await attempt()) {
        show(false);
        resolve();
      }
    };
  });
}

async function attempt() {
  problem.hidden = true;
  try {
    await api.signIn(field.value.trim());
    return true;
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
    announceFailure(error.message);
    field.select();
    return false;
  } finally {
    field.value = "";
  }
}

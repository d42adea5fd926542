// What the browser remembers: preferences (all tabs) and drafts (this tab). Blocked storage is like an empty one.

function attempt(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

export const preference = (name) => attempt(() => localStorage.getItem(`deluge-${name}`));

export function setPreference(name, value) {
  attempt(() => (value === null ? localStorage.removeItem(`deluge-${name}`) : localStorage.setItem(`deluge-${name}`, value)));
}

export const draft = (conversation) => attempt(() => sessionStorage.getItem(`draft-${conversation}`)) ?? "";

export const forgetDrafts = () => attempt(() => sessionStorage.clear());

export function setDraft(conversation, text) {
  attempt(() => (text ? sessionStorage.setItem(`draft-${conversation}`, text) : sessionStorage.removeItem(`draft-${conversation}`)));
}

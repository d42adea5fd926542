// The list of conversations: search, open, rename, export, delete.

import { announce } from "./announcer.js";
import * as api from "./api.js";
import { askForText, confirm } from "./dialogs.js";
import { el, iconButton } from "./dom.js";
import { openMenu } from "./menu.js";
import { dayGroup, dayOf } from "./numbers.js";

const SEARCH_DELAY_MS = 180;
const PAGE = 40;

export class Sidebar {
  #list = document.getElementById("conversations");
  #search = document.getElementById("search");
  #more = document.getElementById("more-conversations");
  #items = [];
  #current = null;
  #request = null;
  #timer = 0;
  #onDeleted;
  #onRenamed;

  constructor({ onDeleted, onRenamed }) {
    this.#onDeleted = onDeleted;
    this.#onRenamed = onRenamed;
    this.#search.addEventListener("input", () => this.#searchSoon());
    this.#search.addEventListener("keydown", (event) => this.#searchPressed(event));
    this.#more.addEventListener("click", () => this.#loadMore());
    const toggle = document.getElementById("toggle-sidebar");
    toggle.addEventListener("click", () => this.setOpen(!this.isOpen));
    document.getElementById("close-sidebar").addEventListener("click", () => this.setOpen(false));
    document.getElementById("sidebar-backdrop").addEventListener("click", () => this.setOpen(false));
  }

  /** Whether the list covers a narrow page. */
  get isOpen() {
    return document.documentElement.classList.contains("has-sidebar");
  }

  setOpen(isOpen) {
    const toggle = document.getElementById("toggle-sidebar");
    if (this.isOpen === isOpen) return;
    document.documentElement.classList.toggle("has-sidebar", isOpen);
    toggle.setAttribute("aria-expanded", String(isOpen));
    // What the list covers cannot be reached meanwhile.
    document.getElementById("main").inert = isOpen;
    if (isOpen) document.getElementById("close-sidebar").focus();
    else toggle.focus();
  }

  focusSearch() {
    if (getComputedStyle(document.getElementById("toggle-sidebar")).display !== "none") this.setOpen(true);
    this.#search.focus();
    this.#search.select();
  }

  setCurrent(id) {
    this.#current = id;
    for (const link of this.#list.querySelectorAll("a")) markCurrent(link, id);
  }

  /** Fetch the list again. */
  async refresh() {
    this.#request?.abort();
    const { signal } = (this.#request = new AbortController());
    const query = this.#search.value.trim();
    try {
      const { conversations, more } = await api.listConversations({ query, limit: Math.max(PAGE, this.#items.length) }, signal);
      this.#items = conversations;
      this.#show(more);
      if (query) announce(`${conversations.length}${more ? " or more" : ""} conversations found.`);
    } catch (error) {
      if (error.name !== "AbortError") this.#showFailure(error);
    }
  }

  async #loadMore() {
    const last = this.#items.at(-1);
    try {
      const found = await api.listConversations({ query: this.#search.value.trim(), before: last.updated, limit: PAGE });
      const known = new Set(this.#items.map((item) => item.id));
      const added = found.conversations.filter((item) => !known.has(item.id));
      this.#items.push(...added);
      this.#show(found.more);
      document.getElementById(`conversation-${added[0]?.id}`)?.focus();
    } catch (error) {
      this.#showFailure(error);
    }
  }

  #searchSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#items = [];
      this.refresh();
    }, SEARCH_DELAY_MS);
  }

  #searchPressed(event) {
    if (event.key === "ArrowDown") this.#list.querySelector("a")?.focus();
    else if (event.key === "Escape" && this.#search.value) {
      event.stopPropagation();
      this.#search.value = "";
      this.#searchSoon();
    }
  }

  #show(more) {
    const focused = document.activeElement?.id;
    const groups = grouped(this.#items);
    const sections = [...groups].map(([title, items]) => this.#section(title, items));
    const empty = this.#search.value ? "No conversation has these words." : "Conversations appear here.";
    this.#list.replaceChildren(...(sections.length ? sections : [el("p", { class: "empty-list", text: empty })]));
    this.#more.hidden = !more;
    if (focused?.startsWith("conversation-")) document.getElementById(focused)?.focus();
  }

  #showFailure(error) {
    const retry = el("button", { type: "button", class: "button", text: "Try again", on: { click: () => this.refresh() } });
    this.#list.replaceChildren(el("div", { class: "empty-list" }, el("p", { text: error.message }), retry));
    this.#more.hidden = true;
  }

  #section(title, items) {
    const id = `group-${title.replaceAll(" ", "-")}`;
    const list = el("ul", { "aria-labelledby": id }, items.map((item) => this.#row(item)));
    return el("section", {}, el("h3", { id, text: title }), list);
  }

  #row(item) {
    const title = item.title || "New conversation";
    const link = el("a", { href: `#/c/${encodeURIComponent(item.id)}`, id: `conversation-${item.id}`, data: { id: item.id }, text: title });
    link.title = [title, dayOf(item.updated), ...(item.models ?? [])].join("\n");
    markCurrent(link, this.#current);
    link.addEventListener("click", () => this.setOpen(false));
    const more = iconButton("more", `Actions for ${title}`, () => this.#openMenu(more, item), { "aria-haspopup": "menu" });
    return el("li", {}, link, more);
  }

  #openMenu(button, item) {
    openMenu(button, [
      { label: "Rename", icon: "edit", run: () => this.#rename(item) },
      { label: "Export as Markdown", icon: "download", href: api.exportPath(item.id, "markdown") },
      { label: "Export as JSON", icon: "download", href: api.exportPath(item.id, "json") },
      { label: "Delete", icon: "trash", isDanger: true, run: () => this.#delete(item) },
    ]);
  }

  async #rename(item) {
    const title = await askForText("Rename the conversation", "Title", item.title);
    if (title === null) return;
    await this.#attempt(async () => {
      await api.changeConversation(item.id, { title });
      this.#onRenamed(item.id, title);
    });
  }

  async #delete(item) {
    const text = `“${item.title || "New conversation"}” and its files are deleted for good.`;
    if (!(await confirm("Delete the conversation?", text, "Delete"))) return;
    await this.#attempt(async () => {
      await api.deleteConversation(item.id);
      announce("The conversation is deleted.");
      this.#onDeleted(item.id);
      this.#search.focus();
    });
  }

  async #attempt(action) {
    try {
      await action();
      await this.refresh();
    } catch (error) {
      this.#showFailure(error);
    }
  }
}

function markCurrent(link, id) {
  if (link.dataset.id === id) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

function grouped(items) {
  const groups = new Map();
  for (const item of items) {
    const title = dayGroup(item.updated);
    const members = groups.get(title) ?? [];
    members.push(item);
    groups.set(title, members);
  }
  return groups;
}

// The start of the page, and what connects its parts.

import * as api from "./api.js";
import { announceFailure } from "./announcer.js";
import { Composer } from "./chat/composer.js";
import { Conversation } from "./chat/conversation.js";
import { showShortcuts } from "./dialogs.js";
import { forgetDrafts } from "./memory.js";
import { Models } from "./models.js";
import { openSettings } from "./settings.js";
import { listenForShortcuts } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { signIn } from "./sign_in.js";
import { startTheme } from "./theme.js";

const byId = (id) => document.getElementById(id);
const TITLE = "LM Deluge";

class Page {
  constructor() {
    this.models = new Models(() => this.changeConversation({}));
    this.composer = new Composer({
      send: (parts) => this.conversation.send(parts),
      stop: () => this.conversation.stop(),
      editLast: () => this.conversation.editLast(),
      filesChanged: (parts) => this.warnAboutFiles(parts),
    });
    this.sidebar = new Sidebar({
      onDeleted: (id) => id === this.conversation.id && this.goToNew(),
      onRenamed: (id, title) => id === this.conversation.id && this.conversation.rename(title),
    });
    this.conversation = new Conversation(byId("transcript"), this);
    this.listen();
  }

  listen() {
    byId("new-conversation").addEventListener("click", () => this.goToNew());
    byId("open-settings").addEventListener("click", () => this.openSettings());
    byId("open-shortcuts").addEventListener("click", showShortcuts);
    byId("skip").addEventListener("click", () => this.composer.focus());
    byId("sign-out").addEventListener("click", () => this.signOut());
    for (const button of document.querySelectorAll("[data-prompt]")) {
      button.addEventListener("click", () => this.composer.fill(button.dataset.prompt));
    }
    window.addEventListener("hashchange", () => this.route());
    listenForShortcuts({
      newConversation: () => this.goToNew(),
      search: () => this.sidebar.focusSearch(),
      model: () => this.models.pick(),
      settings: () => this.openSettings(),
      shortcuts: showShortcuts,
      write: () => this.composer.focus(),
      stop: () => this.escape(),
      move: (step) => this.conversation.moveFocus(step),
    });
  }

  async start() {
    startTheme(byId("switch-theme"));
    const session = await api.getSession();
    if (session.needs_key && !session.signed_in) await signIn();
    api.whenSignedOut(() => this.signInAgain());
    await this.enter();
  }

  async enter() {
    const session = await api.getSession();
    // Another user sees nothing of the one before.
    if (this.user !== undefined && this.user !== session.name) this.goToNew();
    this.user = session.name;
    byId("sign-out").hidden = !session.needs_key;
    byId("simulated-note").hidden = !session.simulated;
    await this.models.load();
    this.sidebar.refresh();
    await this.route();
    byId("app").hidden = false;
    this.composer.focus();
  }

  async signInAgain() {
    if (!byId("sign-in").hidden) return;
    await signIn();
    await this.attempt(() => this.enter());
  }

  async signOut() {
    await this.attempt(async () => {
      await api.signOut();
      forgetDrafts();
      this.goToNew();
      await this.signInAgain();
    });
  }

  /** Open the conversation that the address names. */
  async route() {
    const id = /^#\/c\/(.+)$/.exec(location.hash)?.[1];
    const wanted = id ? decodeURIComponent(id) : null;
    this.sidebar.setCurrent(wanted);
    this.sidebar.setOpen(false);
    if (wanted !== null && wanted === this.conversation.id) return;
    if (wanted === null) this.conversation.openNew();
    else await this.attempt(() => this.openStored(wanted));
    this.composer.focus();
  }

  async openStored(id) {
    try {
      await this.conversation.open(id);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.goToNew();
      if (error.status !== 404) throw error;
      this.composer.showProblem("This conversation no longer exists.");
    }
  }

  goToNew() {
    if (location.hash) history.pushState(null, "", location.pathname);
    this.route();
  }

  /** The new conversation was created. */
  opened(id) {
    history.replaceState(null, "", `#/c/${encodeURIComponent(id)}`);
    this.sidebar.setCurrent(id);
  }

  listChanged() {
    this.sidebar.refresh();
  }

  showTitle(title) {
    byId("title").textContent = title || "New conversation";
    document.title = title ? `${title} · ${TITLE}` : TITLE;
  }

  openSettings() {
    const { system, settings } = this.conversation;
    const efforts = [...new Set(this.models.selectedRows.flatMap((model) => model.efforts ?? []))];
    openSettings({ system, settings }, efforts, (value) => this.changeConversation(value));
  }

  changeConversation(value) {
    return this.attempt(() => this.conversation.change(value));
  }

  warnAboutFiles(parts) {
    const rows = this.models.selectedRows;
    const refused = rows.filter((model) => parts.some((part) => !model[part.type === "image" ? "images" : "files"]));
    this.composer.showProblem(parts.length && refused.length ? `${refused[0].id} may not accept these files.` : null);
  }

  escape() {
    if (this.sidebar.isOpen) this.sidebar.setOpen(false);
    else if (this.conversation.isRunning) this.conversation.stop();
  }

  async attempt(action) {
    try {
      await action();
    } catch (error) {
      if (error.status === 401) return;
      announceFailure(error.message);
      this.composer.showProblem(error.message);
    }
  }
}

function showStartFailure(error) {
  byId("app").hidden = true;
  byId("start-problem").hidden = false;
  byId("start-problem-text").textContent = error.message;
  byId("start-again").addEventListener("click", () => location.reload());
}

new Page().start().catch(showStartFailure);

// The conversation that is open: what the user does with it, and what is shown of it.

import { announce, announceFailure } from "../announcer.js";
import * as api from "../api.js";
import { LiveAnswer } from "../stream/live_answer.js";
import { ConversationTree } from "./tree.js";
import { Transcript } from "./transcript.js";

// The first words of a conversation are its title until it is renamed (characters).
const LONGEST_TITLE = 60;

/**
 * `page` has what the conversation changes: `composer`, `models`, `showTitle(text)`, `listChanged()`, `opened(id)`.
 */
export class Conversation {
  id = null;
  system = "";
  settings = {};
  #page;
  #tree = new ConversationTree();
  #head = null;
  #live = new Map();
  #transcript;
  #request = null;

  constructor(scroller, page) {
    this.#page = page;
    const isSimulated = (model) => page.models.isSimulated(model);
    const actions = { isSimulated };
    for (const name of ["edit", "regenerate", "retry", "switchVariant", "choose"]) actions[name] = (...given) => this.#attempt(name, given);
    this.#transcript = new Transcript(scroller, actions);
  }

  get isRunning() {
    return this.#live.size > 0;
  }

  get isEmpty() {
    return this.#head === null;
  }

  /** Open a new conversation; it is created with its first message. */
  openNew() {
    this.#leave();
    this.#take({ id: null, title: "", system: "", settings: {}, messages: [], head: null });
  }

  /** Open a stored conversation, and follow its running answers. */
  async open(id) {
    this.#leave();
    const { signal } = (this.#request = new AbortController());
    const stored = await api.getConversation(id, signal);
    this.#take(stored);
    for (const message of this.#tree.messages) if (message.status === "running") this.#follow(message);
  }

  rename(title) {
    this.#page.showTitle(title);
  }

  /** Send a message below the last one. Throws ApiError if the server does not take it. */
  async send(parts) {
    if (this.id === null) await this.#create(parts);
    await this.#ask(this.#head, { parts });
  }

  /** Stop all running answers. They are shown as stopped at once. */
  async stop() {
    const answers = [...this.#live.values()];
    this.#live.clear();
    this.#runningChanged();
    await Promise.all(answers.map((answer) => this.#stop(answer)));
    this.#page.listChanged();
  }

  async #stop(answer) {
    answer.freeze();
    try {
      await api.stopAnswer(answer.message.id);
      await answer.settleStopped();
    } catch (error) {
      // It still runs, and costs: it is shown again.
      this.#page.composer.showProblem(`The answer was not stopped. ${error.message}`);
      announceFailure(error.message);
      this.#follow(answer.message);
    }
  }

  /** Edit the last message of the user. Returns whether there is one. */
  editLast() {
    const turn = this.#tree.turns(this.#head).findLast(({ chosen }) => chosen.role === "user");
    if (!turn || this.isRunning) return false;
    this.#transcript.view(turn.chosen.id).edit();
    return true;
  }

  moveFocus(step) {
    this.#transcript.move(step);
  }

  /** Change the system prompt, the parameters or the models. */
  async change({ system = this.system, settings = this.settings }) {
    Object.assign(this, { system, settings });
    if (this.id !== null) await api.changeConversation(this.id, { system, settings: this.#allSettings() });
  }

  async edit(message, text) {
    const files = message.parts.filter((part) => part.type !== "text");
    await this.#ask(message.parent ?? null, { parts: [{ type: "text", text }, ...files] });
  }

  async regenerate(message) {
    const isPair = this.#membersOf(message).length > 1;
    await this.#ask(message.parent, null, isPair ? [message.model] : this.#page.models.selected);
  }

  async retry(message) {
    await this.#ask(message.parent, null, [message.model]);
  }

  async switchVariant(message, position) {
    const { variants, position: before } = this.#tree.turns(message.id).at(-1);
    const wanted = variants[position][0];
    const moved = this.#moveTo(this.#tree.leafOf(wanted.id));
    const [way, back] = position < before ? ["previous", "next"] : ["next", "previous"];
    this.#transcript.view(wanted.id).focusAction(way, back);
    await moved;
  }

  async choose(message) {
    await this.#moveTo(this.#tree.leafOf(message.id));
  }

  #membersOf(message) {
    return this.#tree.turns(message.id).at(-1).members;
  }

  // Buttons of messages: a failure is shown where the next message is written.
  async #attempt(name, given) {
    if (this.isRunning && !["switchVariant", "choose"].includes(name)) {
      announce("Wait for the answer, or stop it.");
      return;
    }
    try {
      this.#page.composer.showProblem(null);
      await this[name](...given);
    } catch (error) {
      announceFailure(error.message);
      this.#page.composer.showProblem(error.message, () => this.#attempt(name, given));
    }
  }

  #allSettings() {
    return { ...this.settings, models: this.#page.models.selected };
  }

  #leave() {
    this.#request?.abort();
    for (const answer of this.#live.values()) answer.leave();
    this.#live.clear();
    this.#runningChanged();
  }

  #take({ id, title, system, settings, messages, head }) {
    const { models, ...parameters } = settings ?? {};
    this.id = id;
    this.system = system ?? "";
    this.settings = parameters;
    this.#tree = new ConversationTree(messages);
    this.#head = head ?? this.#tree.leafOf(null);
    this.#page.models.select(models);
    this.#page.showTitle(title);
    this.#page.composer.open(id);
    this.#transcript.clear();
    this.#show();
    this.#transcript.scroll.toEnd();
  }

  async #create(parts) {
    const text = parts.find((part) => part.type === "text")?.text ?? parts[0]?.name ?? "";
    const title = shortened(text.trim().split("\n", 1)[0]);
    const { id } = await api.createConversation({ title, system: this.system, settings: this.#allSettings() });
    this.id = id;
    this.#page.composer.setConversation(id);
    this.#page.showTitle(title);
    this.#page.opened(id);
  }

  async #ask(parent, message, models = this.#page.models.selected) {
    const { id } = this;
    const request = { parent, message, models, settings: this.#allSettings() };
    const { message: added, answers } = await api.askForAnswers(id, request);
    this.#page.listChanged();
    if (this.id !== id) return;
    for (const each of added ? [added, ...answers] : answers) this.#tree.add(each);
    this.#head = answers[0].id;
    this.#show();
    this.#transcript.scroll.toEnd();
    // The button that was pressed may be gone with its message.
    if (document.activeElement === document.body) this.#page.composer.focus();
    for (const answer of answers) this.#follow(answer);
  }

  async #follow(message) {
    const live = new LiveAnswer(message, {
      onFrame: () => this.#draw(message),
      reload: async () => (await api.getConversation(this.id)).messages.find(({ id }) => id === message.id),
    });
    this.#live.set(message.id, live);
    this.#runningChanged();
    this.#draw(message);
    await live.run();
    if (!this.#live.delete(message.id)) return;
    this.#runningChanged();
    this.#page.listChanged();
  }

  #draw(message) {
    const isShown = this.#transcript.view(message.id)?.update() ?? true;
    this.#transcript.scroll.follow();
    return isShown;
  }

  async #moveTo(head) {
    this.#head = head;
    this.#show();
    await api.changeConversation(this.id, { head });
  }

  #show() {
    this.#transcript.show(this.#tree.turns(this.#head));
    document.documentElement.classList.toggle("is-empty", this.isEmpty);
  }

  #runningChanged() {
    this.#page.composer.setRunning(this.isRunning);
  }
}

function shortened(text) {
  const characters = [...text];
  return characters.length > LONGEST_TITLE ? `${characters.slice(0, LONGEST_TITLE - 1).join("")}…` : text;
}

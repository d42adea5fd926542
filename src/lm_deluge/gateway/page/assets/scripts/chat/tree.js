// A conversation as a tree: edits, regenerated answers and answers of two models are siblings. Pure.

/** Answers that were asked for together stand side by side; every other message is alone. */
const groupOf = (message) => (message.role === "assistant" ? `${message.created}` : message.id);

export class ConversationTree {
  #messages = new Map();
  #children = new Map();

  constructor(messages = []) {
    for (const message of messages) this.add(message);
  }

  add(message) {
    this.#messages.set(message.id, message);
    const siblings = this.#children.get(message.parent ?? null) ?? [];
    siblings.push(message);
    this.#children.set(message.parent ?? null, siblings);
  }

  get(id) {
    return this.#messages.get(id);
  }

  get messages() {
    return [...this.#messages.values()];
  }

  /** Return the newest message below `id` (null for the root), following the latest branch. */
  leafOf(id) {
    let leaf = id;
    for (;;) {
      const groups = this.#groups(leaf);
      if (!groups.length) return leaf;
      const members = groups.at(-1);
      leaf = (members.find((member) => this.#children.has(member.id)) ?? members[0]).id;
    }
  }

  /**
   * Return the turns from the root to the message `head`: {members, chosen, position, variants}. `members` stand side by
   * side, `chosen` is the one that the conversation continues, `variants` are all groups that may stand here.
   */
  turns(head) {
    const turns = [];
    for (let message = this.get(head); message; message = this.get(message.parent)) {
      const variants = this.#groups(message.parent ?? null);
      const position = variants.findIndex((members) => members.includes(message));
      turns.push({ members: variants[position], chosen: message, position, variants });
    }
    return turns.reverse();
  }

  #groups(parent) {
    const groups = new Map();
    for (const message of this.#children.get(parent) ?? []) {
      const members = groups.get(groupOf(message)) ?? [];
      members.push(message);
      groups.set(groupOf(message), members);
    }
    return [...groups.values()];
  }
}

// A running answer: its events on one side, its message on the other.

import { AnswerAnnouncer } from "../announcer.js";
import { inNextFrame } from "../frames.js";
import { AnswerParts } from "./answer_parts.js";
import { followAnswer } from "./answer_stream.js";

const LOST = {
  type: "ConnectionLost",
  message: "The connection ended before the answer did, and could not be opened again.",
  retryable: true,
};

/**
 * Fills `message` while its answer runs. `onFrame` is called at most once per animation frame and returns whether
 * everything is shown; `reload` fetches the message as the server has it.
 */
export class LiveAnswer {
  #fold = new AnswerParts();
  #abort = new AbortController();
  #announcer;
  #onFrame;
  #reload;

  constructor(message, { onFrame, reload }) {
    this.message = message;
    this.#onFrame = onFrame;
    this.#reload = reload;
    this.#announcer = new AnswerAnnouncer(message.model);
    message.status = "running";
    // The events start with the first one: what the server had stored meanwhile would be shown twice.
    message.parts = this.#fold.parts;
  }

  /** Follow the answer until its end; never throws. */
  async run() {
    const outcome = await followAnswer(this.message.id, {
      signal: this.#abort.signal,
      onChunks: (chunks) => this.#receive(chunks),
      onReconnect: () => this.#note("The connection was lost. Trying again…"),
    });
    if (outcome !== "aborted") await this.#settle(outcome);
  }

  /** Stop reading, when the conversation is left. */
  leave() {
    this.#abort.abort();
  }

  /** Stop reading and show the answer as stopped; the server is asked meanwhile. */
  freeze() {
    this.#abort.abort();
    this.message.status = "stopped";
    this.#end();
  }

  /** The server has stopped the answer: show its record, with the cost. */
  async settleStopped() {
    await this.#takeStored();
    this.#end();
  }

  #receive(chunks) {
    this.message.note = null;
    this.#fold.add(chunks);
    this.message.progress = this.#fold.progress;
    this.message.unsaved = this.#fold.unsaved;
    this.#announcer.grow(() => this.#fold.text);
    inNextFrame(this.#draw);
  }

  #draw = () => {
    if (!this.#onFrame()) inNextFrame(this.#draw);
  };

  #note(text) {
    this.message.note = text;
    inNextFrame(this.#draw);
  }

  async #settle(outcome) {
    this.message.note = null;
    const isComplete = outcome === "terminal" && this.#fold.ending.type === "finish";
    if (isComplete) this.#complete();
    else await this.#settleBroken();
    this.#end();
  }

  // Stopped elsewhere, failed, or cut: the server knows how it ended, and what it has kept.
  async #settleBroken() {
    const isStored = await this.#takeStored();
    if (isStored && this.message.status !== "running") return;
    this.message.status = "failed";
    const { errorText } = this.#fold.ending ?? {};
    this.message.error = errorText ? { type: "error", message: errorText, retryable: true } : LOST;
  }

  async #takeStored() {
    try {
      const stored = await this.#reload();
      if (!stored) return false;
      // Parts that are the same on the page stay, with the state of their views.
      if (stored.status === "running" || sameText(stored.parts, this.message.parts)) stored.parts = this.message.parts;
      Object.assign(this.message, stored);
      return true;
    } catch {
      return false;
    }
  }

  #complete() {
    const { usage, cost, firstTokenS, durationS, model } = this.#fold.metadata;
    Object.assign(this.message, { status: "complete", cost: cost ?? null, first_token_s: firstTokenS, duration_s: durationS });
    this.message.model ??= model;
    if (usage) this.message.usage = usageOf(usage);
  }

  #end() {
    for (const part of this.message.parts) delete part.isOpen;
    this.#announcer.end(ENDINGS[this.message.status] ?? `The answer failed. ${this.message.error?.message ?? ""}`);
    inNextFrame(this.#draw);
  }
}

const ENDINGS = { complete: "The answer is complete.", stopped: "The answer is stopped." };

function usageOf({ inputTokens, outputTokens, reasoningTokens, cachedInputTokens }) {
  return { input_tokens: inputTokens, output_tokens: outputTokens, reasoning_tokens: reasoningTokens, cached: cachedInputTokens };
}

function sameText(stored, shown) {
  const key = (parts) => JSON.stringify(parts.map(({ type, text, name }) => [type, text, name]));
  return key(stored) === key(shown);
}

// A code block that grows: only its last lines are highlighted again. Its frame stays until the end, and with it the focus
// on its button and its scroll position.

import { el } from "../dom.js";
import { codeFrame } from "./code_blocks.js";
import { piecesOf, showCode } from "./markdown.js";

// Characters of a piece; two of them take about 5 ms on a slow machine.
const PIECE = 1500;
// Code up to this length is highlighted once more as a whole at its end, so that strings over several lines are right.
const LONGEST_WHOLE = 16_000;

export class OpenCode {
  #code;
  #shown = 0;
  #last = null;

  constructor(language) {
    this.language = language;
    this.#code = el("code", { class: language && `language-${language}` });
    this.element = codeFrame(el("pre", {}, this.#code), language);
  }

  /** Show `text`, which starts with what was shown before. */
  grow(text) {
    for (const piece of piecesOf(text.slice(this.#shown), PIECE)) {
      this.#last ??= this.#code.appendChild(el("span"));
      showCode(this.#last, piece, this.language);
      const isLast = this.#shown + piece.length === text.length;
      if (isLast) return;
      this.#shown += piece.length;
      this.#last = null;
    }
  }

  finish(text) {
    if (text.length <= LONGEST_WHOLE) showCode(this.#code, text, this.language);
    else this.grow(text);
  }
}

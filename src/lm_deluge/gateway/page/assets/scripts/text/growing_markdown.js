// Markdown that grows. Blocks that a later block follows are final and never touched again; only the last, open block is
// rendered again, so that the work per frame depends on the size of one block and not on that of the answer.

import { el } from "../dom.js";
import { decorate } from "./code_blocks.js";
import { blocksOf, languageOf, placeHeading, showBlocks } from "./markdown.js";
import { OpenCode } from "./open_code.js";
import { withEnds } from "./open_marks.js";

// An open block of so many characters is rendered in each frame, one of twice the size in every second, and so on. On a
// slow machine 2,000 characters of a list take 3 ms. Of code only the last lines are rendered: the rest is reading it.
const CHARACTERS_PER_FRAME = { text: 2000, code: 32_000 };
// Another open block than code that is longer is shown as plain text until it ends: rendering it takes several frames.
const LONGEST_OPEN = 32_000;
// Blocks per group; the layout of a full group that is out of sight is skipped.
const GROUP_SIZE = 48;

/** Shows Markdown in `element`. */
export class GrowingMarkdown {
  element = el("div", { class: "markdown" });
  #text = "";
  #seen = 0;
  #tail = "";
  #links = {};
  #headings = [];
  #frames = 0;
  #group = null;
  #open = null;
  #isFinished = false;

  /** Show `text`, which starts with what was shown before. Returns whether all of it is shown now. */
  update(text, { isFinal = false } = {}) {
    if (this.#isFinished) return true;
    this.#text = text;
    this.#read(isFinal);
    if (isFinal) return this.#finish();
    this.#frames += 1;
    const kind = this.#open?.code ? "code" : "text";
    const isOpenLong = kind === "text" && this.#tail.length > LONGEST_OPEN;
    if (!isOpenLong && this.#frames * CHARACTERS_PER_FRAME[kind] < this.#tail.length) return false;
    this.#frames = 0;
    if (isOpenLong && this.#open) this.#growPlain();
    else this.#render();
    return true;
  }

  // Take what is new. A carriage return at the end waits for the line feed that may follow.
  #read(isFinal) {
    const end = this.#text.endsWith("\r") && !isFinal ? this.#text.length - 1 : this.#text.length;
    this.#tail += this.#text.slice(this.#seen, end).replace(/\r\n?/g, "\n");
    this.#seen = end;
  }

  #render() {
    const tokens = blocksOf(this.#tail, this.#links);
    const last = tokens.findLastIndex((token) => token.type !== "space");
    this.#close(tokens.slice(0, Math.max(last, 0)));
    if (last >= 0) this.#showOpen(tokens[last]);
  }

  // The first of the blocks is the one that was open. The others are rendered together, because each rendering has costs
  // of its own.
  #close(tokens) {
    let shown = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    this.#tail = this.#tail.slice(tokens.reduce((length, token) => length + token.raw.length, 0));
    for (const token of tokens) if (token.type === "def") this.#links[token.tag] ??= { href: token.href, title: token.title };
    for (const token of shown) this.#headings = placeHeading(token, this.#headings);
    const open = this.#open;
    if (open && shown.length) {
      const [first, ...others] = shown;
      if (open.code && first.type === "code") open.code.finish(first.text);
      else this.#showWhole(open.element, [first]);
      this.#open = null;
      shown = others;
    }
    if (shown.length) this.#showWhole(this.#append(), shown);
  }

  #append() {
    if (!this.#group || this.#group.childElementCount >= GROUP_SIZE) {
      this.#group?.classList.add("is-full");
      this.#group = el("div", { class: "group" });
      this.element.append(this.#group);
    }
    const block = el("div", { class: "block" });
    this.#group.append(block);
    return block;
  }

  #showWhole(element, tokens) {
    element.classList.remove("is-plain");
    showBlocks(element, tokens);
    decorate(element);
  }

  #showOpen(token) {
    if (token.type === "def") {
      this.#open?.element.replaceChildren(); // it looked like a paragraph so far
      return;
    }
    this.#open ??= { element: this.#append(), code: null, plain: null };
    if (token.type === "code" && token.codeBlockStyle !== "indented") this.#showOpenCode(token);
    else {
      this.#open.code = null;
      const [shown = token] = blocksOf(withEnds(token), this.#links);
      placeHeading(shown, this.#headings);
      this.#showWhole(this.#open.element, [shown]);
    }
  }

  #showOpenCode(token) {
    const open = this.#open;
    const language = languageOf(token);
    if (open.code?.language !== language) {
      open.code = new OpenCode(language);
      open.element.replaceChildren(open.code.element);
    }
    open.code.grow(token.text);
  }

  #growPlain() {
    const open = this.#open;
    if (!open.plain) {
      open.plain = { node: document.createTextNode(this.#tail), length: this.#tail.length };
      open.element.classList.add("is-plain");
      open.element.replaceChildren(open.plain.node);
      return;
    }
    open.plain.node.appendData(this.#tail.slice(open.plain.length));
    open.plain.length = this.#tail.length;
    // Without a look at the blocks the end of this one is unseen; a blank line may be it.
    const line = this.#tail.lastIndexOf("\n");
    if (line > 0 && this.#tail[line - 1] === "\n") this.#closePlain();
  }

  #closePlain() {
    const tokens = blocksOf(this.#tail, this.#links).filter((token) => token.type !== "space");
    if (tokens.length < 2) return;
    this.#open.plain = null;
    this.#render();
  }

  #finish() {
    this.#isFinished = true;
    const tokens = blocksOf(this.#tail, this.#links);
    const hasLinks = Object.keys(this.#links).length > 0 || tokens.some((token) => token.type === "def");
    if (hasLinks) this.#renderAgain();
    else this.#close(tokens);
    return true;
  }

  // The definition of a link changes the blocks before it that use it.
  #renderAgain() {
    this.element.replaceChildren();
    this.#group = this.#open = null;
    this.#headings = [];
    this.#links = {};
    this.#tail = this.#text.replace(/\r\n?/g, "\n");
    this.#close(blocksOf(this.#tail));
  }
}

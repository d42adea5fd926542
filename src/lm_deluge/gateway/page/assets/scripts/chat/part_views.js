// Views of the parts of a message. Each has an `element` and `update(part)`, which returns whether all of it is shown.

import { filePath } from "../api.js";
import { el, icon } from "../dom.js";
import { GrowingMarkdown } from "../text/growing_markdown.js";

const WEB = /^https?:\/\//i;
const FILES = filePath("");
// Images that a model made arrive as data before the server has stored them.
const IMAGE_DATA = /^data:image\/(?:png|jpeg|webp|gif);base64,/i;

class TextView {
  #markdown = new GrowingMarkdown();
  element = this.#markdown.element;

  update(part) {
    return this.#markdown.update(part.text, { isFinal: !part.isOpen });
  }
}

class ReasoningView {
  #markdown = new GrowingMarkdown();
  #label = el("span", { text: "Thinking…" });
  #part = null;

  constructor() {
    const summary = el("summary", {}, icon("chevronRight"), this.#label);
    this.element = el("details", { class: "reasoning", on: { toggle: () => this.#show() } }, summary, this.#markdown.element);
  }

  update(part) {
    this.#part = part;
    this.#label.textContent = part.isOpen ? "Thinking…" : "Reasoning";
    this.element.classList.toggle("is-open", Boolean(part.isOpen));
    return this.#show();
  }

  // Folded reasoning is not rendered.
  #show() {
    return !this.element.open || this.#markdown.update(this.#part.text, { isFinal: !this.#part.isOpen });
  }
}

class ToolView {
  #name = el("code", {});
  #state = el("span", { class: "tool-state" });
  #arguments = el("pre", { tabindex: 0, role: "group", "aria-label": "Arguments" });
  #resultTitle = el("p", { class: "label", text: "Result", hidden: true });
  #result = el("pre", { tabindex: 0, role: "group", "aria-label": "Result", hidden: true });

  constructor(part, isLive) {
    const summary = el("summary", {}, icon("chevronRight"), icon("tool"), this.#name, this.#state);
    const body = el("div", { class: "tool-body" }, el("p", { class: "label", text: "Arguments" }), this.#arguments);
    body.append(this.#resultTitle, this.#result);
    this.element = el("details", { class: "tool", open: isLive }, summary, body);
  }

  update(part) {
    const { result, error } = part;
    const hasResult = result !== null && result !== undefined;
    setText(this.#name, part.name || "tool");
    setText(this.#arguments, shownJson(part.arguments));
    setText(this.#state, toolState(part, hasResult));
    setText(this.#resultTitle, error ? "Error" : "Result");
    setText(this.#result, error ? asText(error) : hasResult ? shownJson(result) : "");
    this.#result.hidden = this.#resultTitle.hidden = !error && !hasResult;
    this.element.classList.toggle("is-failed", Boolean(error));
    return true;
  }
}

function toolState(part, hasResult) {
  if (part.error) return "failed";
  if (hasResult) return "done";
  return part.isOpen ? "writing arguments…" : "called";
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

/** Indent complete JSON; what is still arriving stays as it is. */
function shownJson(value) {
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

class SourceView {
  element = el("a", { class: "source", rel: "noopener noreferrer", target: "_blank" });

  update({ url, title }) {
    this.element.replaceChildren(icon("link"), title || hostOf(url));
    if (WEB.test(url)) {
      this.element.href = url;
      this.element.title = url;
    }
    return true;
  }
}

function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}

class FileView {
  element = el("div", { class: "file" });

  update(part) {
    const address = addressOf(part);
    const name = part.name || (part.type === "image" ? "Image" : "File");
    const isShown = part.type === "image" && (address?.startsWith(FILES) || IMAGE_DATA.test(address));
    if (isShown) this.#showImage(address, name);
    else this.element.replaceChildren(el("a", { class: "file-link", href: address, download: name }, icon("file"), name));
    return true;
  }

  #showImage(address, name) {
    const image = el("img", { src: address, alt: name, loading: "lazy" });
    const link = el("a", { href: address, target: "_blank", rel: "noopener noreferrer", title: `Open ${name}` }, image);
    this.element.replaceChildren(link);
  }
}

// Of this server, or data: an address elsewhere would send a request there.
function addressOf({ file_id: id, url = "" }) {
  if (id) return filePath(id);
  return url.startsWith(FILES) || url.startsWith("data:") ? url : null;
}

/** The text of a user, exactly as typed. */
class PlainView {
  element = el("div", { class: "plain" });

  update(part) {
    setText(this.element, part.text);
    return true;
  }
}

const VIEWS = { text: TextView, reasoning: ReasoningView, tool: ToolView, source: SourceView, image: FileView, file: FileView };

/** Return a view of a part of a message. `isLive`: the answer is running. */
export function viewOf(part, role, isLive) {
  const View = role === "user" && part.type === "text" ? PlainView : VIEWS[part.type];
  return View ? new View(part, isLive) : null;
}

/** Shows the parts of a message; adds and removes views where parts were added or dropped. */
export class PartList {
  element = el("div", { class: "parts" });
  #role;
  #shown = [];

  constructor(role) {
    this.#role = role;
  }

  /** Returns whether everything is shown; otherwise call it again in the next frame. */
  update(parts, isLive) {
    const same = this.#shown.findIndex(({ part }, index) => part !== parts[index]);
    if (same >= 0) for (const { view } of this.#shown.splice(same)) view?.element.remove();
    let isComplete = true;
    for (const [index, part] of parts.entries()) {
      const shown = this.#shown[index] ?? this.#add(part, isLive);
      // A part that has ended is never touched again.
      if (shown.isFinal) continue;
      const isShown = shown.view?.update(part) ?? true;
      shown.isFinal = !isLive || (part.type === "text" && !part.isOpen);
      isComplete &&= isShown;
    }
    return isComplete;
  }

  #add(part, isLive) {
    const shown = { part, view: viewOf(part, this.#role, isLive), isFinal: false };
    this.#shown.push(shown);
    if (shown.view) this.element.append(shown.view.element);
    return shown;
  }
}

// Files that the next message will have: by button, paste or drop. They are uploaded at once.

import { deleteKey } from "../keys.js";
import { filePath, uploadFile } from "../api.js";
import { announce } from "../announcer.js";
import { el, icon, iconButton } from "../dom.js";
import { bytes } from "../numbers.js";

// The server takes no more (bytes).
const LARGEST = 32 * 1024 * 1024;

export class Attachments {
  element = el("ul", { class: "attachments", "aria-label": "Attached files", hidden: true });
  #items = new Set();
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  get isUploading() {
    return [...this.#items].some((item) => !item.part && !item.error);
  }

  get parts() {
    return [...this.#items].flatMap((item) => item.part ?? []);
  }

  /** Upload files and show them. */
  add(files) {
    for (const file of files) this.#upload(file);
  }

  clear() {
    for (const item of this.#items) item.abort.abort();
    this.#items.clear();
    this.element.replaceChildren();
    this.#changed();
  }

  async #upload(file) {
    const item = { abort: new AbortController(), part: null, error: null, row: el("li", { class: "attachment" }) };
    this.#items.add(item);
    this.element.append(item.row);
    this.#show(item, file);
    this.#changed();
    try {
      if (file.size > LARGEST) throw new Error(`too large: at most ${bytes(LARGEST)}`);
      item.part = partOf(await uploadFile(file, item.abort.signal));
      announce(`${file.name} is attached.`);
    } catch (error) {
      item.error = error.message;
    }
    if (!this.#items.has(item)) return;
    this.#show(item, file);
    this.#changed();
  }

  #show(item, file) {
    const isImage = item.part?.type === "image";
    const picture = isImage ? el("img", { src: filePath(item.part.file_id), alt: "" }) : icon(item.error ? "warning" : "file");
    const state = item.error ?? (item.part ? bytes(file.size) : "uploading…");
    const text = el("div", { class: "attachment-text" }, el("span", { text: file.name }), el("small", { text: state }));
    const remove = iconButton("close", `Remove ${file.name}`, () => this.#remove(item));
    remove.addEventListener("keydown", (event) => deleteKey(event) && this.#remove(item));
    item.row.classList.toggle("is-failed", Boolean(item.error));
    item.row.replaceChildren(picture, text, remove);
  }

  #remove(item) {
    item.abort.abort();
    this.#items.delete(item);
    item.row.remove();
    this.#changed();
    this.#onChange({ isRemoval: true });
  }

  #changed() {
    this.element.hidden = this.#items.size === 0;
    this.#onChange({ isRemoval: false });
  }
}

function partOf({ file_id, name, media_type }) {
  return { type: media_type.startsWith("image/") ? "image" : "file", file_id, name, media_type };
}

/** Call `onFiles` with files that are dropped on the page or pasted, and mark the page while files are dragged over it. */
export function receiveFiles(onFiles) {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (isOver) => document.documentElement.classList.toggle("is-dragged-over", isOver);
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(false);
    onFiles([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    onFiles(files);
  });
}

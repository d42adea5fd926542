// Chunks of the UI message stream -> parts of a message, as the server stores them. Pure.

/** The fold of one answer. `parts` grows in place; `ending` is the terminal chunk. */
export class AnswerParts {
  parts = [];
  progress = null;
  unsaved = false; // the end of the answer is not in the database yet
  metadata = {};
  ending = null;
  #open = new Map();
  #stepStart = 0;

  /** Add the chunks of one read. Chunks of unknown types are ignored, so that a newer server works. */
  add(chunks) {
    for (const chunk of chunks) HANDLERS[chunk.type]?.(this, chunk);
  }

  /** Return the visible text. */
  get text() {
    return this.parts
      .filter((part) => part.type === "text")
      .map((part) => part.text)
      .join("\n\n");
  }

  openPart(kind, id, part) {
    this.#open.set(`${kind} ${id}`, part);
    this.parts.push(part);
    return part;
  }

  part(kind, id, make) {
    return this.#open.get(`${kind} ${id}`) ?? this.openPart(kind, id, make());
  }

  startStep() {
    this.#stepStart = this.parts.length;
  }

  /** Drop the parts of this step: the server asks the model again. */
  resetStep() {
    const dropped = new Set(this.parts.splice(this.#stepStart));
    for (const [key, part] of this.#open) if (dropped.has(part)) this.#open.delete(key);
  }

  finish(chunk) {
    this.ending = chunk;
    Object.assign(this.metadata, chunk.messageMetadata);
    for (const part of this.parts) delete part.isOpen;
  }
}

function grow(kind) {
  return (answer, { id, delta }) => {
    answer.part(kind, id, () => ({ type: kind, text: "", isOpen: true })).text += delta;
  };
}

function start(kind) {
  return (answer, { id }) => answer.openPart(kind, id, { type: kind, text: "", isOpen: true });
}

function end(kind) {
  return (answer, { id }) => delete answer.part(kind, id, () => ({ type: kind, text: "" })).isOpen;
}

function tool(answer, { toolCallId, toolName }) {
  const make = () => ({ type: "tool", id: toolCallId, name: toolName ?? "", arguments: "", result: null, error: null, isOpen: true });
  return answer.part("tool", toolCallId, make);
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function toolInput(answer, chunk) {
  const part = tool(answer, chunk);
  part.name = chunk.toolName ?? part.name;
  if (chunk.input !== undefined) part.arguments = asText(chunk.input);
  delete part.isOpen;
  return part;
}

const HANDLERS = {
  "start-step": (answer) => answer.startStep(),
  "reset-step": (answer) => answer.resetStep(),
  "text-start": start("text"),
  "text-delta": grow("text"),
  "text-end": end("text"),
  "reasoning-start": start("reasoning"),
  "reasoning-delta": grow("reasoning"),
  "reasoning-end": end("reasoning"),
  "tool-input-start": (answer, chunk) => tool(answer, chunk),
  "tool-input-delta": (answer, chunk) => {
    tool(answer, chunk).arguments += chunk.inputTextDelta;
  },
  "tool-input-available": toolInput,
  "tool-input-error": (answer, chunk) => {
    toolInput(answer, chunk).error = chunk.errorText;
  },
  "tool-output-available": (answer, chunk) => {
    tool(answer, chunk).result = asText(chunk.output);
  },
  "tool-output-error": (answer, chunk) => {
    tool(answer, chunk).error = chunk.errorText;
  },
  "source-url": (answer, { url, title }) => answer.parts.push({ type: "source", url, title: title ?? null }),
  file: (answer, { url, mediaType }) => {
    const type = mediaType.startsWith("image/") ? "image" : "file";
    answer.parts.push({ type, url, media_type: mediaType, name: null, file_id: null });
  },
  "data-unsaved": (answer) => {
    answer.unsaved = true;
  },
  "data-progress": (answer, { data }) => {
    answer.progress = data;
  },
  "message-metadata": (answer, chunk) => Object.assign(answer.metadata, chunk.messageMetadata),
  finish: (answer, chunk) => answer.finish(chunk),
  error: (answer, chunk) => answer.finish(chunk),
  abort: (answer, chunk) => answer.finish(chunk),
};

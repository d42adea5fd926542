// Server-sent events: texts in, events out. Pure.

/** Cuts a stream of texts into events {id, data}. An event is complete after its empty line. */
export class EventReader {
  #rest = "";
  #lines = [];
  #id = null;

  /** Return the events that `text` completes. */
  feed(text) {
    const events = [];
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line, events);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#lines.length) events.push({ id: this.#id, data: this.#lines.join("\n") });
      this.#lines = [];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#lines.push(value);
    if (name === "id") this.#id = value;
  }
}

// The live regions: a screen reader hears whole sentences of a growing answer, at most every few seconds.

// Long enough for a sentence to be read before the next one replaces it.
const INTERVAL_MS = 4000;
// A screen reader cannot keep up with a fast answer: of what arrived since, only this much is announced.
const MOST_CHARACTERS = 300;

const polite = document.getElementById("announcements");
const assertive = document.getElementById("alerts");

/** Announce a status, for example "Copied". */
export function announce(text) {
  polite.textContent = text;
}

/** Announce a failure, interrupting what is being read. */
export function announceFailure(text) {
  assertive.textContent = text;
}

/** Announces the text of one answer while it grows. */
export class AnswerAnnouncer {
  #announced = 0;
  #last = -Infinity;

  constructor(model) {
    announce(`${model} is answering.`);
    this.#last = performance.now();
  }

  /** `readText` returns the text so far; it is called only when there may be something to announce. */
  grow(readText) {
    if (performance.now() - this.#last < INTERVAL_MS) return;
    const text = readText();
    const end = lastSentenceEnd(text);
    if (end <= this.#announced) return;
    const news = text.slice(this.#announced, end).trim();
    announce(news.length > MOST_CHARACTERS ? `… ${news.slice(-MOST_CHARACTERS)}` : news);
    this.#announced = end;
    this.#last = performance.now();
  }

  end(status) {
    announce(status);
  }
}

function lastSentenceEnd(text) {
  const tail = text.slice(-MOST_CHARACTERS * 2);
  const match = /^[\s\S]*[.!?:](?=\s)|^[\s\S]*\n/.exec(tail);
  return match ? text.length - tail.length + match[0].length : 0;
}

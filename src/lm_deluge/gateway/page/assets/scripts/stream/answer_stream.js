// The events of one answer, over as many connections as it takes. Only a terminal chunk ends an answer: a connection that
// closes without one is opened again after the last event that arrived.

import { openEvents } from "../api.js";
import { EventReader } from "./sse.js";

// Waits between attempts that bring nothing new, about ten seconds in all: a restart of the server takes less.
const WAITS_MS = [250, 750, 1500, 3000, 5000];
const TERMINAL = new Set(["finish", "error", "abort"]);
// Statuses that a later attempt cannot change.
const FINAL_STATUSES = new Set([400, 401, 403, 404, 410]);

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Follow an answer until its end. `onChunks` gets the chunks of each read. Returns how it ended: "terminal", "gone" (the
 * server has no such running answer), "broken" (no connection brought the end), or "aborted" by `signal`.
 */
export async function followAnswer(id, { signal, onChunks, onReconnect }) {
  let after = null;
  for (let failures = 0; failures <= WAITS_MS.length; failures += 1) {
    if (failures) await pause(WAITS_MS[failures - 1]);
    if (signal.aborted) return "aborted";
    const before = after;
    const outcome = await readOnce(id, after, signal, (chunks, last) => {
      after = last ?? after;
      onChunks(chunks);
    });
    if (outcome !== "cut") return outcome;
    if (after !== before) failures = 0;
    onReconnect();
  }
  return "broken";
}

async function readOnce(id, after, signal, onRead) {
  try {
    const response = await openEvents(id, after, signal);
    if (response.status === 204) return "gone";
    return await readBody(response.body, onRead);
  } catch (error) {
    if (signal.aborted) return "aborted";
    return FINAL_STATUSES.has(error.status) ? "gone" : "cut";
  }
}

async function readBody(body, onRead) {
  const events = new EventReader();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return "cut";
    const { chunks, last, isTerminal } = chunksOf(events.feed(value));
    if (chunks.length) onRead(chunks, last);
    if (isTerminal) {
      reader.cancel().catch(() => {});
      return "terminal";
    }
  }
}

function chunksOf(events) {
  const chunks = [];
  let last = null;
  for (const { id, data } of events) {
    last = id ?? last;
    if (data === "[DONE]") continue;
    const chunk = JSON.parse(data);
    chunks.push(chunk);
    if (TERMINAL.has(chunk.type)) return { chunks, last, isTerminal: true };
  }
  return { chunks, last, isTerminal: false };
}

// Requests to the page's own origin. The session cookie is HttpOnly: no script ever holds a key.

import { sentence } from "./numbers.js";

const ROOT = "/page/api";

/** A request that failed: `message` states what happened, `status` is 0 if no answer came. */
export class ApiError extends Error {
  constructor(status, type, message) {
    super(sentence(message));
    this.status = status;
    this.type = type;
  }
}

let onSignedOut = () => {};

/** Call `listener` whenever the server wants a key. */
export function whenSignedOut(listener) {
  onSignedOut = listener;
}

async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // Not JSON: a proxy answered, or the connection broke. The status remains.
  }
  return new ApiError(response.status, error.type ?? "http_error", error.message ?? `The server answered with status ${response.status}.`);
}

/** Fetch a path of the API. Throws ApiError unless the status is 2xx. */
export async function fetchPath(path, options = {}) {
  let response;
  try {
    response = await fetch(ROOT + path, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "connection", "The server cannot be reached. Check that it is running, and try again.");
  }
  if (response.ok) return response;
  const error = await failure(response);
  if (response.status === 401) onSignedOut(error);
  throw error;
}

async function json(method, path, body, options = {}) {
  const content = { method, body: JSON.stringify(body ?? {}), headers: { "content-type": "application/json" } };
  const response = await fetchPath(path, method === "GET" ? options : { ...content, ...options });
  return response.status === 204 ? null : response.json();
}

export const getSession = () => json("GET", "/session");
export const signIn = (key) => json("POST", "/session", { key });
export const signOut = () => json("DELETE", "/session");
export const getModels = () => json("GET", "/models");

export function listConversations({ query = "", before = "", limit = 40 } = {}, signal) {
  const parameters = new URLSearchParams({ limit });
  if (query) parameters.set("query", query);
  if (before) parameters.set("before", before);
  return json("GET", `/conversations?${parameters}`, null, { signal });
}

export const createConversation = (fields) => json("POST", "/conversations", fields);
export const getConversation = (id, signal) => json("GET", `/conversations/${encodeURIComponent(id)}`, null, { signal });
export const changeConversation = (id, fields) => json("PATCH", `/conversations/${encodeURIComponent(id)}`, fields);
export const deleteConversation = (id) => json("DELETE", `/conversations/${encodeURIComponent(id)}`);
export const exportPath = (id, format) => `${ROOT}/conversations/${encodeURIComponent(id)}/export?format=${format}`;
export const askForAnswers = (id, request) => json("POST", `/conversations/${encodeURIComponent(id)}/answers`, request);
export const stopAnswer = (id) => json("POST", `/answers/${encodeURIComponent(id)}/stop`);
export const filePath = (id) => `${ROOT}/files/${encodeURIComponent(id)}`;

/** Upload a file. Its name is percent-encoded, because headers are Latin-1. */
export async function uploadFile(file, signal) {
  const headers = { "content-type": file.type || "application/octet-stream", "x-file-name": encodeURIComponent(file.name) };
  const response = await fetchPath("/files", { method: "POST", body: file, headers, signal });
  return response.json();
}

/** Open the events of an answer after frame `after`; the caller reads the body. */
export function openEvents(id, after, signal) {
  const headers = { accept: "text/event-stream" };
  if (after) headers["last-event-id"] = String(after);
  const query = after ? `?after=${encodeURIComponent(after)}` : "";
  return fetchPath(`/answers/${encodeURIComponent(id)}/events${query}`, { headers, signal });
}

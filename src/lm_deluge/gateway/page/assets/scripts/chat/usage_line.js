// Tokens, speed, time to first token and cost of an answer.

import { el } from "../dom.js";
import { count, dollars, seconds } from "../numbers.js";

const known = (value) => value !== null && value !== undefined;

/** Return the pairs [text, explanation] of an answer, while it runs and after its end. */
export function usageOf(message) {
  const usage = message.usage ?? {};
  const progress = message.progress ?? {};
  const output = usage.output_tokens ?? progress.output_tokens;
  const first = message.first_token_s ?? progress.first_token_s;
  const cost = message.cost ?? progress.cost;
  const speed = speedOf(message, output, first) ?? progress.tokens_per_s;
  return [
    known(usage.input_tokens) && [`${count(usage.input_tokens)} in`, inputText(usage)],
    known(output) && [`${count(output)} out`, outputText(usage)],
    known(speed) && [`${count(Math.round(speed))} tok/s`, "Tokens per second after the first one"],
    known(first) && [`first ${seconds(first)}`, "Time to the first token"],
    known(cost) && [dollars(cost), "Cost in US dollars"],
  ].filter(Boolean);
}

function speedOf(message, output, first) {
  const duration = message.duration_s;
  return known(duration) && known(first) && output > 1 && duration > first ? (output - 1) / (duration - first) : null;
}

function inputText({ cached }) {
  return cached ? `Input tokens, ${count(cached)} of them from the provider's cache` : "Input tokens";
}

function outputText({ reasoning_tokens: reasoning }) {
  return reasoning ? `Output tokens, ${count(reasoning)} of them reasoning` : "Output tokens";
}

/** Show the pairs in a description; elements are reused, because a running answer changes them often. */
export function showUsage(element, message) {
  const pairs = usageOf(message);
  while (element.childElementCount > pairs.length) element.lastElementChild.remove();
  for (const [index, [text, title]] of pairs.entries()) {
    const item = element.children[index] ?? element.appendChild(el("span", {}));
    if (item.textContent !== text) item.textContent = text;
    item.title = title;
  }
}

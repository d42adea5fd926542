// One run of one client against the gateway: node clients.mjs <client> <scenario> <origin> <model>
// Prints one line of JSON: {"text": ...} for a whole answer, {"error": ..., "status": ..., "text": ...} for an error, {"left": true} after a cancel.
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;

const QUESTION = "What is the weather in Rome?";
const SUNNY = "21 degrees";
const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const DESCRIPTION = "The weather of a city.";

const openai = (origin) => new OpenAI({ apiKey: "any", baseURL: `${origin}/v1`, maxRetries: 0 });
const anthropic = (origin) => new Anthropic({ apiKey: "any", baseURL: origin, maxRetries: 0 });

// Each client: `plain` returns a text, `stream` yields pieces of it and aborts with the signal, `tools` runs a task.
const chat = {
  async plain(origin, model) {
    const answer = await openai(origin).chat.completions.create({ model, messages: [{ role: "user", content: QUESTION }] });
    return answer.choices[0].message.content;
  },
  async *stream(origin, model, signal) {
    const stream = await openai(origin).chat.completions.create(
      { model, messages: [{ role: "user", content: QUESTION }], stream: true }, { signal });
    for await (const chunk of stream) yield chunk.choices[0]?.delta.content ?? "";
  },
  async tools(origin, model) {
    const runner = openai(origin).chat.completions.runTools({
      model,
      stream: true,
      messages: [{ role: "user", content: QUESTION }],
      tools: [{
        type: "function",
        function: { name: "weather", description: DESCRIPTION, parameters: SCHEMA, parse: JSON.parse, function: look },
      }],
    });
    return runner.finalContent();
  },
};

const responses = {
  async plain(origin, model) {
    return (await openai(origin).responses.create({ model, input: QUESTION })).output_text;
  },
  async *stream(origin, model, signal) {
    const stream = await openai(origin).responses.create({ model, input: QUESTION, stream: true }, { signal });
    for await (const event of stream) {
      // This client raises nothing for a failed response.
      if (event.type === "response.failed") throw new OpenAI.APIError(undefined, undefined, event.response.error.message);
      if (event.type === "response.output_text.delta") yield event.delta;
    }
  },
  async tools(origin, model) {
    const input = [{ role: "user", content: QUESTION }];
    const tools = [{ type: "function", name: "weather", description: DESCRIPTION, parameters: SCHEMA, strict: false }];
    const first = await openai(origin).responses.stream({ model, input, tools }).finalResponse();
    input.push(...first.output);
    for (const call of first.output.filter((item) => item.type === "function_call")) {
      input.push({ type: "function_call_output", call_id: call.call_id, output: look(JSON.parse(call.arguments)) });
    }
    return (await openai(origin).responses.stream({ model, input, tools }).finalResponse()).output_text;
  },
};

const messages = {
  async plain(origin, model) {
    const answer = await anthropic(origin).messages.create(
      { model, max_tokens: 500, messages: [{ role: "user", content: QUESTION }] });
    return answer.content[0].text;
  },
  async *stream(origin, model, signal) {
    const stream = await anthropic(origin).messages.create(
      { model, max_tokens: 500, messages: [{ role: "user", content: QUESTION }], stream: true }, { signal });
    for await (const event of stream) yield event.type === "content_block_delta" ? event.delta.text ?? "" : "";
  },
  async tools(origin, model) {
    const turns = [{ role: "user", content: QUESTION }];
    const tools = [{ name: "weather", description: DESCRIPTION, input_schema: SCHEMA }];
    const ask = () => anthropic(origin).messages.stream({ model, max_tokens: 500, messages: turns, tools }).finalMessage();
    const first = await ask();
    const results = first.content.filter((block) => block.type === "tool_use").map(
      (call) => ({ type: "tool_result", tool_use_id: call.id, content: look(call.input) }));
    turns.push({ role: "assistant", content: first.content }, { role: "user", content: results });
    return (await ask()).content[0].text;
  },
};

// Vercel's clients.
const vercel = (provide) => ({
  async plain(origin, model) {
    return (await generateText({ model: provide(origin)(model), prompt: QUESTION, maxRetries: 0 })).text;
  },
  async *stream(origin, model, signal) {
    const result = streamText(
      { model: provide(origin)(model), prompt: QUESTION, maxRetries: 0, abortSignal: signal, onError() {} });
    for await (const part of result.fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "finish" && part.finishReason === "error") throw new Error("the answer ended with an error");
      if (part.type === "text-delta") yield part.text;
    }
  },
  async tools(origin, model) {
    const weather = tool({
      description: DESCRIPTION, inputSchema: z.object({ city: z.string() }), execute: async (given) => look(given) });
    const result = streamText({
      model: provide(origin)(model), prompt: QUESTION, tools: { weather }, maxRetries: 0, stopWhen: isStepCount(3) });
    return result.text;
  },
});

const CLIENTS = {
  chat, responses, messages,
  "vercel-openai": vercel((origin) => createOpenAI({ baseURL: `${origin}/v1`, apiKey: "any" })),
  "vercel-chat": vercel((origin) => createOpenAICompatible({ name: "deluge", baseURL: `${origin}/v1`, apiKey: "any" })),
  "vercel-anthropic": vercel((origin) => createAnthropic({ baseURL: `${origin}/v1`, apiKey: "any" })),
};

function look({ city }) {
  if (city !== "Rome") throw new Error(`asked for ${city}`);
  return SUNNY;
}

async function run(client, scenario, origin, model) {
  if (scenario === "plain" || scenario === "tools") return { text: await client[scenario](origin, model) };
  const control = new AbortController();
  let text = "";
  try {
    for await (const piece of client.stream(origin, model, control.signal)) {
      text += piece;
      if (scenario === "cancel" && text) {
        control.abort();
        break;
      }
    }
  } catch (error) {
    return { text, error: error.constructor.name, message: String(error.message), status: error.status ?? error.statusCode ?? null };
  }
  return scenario === "cancel" ? { left: true } : { text };
}

// The jobs are one JSON array, [[client, scenario, origin, model], ...], because Node takes a second to start.
for (const [name, scenario, origin, model] of JSON.parse(process.argv[2])) {
  const found = await run(CLIENTS[name], scenario, origin, model).catch((error) => (
    { text: "", error: error.constructor.name, message: String(error.message), status: error.status ?? error.statusCode ?? null }));
  console.log(JSON.stringify({ client: name, scenario, model, ...found }));
}

// The system prompt and the sampling parameters of a conversation.

import { openDialog } from "./dialogs.js";
import { el } from "./dom.js";

// Names as in SamplingParams. An empty field leaves the parameter to the provider.
const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.1, help: "0 is the most predictable." },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.05, help: "Share of the likeliest tokens to choose from." },
  { name: "max_new_tokens", label: "Longest answer", min: 1, step: 1, help: "Tokens, reasoning included." },
  { name: "seed", label: "Seed", step: 1, help: "The same seed repeats an answer where the provider can." },
];

/**
 * Open the settings. `value` is {system, settings}, `efforts` are those of the selected models. `onChange` gets the new
 * value after each change.
 */
export function openSettings(value, efforts, onChange) {
  const system = el("textarea", { id: "system-prompt", rows: 5, autofocus: true, placeholder: "You are a helpful assistant." });
  system.value = value.system;
  const fields = NUMBERS.map((field) => numberField(field, value.settings[field.name]));
  const effort = effortField(efforts, value.settings.reasoning_effort);
  const stop = textField("stop", "Stop at", (value.settings.stop ?? []).join("\n"), "One text a line. The answer ends before it.");
  const form = el("form", { class: "settings" });
  form.append(labelled(system, "System prompt", "Sent before every message."), el("div", { class: "grid" }, fields, effort), stop);
  form.append(toolsField(value.settings.tools ?? true));
  const reset = el("button", { type: "button", class: "button", text: "Use the defaults" });
  form.append(el("div", { class: "row" }, reset));
  const read = () => onChange({ system: system.value, settings: readSettings(form) });
  form.addEventListener("change", () => form.reportValidity() && read());
  form.addEventListener("submit", (event) => event.preventDefault());
  reset.addEventListener("click", () => {
    for (const field of form.querySelectorAll("input, select, textarea[name]")) field.value = "";
    form.elements.tools.checked = true;
    read();
  });
  openDialog("Settings of this conversation", { class: "sheet" }, form);
}

function labelled(field, label, help) {
  const helpId = `${field.id}-help`;
  field.setAttribute("aria-describedby", helpId);
  return el("div", { class: "field" }, el("label", { for: field.id, text: label }), field, el("small", { id: helpId, text: help }));
}

function numberField({ name, label, help, ...limits }, value) {
  const field = el("input", { type: "number", id: `setting-${name}`, name, placeholder: "default", inputmode: "decimal", ...limits });
  field.value = value ?? "";
  return labelled(field, label, help);
}

function textField(name, label, value, help) {
  const field = el("textarea", { id: `setting-${name}`, name, rows: 2 });
  field.value = value;
  return labelled(field, label, help);
}

function effortField(efforts, value) {
  const field = el("select", { id: "setting-reasoning_effort", name: "reasoning_effort" }, el("option", { value: "", text: "default" }));
  const known = value && !efforts.includes(value) ? [...efforts, value] : efforts;
  field.append(...known.map((effort) => el("option", { value: effort, text: effort })));
  field.value = value ?? "";
  field.disabled = known.length === 0;
  const help = field.disabled ? "The selected model has no choice of effort." : "How long the model may think.";
  return labelled(field, "Reasoning effort", help);
}

function toolsField(isOn) {
  const field = el("input", { type: "checkbox", id: "setting-tools", name: "tools", checked: isOn });
  return el("label", { class: "check" }, field, "The model may use the tools of this server");
}

function readSettings(form) {
  const settings = {};
  for (const { name } of NUMBERS) {
    const text = form.elements[name].value;
    if (text !== "") settings[name] = Number(text);
  }
  const effort = form.elements.reasoning_effort.value;
  if (effort) settings.reasoning_effort = effort;
  const stop = form.elements.stop.value.split("\n").filter(Boolean);
  if (stop.length) settings.stop = stop;
  if (!form.elements.tools.checked) settings.tools = false;
  return settings;
}

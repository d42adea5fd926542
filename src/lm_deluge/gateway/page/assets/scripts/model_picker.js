// The dialog that lists models: a combobox, so that typing filters and the arrow keys move without leaving the field.

import { announce } from "./announcer.js";
import { openDialog } from "./dialogs.js";
import { el } from "./dom.js";
import { movedIndex } from "./keys.js";
import { price, shortCount } from "./numbers.js";

/** Let the user choose one of the models; resolves to its id, or null. */
export function pickModel(title, models, current) {
  return new Promise((resolve) => {
    const picker = new ModelPicker(title, models, current);
    picker.dialog.addEventListener("close", () => resolve(picker.chosen));
  });
}

class ModelPicker {
  chosen = null;
  #models;
  #current;
  #options;
  #shown;
  #active = null;
  #list = el("ul", { id: "model-options", role: "listbox", "aria-label": "Models" });
  #none = el("p", { class: "empty-list", text: "No model has these words.", hidden: true });
  #field;

  constructor(title, models, current) {
    this.#models = models;
    this.#current = current;
    this.#field = searchField();
    this.#options = models.map((model, index) => this.#option(model, index));
    this.#list.append(...this.#options);
    const legend = el("p", { class: "hint", text: "Prices in US dollars per million tokens, input / output." });
    this.dialog = openDialog(title, { class: "picker" }, this.#field, this.#list, this.#none, legend);
    this.#field.addEventListener("input", () => this.#filter());
    this.#field.addEventListener("keydown", (event) => this.#pressed(event));
    this.#list.addEventListener("click", (event) => this.#choose(event.target.closest("[role=option]")));
    this.#filter();
    this.#field.focus();
  }

  #option(model, index) {
    const selected = String(model.id === this.#current);
    const option = el("li", { role: "option", id: `model-option-${index}`, "aria-selected": selected });
    const name = el("span", { class: "model-name" }, el("strong", { text: model.id }), el("small", { text: model.provider }));
    option.append(name, el("span", { class: "model-facts" }, facts(model)), el("span", { class: "model-price", text: prices(model) }));
    option.words = `${model.id} ${model.provider} ${capabilities(model).join(" ")}`.toLowerCase();
    return option;
  }

  #filter() {
    const words = this.#field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const option of this.#options) option.hidden = !words.every((word) => option.words.includes(word));
    this.#shown = byRank(this.#options.filter((option) => !option.hidden), words[0] ?? "");
    this.#list.append(...this.#shown);
    this.#none.hidden = this.#shown.length > 0;
    const current = words.length ? null : this.#shown.find((option) => option.getAttribute("aria-selected") === "true");
    this.#activate(current ?? this.#shown[0] ?? null);
    if (words.length) announce(`${this.#shown.length} models`);
  }

  #activate(option) {
    this.#active?.classList.remove("is-active");
    this.#active = option;
    option?.classList.add("is-active");
    this.#field.setAttribute("aria-activedescendant", option?.id ?? "");
    option?.scrollIntoView({ block: "nearest" });
  }

  #pressed(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.#choose(this.#active);
      return;
    }
    const index = movedIndex(event, this.#shown.indexOf(this.#active), this.#shown.length);
    if (index === null || !this.#shown.length) return;
    event.preventDefault();
    this.#activate(this.#shown[index]);
  }

  #choose(option) {
    if (!option) return;
    this.chosen = this.#models[this.#options.indexOf(option)].id;
    this.dialog.close();
  }
}

/** Sort names that start with a word before names that have it after the provider, and those before the others. */
function byRank(options, word) {
  const rank = ({ words }) => (words.startsWith(word) ? 0 : words.includes(`/${word}`) || words.includes(`:${word}`) ? 1 : 2);
  return options.toSorted((one, other) => rank(one) - rank(other));
}

function searchField() {
  return el("input", {
    type: "search",
    role: "combobox",
    class: "picker-search",
    placeholder: "Name, provider, capability",
    autocomplete: "off",
    spellcheck: "false",
    "aria-label": "Search models",
    "aria-expanded": "true",
    "aria-controls": "model-options",
    "aria-autocomplete": "list",
  });
}

const capabilities = (model) => ["images", "files", "tools", "reasoning"].filter((name) => model[name]);

function facts(model) {
  const context = model.context_window ? [`${shortCount(model.context_window)} context`] : [];
  const simulated = model.simulated ? [el("span", { class: "badge simulated", text: "simulated" })] : [];
  return [...simulated, ...[...context, ...capabilities(model)].map((text) => el("span", { class: "badge", text }))];
}

function prices({ input_price: input, output_price: output, simulated }) {
  if (simulated) return "free";
  if (input === null && output === null) return "price unknown";
  return `${price(input)} / ${price(output)}`;
}

// The models that may be asked, and which one or two are selected.

import { getModels } from "./api.js";
import { el, icon } from "./dom.js";
import { pickModel } from "./model_picker.js";
import { preference, setPreference } from "./memory.js";

export class Models {
  #rows = [];
  #byId = new Map();
  #default = null;
  #selected = [];
  #place = document.getElementById("models");
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  async load() {
    const { default: first, models } = await getModels();
    this.#rows = models;
    this.#byId = new Map(models.map((model) => [model.id, model]));
    this.#default = first;
  }

  get selected() {
    return this.#selected;
  }

  /** The rows of the selected models, as far as they are known. */
  get selectedRows() {
    return this.#selected.flatMap((id) => this.#byId.get(id) ?? []);
  }

  isSimulated = (id) => this.#byId.get(id)?.simulated ?? false;

  /** Select models; without any, the one used last or the default of the server. */
  select(ids) {
    const usual = this.#usual();
    this.#selected = ids?.length ? ids.slice(0, 2) : usual ? [usual] : [];
    this.#show();
  }

  // The model used last, as long as the server has the same default: another one was chosen for this server on purpose.
  #usual() {
    const [last, standard] = JSON.parse(preference("model") ?? "[]");
    return this.#byId.has(last) && standard === this.#default ? last : this.#default;
  }

  /** Open the picker for the first or the second model. */
  async pick(position = 0) {
    const current = this.#selected[position];
    const title = position ? "Choose a second model" : "Choose a model";
    const other = this.#selected[1 - position];
    const rows = this.#rows.filter((model) => model.id !== other); // two different ones
    const id = await pickModel(title, rows, current);
    if (id === null) return;
    const selected = [...this.#selected];
    selected[position] = id;
    if (position === 0) setPreference("model", JSON.stringify([id, this.#default]));
    this.#change(selected, position);
  }

  #change(selected, position) {
    this.#selected = selected;
    this.#show();
    this.#place.querySelectorAll(".model-button")[position]?.focus();
    this.#onChange(selected);
  }

  #show() {
    const buttons = this.#selected.map((id, position) => this.#button(id, position));
    const isPair = this.#selected.length > 1;
    const change = () => (isPair ? this.#change(this.#selected.slice(0, 1), 0) : this.pick(1));
    const label = isPair ? "Remove the second model" : "Compare with a second model";
    const compare = el("button", { type: "button", class: "compare", "aria-label": label, title: label, on: { click: change } });
    compare.append(icon(isPair ? "close" : "columns"));
    if (!isPair) compare.append(el("span", { text: "Compare" }));
    this.#place.replaceChildren(...buttons, ...(buttons.length ? [compare] : []));
  }

  #button(id, position) {
    const label = `${position ? "Second model" : "Model"}: ${id}. Change`;
    const properties = { type: "button", class: "model-button", "aria-haspopup": "dialog", "aria-label": label, title: id };
    const button = el("button", { ...properties, on: { click: () => this.pick(position) } });
    button.append(el("span", { text: id }), icon("chevronDown"));
    return button;
  }
}

// Numbers, dates and messages as texts.

const COUNT = new Intl.NumberFormat("en-US");
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const count = (number) => COUNT.format(number);

/** 128000 -> "128K". */
export const shortCount = (number) => SHORT.format(number);

/** US dollars; small amounts keep two significant digits. */
export function dollars(amount) {
  if (amount === 0) return "$0";
  if (amount >= 0.01) return `$${amount.toFixed(amount < 1 ? 3 : 2)}`;
  return `$${Number(amount.toPrecision(2)).toFixed(Math.min(8, 1 - Math.floor(Math.log10(amount))))}`;
}

/** A price per million tokens. */
export const price = (amount) => (amount === null || amount === undefined ? "?" : `$${Number(amount.toFixed(3))}`);

export function seconds(duration) {
  if (duration < 1) return `${Math.round(duration * 1000)} ms`;
  if (duration < 10) return `${duration.toFixed(2)} s`;
  if (duration < 60) return `${duration.toFixed(1)} s`;
  return `${Math.floor(duration / 60)} min ${Math.round(duration % 60)} s`;
}

export function bytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${(size / 1e3).toFixed(0)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

/** Return milliseconds of a date that is in seconds, in milliseconds, or ISO 8601. */
export function timeOf(date) {
  if (typeof date !== "number") return Date.parse(date);
  return date < 1e11 ? date * 1000 : date;
}

/** The heading of a conversation in the list: when it was last changed. */
export function dayGroup(date, now = Date.now()) {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const time = timeOf(date);
  const day = 86_400_000;
  if (time >= midnight) return "Today";
  if (time >= midnight - day) return "Yesterday";
  if (time >= midnight - 7 * day) return "Last 7 days";
  if (time >= midnight - 30 * day) return "Last 30 days";
  return "Older";
}

/** Messages of the library start in lower case and have no full stop: they are parts of sentences elsewhere. */
export function sentence(text) {
  return text ? text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".") : "";
}

export const dayOf = (date) => DAY.format(timeOf(date));

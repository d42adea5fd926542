// Bold text and code whose end has not arrived yet. Pure.

const MARKED = new Set(["paragraph", "heading", "list", "blockquote"]);
const BEFORE_OPENING = /[\s([{"'>]/;
const HALF_A_MARK = /(^|[\s([{"'>])\*$/;

/**
 * Return the Markdown of a block that still grows, with an end for bold text or code that is open: otherwise its marks
 * are shown until the end arrives. Other blocks have no such marks, or show them as they are.
 */
export function withEnds({ type, raw }) {
  if (!MARKED.has(type)) return raw;
  const text = raw.trimEnd();
  const outside = text.replace(/(`+)[^`]+\1(?!`)/g, (code) => "x".repeat(code.length));
  const code = outside.lastIndexOf("`");
  if (code >= 0) return code === text.length - 1 ? text.slice(0, code).trimEnd() : `${text}\``;
  return withBoldEnd(text, outside.lastIndexOf("**")).replace(HALF_A_MARK, "$1").trimEnd();
}

function withBoldEnd(text, start) {
  if (start < 0 || (start > 0 && !BEFORE_OPENING.test(text[start - 1]))) return text;
  const inner = text.slice(start + 2);
  if (!inner || /^\s/.test(inner)) return inner ? text : text.slice(0, start).trimEnd();
  return `${text.endsWith("*") ? text.slice(0, -1) : text}**`;
}

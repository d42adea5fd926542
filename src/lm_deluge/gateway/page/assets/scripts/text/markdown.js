// Markdown of a model -> HTML that is safe to show. The only file that makes HTML out of text.
//
// Three lines of defence: raw HTML in the Markdown is shown as text; DOMPurify keeps only the elements below; the
// Content-Security-Policy with Trusted Types refuses every other way from a text to HTML, and all loading from elsewhere.

import hljs from "../../vendor/highlight.js";
import { Lexer, Marked } from "../../vendor/marked.js";
import DOMPurify from "../../vendor/dompurify.js";

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (character) => ENTITIES[character]);

// No img: an address in an answer would send what it contains to a foreign server (![](//host/?q=secret)).
const CONFIGURATION = {
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "pre", "code", "span", "a"],
    ...["strong", "em", "del", "table", "thead", "tbody", "tr", "th", "td", "#text"],
  ],
  ALLOWED_ATTR: ["href", "class", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  FORBID_TAGS: ["img", "svg", "math", "form", "input", "button", "style", "link", "meta", "iframe", "object", "embed", "base"],
  RETURN_TRUSTED_TYPE: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName === "A" && node.hasAttribute("href")) {
    node.setAttribute("rel", "noopener noreferrer");
    node.setAttribute("target", "_blank");
    node.setAttribute("title", node.getAttribute("href")); // the text of a link may name another address
  }
});

// Longer code is highlighted in pieces, because the time of one piece is that of a frame that does not come. A string or
// comment over several lines may lose its colour where a piece ends (characters).
const LONGEST_PIECE = 16_000;

/** Return code as HTML with the classes of highlight.js; unknown languages stay plain. */
function highlighted(code, language) {
  if (!hljs.getLanguage(language)) return escape(code);
  const pieces = [...piecesOf(code, LONGEST_PIECE)];
  return pieces.map((piece) => hljs.highlight(piece, { language, ignoreIllegals: true }).value).join("");
}

/** Split code into pieces of at least `size` characters that end with a line; the last one may be shorter. */
export function* piecesOf(code, size) {
  let start = 0;
  while (code.length - start > size) {
    const end = code.indexOf("\n", start + size) + 1;
    if (end === 0) break;
    yield code.slice(start, end);
    start = end;
  }
  yield code.slice(start);
}

export const languageOf = (token) => /^[\w+#.-]*/.exec(token.lang ?? "")[0].toLowerCase();

const renderer = {
  // Models write <br> in the cells of tables; all other HTML is shown as it is written.
  html: ({ text }) => (/^<br\s*\/?>$/i.test(text.trim()) ? "<br>" : escape(text)),
  heading({ tokens, level }) {
    const content = this.parser.parseInline(tokens);
    return level ? `<h${level}>${content}</h${level}>` : `<p><strong>${content}</strong></p>`;
  },
  code(token) {
    const language = languageOf(token);
    const className = language ? ` class="language-${escape(language)}"` : "";
    return `<pre><code${className}>${highlighted(token.text, language)}</code></pre>`;
  },
  tablecell({ tokens, header, align, text }) {
    const tag = header && text.trim() ? "th" : "td"; // an empty heading is noise for screen readers
    return `<${tag}${align ? ` align="${align}"` : ""}>${this.parser.parseInline(tokens)}</${tag}>`;
  },
  image: ({ href, text }) => `<a href="${escape(href)}">${escape(`Image: ${text || href}`)}</a>`,
  checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
};

const marked = new Marked({ gfm: true, renderer });

/** Split Markdown into block tokens. `links` has the link definitions of earlier blocks, by their names. */
export function blocksOf(markdown, links = {}) {
  const lexer = new Lexer(marked.defaults);
  Object.assign(lexer.tokens.links, links);
  return lexer.lex(markdown);
}

/**
 * Return the headings above the next block, outermost first, and give a heading its level. h1 is the page and h2 the
 * message; models skip levels and start anywhere, which screen readers cannot follow.
 */
export function placeHeading(token, above) {
  if (token.type !== "heading") return above;
  const headings = [...above.filter((depth) => depth < token.depth), token.depth];
  token.level = Math.min(headings.length + 2, 6);
  return headings;
}

/** Show block tokens in an element. */
export function showBlocks(element, tokens) {
  element.innerHTML = DOMPurify.sanitize(marked.parser(tokens), CONFIGURATION);
}

/** Show the text of a code block in its `code` element. */
export function showCode(element, code, language) {
  element.innerHTML = DOMPurify.sanitize(highlighted(code, language), CONFIGURATION);
}

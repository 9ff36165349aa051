/**
 * Markdown as it streams in, shown safely and without flicker.
 *
 * Safe by construction: the parser's tokens become DOM nodes, text becomes text nodes. No HTML is ever parsed, so
 * there is nothing to sanitize; the page's Content-Security-Policy forbids it besides (Trusted Types).
 */

import { Lexer } from "./marked.js";

/** What a link may lead to. */
const SAFE_LINK = /^(?:https?:|mailto:)/i;
/** Blocks at the end that the next words may still change. The last is growing; marked joins it to its neighbour. */
const UNSETTLED_BLOCKS = 3;

/** Shows a growing text in an element. */
export class MarkdownView {
  #element;
  #shown = "";
  #settled = 0; // Characters whose blocks are final,
  #settledBlocks = 0; // and how many these are.
  #raws = []; // The source of each block that is there.

  constructor(element) {
    this.#element = element;
  }

  /** `growing`: more is to come, so half-written marks at the end are not shown as such. */
  update(text, { growing }) {
    if (!growing || !text.startsWith(this.#shown)) this.#settled = this.#settledBlocks = 0;
    this.#shown = text;
    const rest = text.slice(this.#settled);
    const tokens = lex(growing ? settle(rest) : rest);
    const blocks = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    blocks.forEach((token, at) => this.#show(token, this.#settledBlocks + at));
    this.#cut(this.#settledBlocks + blocks.length);
    if (growing) this.#settleUpTo(tokens, rest);
  }

  #show(token, at) {
    const old = this.#element.children[at];
    if (old !== undefined && this.#raws[at] === token.raw) return;
    const fresh = block(token);
    if (old === undefined) this.#element.append(fresh);
    else patch(old, fresh);
    this.#raws[at] = token.raw;
  }

  #cut(length) {
    while (this.#element.children.length > length) this.#element.lastElementChild.remove();
    this.#raws.length = length;
  }

  #settleUpTo(tokens, rest) {
    let length = 0, count = 0;
    for (const token of tokens.slice(0, -UNSETTLED_BLOCKS)) {
      if (!rest.startsWith(token.raw, length)) return;
      length += token.raw.length;
      count += token.type !== "space" && token.type !== "def" ? 1 : 0;
    }
    this.#settled += length;
    this.#settledBlocks += count;
  }
}

function lex(text) {
  try {
    return Lexer.lex(text);
  } catch {
    // Nested too deep for the parser.
    return [{ type: "code", raw: text, text }];
  }
}

/** The text without marks at its end that are only half there. */
export function settle(text) {
  if ((text.match(/^ {0,3}(?:```|~~~)/gm) ?? []).length % 2 === 1) return text; // Inside code.
  const paragraph = text.lastIndexOf("\n\n") < 0 ? 0 : text.lastIndexOf("\n\n") + 2;
  const last = text.slice(paragraph);
  // A table is shown once it is known to be one.
  if (/^\s*\|/.test(last) && !/^.*\n\s*\|?[\s:|-]+\|[\s:|-]*\n/.test(last)) return text.slice(0, paragraph);
  const start = text.lastIndexOf("\n") + 1;
  const line = text.slice(start);
  // Marks alone: an underline, a list item or a fence that only begins.
  if (/^\s{0,12}(?:\d{1,9}[.)]?\s*|[-*+_=#>|`~:\s]*)$/.test(line)) return text.slice(0, start);
  return text.slice(0, start) + closeMarks(line);
}

function closeMarks(line) {
  let text = line.replace(/!?\[([^\]\n]*)(?:\]\([^)\n]*)?$/, "$1");
  if ((text.match(/`+/g) ?? []).length % 2 === 1) return `${text}\``;
  text = text.replace(/(^|[\s(])(?:\*{1,3}|_{1,2}|~{1,2})$/, "$1");
  const words = text.replace(/`[^`]*`/g, "").replace(/^\s*[*]\s/, "");
  if ((words.match(/\*\*/g) ?? []).length % 2 === 1) return text.endsWith("*") ? `${text}*` : `${text.trimEnd()}**`;
  if ((words.replaceAll("**", "").match(/\*/g) ?? []).length % 2 === 1) return `${text.trimEnd()}*`;
  return (words.match(/~~/g) ?? []).length % 2 === 1 ? `${text.trimEnd()}~~` : text;
}

/** Makes a node like another one, leaving alone what is the same: selections stay, nothing blinks. */
function patch(old, fresh) {
  if (old.nodeName !== fresh.nodeName || old.className !== fresh.className) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) {
      if (fresh.data.startsWith(old.data)) old.appendData(fresh.data.slice(old.data.length));
      else old.data = fresh.data;
    }
    return undefined;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  after.forEach((node, at) => (at < before.length ? patch(before[at], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
  return undefined;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const blocks = (tokens) => (tokens ?? []).filter((token) => token.type !== "space").map(block);
const inlines = (tokens) => (tokens ?? []).flatMap(inline);

function block(token) {
  switch (token.type) {
    case "heading":
      // The page has headings of its own above the answer's.
      return element(`h${Math.min(6, token.depth + 2)}`, { class: `depth-${token.depth}` }, ...inlines(token.tokens));
    case "paragraph":
      return element("p", {}, ...inlines(token.tokens));
    case "blockquote":
      return element("blockquote", {}, ...blocks(token.tokens));
    case "list":
      return list(token);
    case "code":
      return code(token);
    case "table":
      return table(token);
    case "hr":
      return element("hr");
    case "text":
      return element("p", {}, ...(token.tokens ? inlines(token.tokens) : [unescapeEntities(token.text)]));
    default:
      // HTML and whatever else: as it was written.
      return element("p", {}, token.raw.trimEnd());
  }
}

function list(token) {
  const start = token.ordered && token.start !== 1 ? token.start : undefined;
  return element(token.ordered ? "ol" : "ul", { start }, ...token.items.map(listItem));
}

function listItem(item) {
  const children = item.tokens.flatMap((token) => {
    if (token.type === "space") return [];
    if (token.type === "checkbox") return [checkbox(token.checked)];
    if (token.type === "text") return token.tokens ? inlines(token.tokens) : [unescapeEntities(token.text)];
    return [block(token)];
  });
  return element("li", { class: item.task ? "task" : undefined }, ...children);
}

const checkbox = (checked) =>
  element("span", { class: checked ? "box checked" : "box", role: "img", "aria-label": checked ? "done" : "to do" });

function code(token) {
  const language = /^[\w+#.-]{1,20}/.exec(token.lang ?? "")?.[0];
  const copy = element("button", { type: "button", class: "copy" }, "Copy");
  const head = element("div", { class: "code-head" }, element("span", {}, language ?? "code"), copy);
  return element("div", { class: "code" }, head, element("pre", { tabindex: "0" }, element("code", {}, token.text)));
}

function table(token) {
  const cell = (name) => (one) => element(name, { class: one.align ? `to-${one.align}` : undefined }, ...inlines(one.tokens));
  const head = element("thead", {}, element("tr", {}, ...token.header.map(cell("th"))));
  const rows = token.rows.map((row) => element("tr", {}, ...row.map(cell("td"))));
  const whole = element("table", {}, head, element("tbody", {}, ...rows));
  return element("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, whole);
}

function inline(token) {
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return [element(token.type, {}, ...inlines(token.tokens))];
    case "codespan":
      return [element("code", {}, token.text)];
    case "br":
      return [element("br")];
    case "link":
      return link(token, inlines(token.tokens));
    case "image":
      // Loading it would tell its server who reads this, and when.
      return link(token, [`🖼 ${token.text || "image"}`]);
    case "html":
      return [/^<br\s*\/?>$/i.test(token.raw) ? element("br") : token.raw];
    case "checkbox":
      return [checkbox(token.checked)];
    case "escape":
      return [token.text];
    default:
      return token.tokens ? inlines(token.tokens) : [unescapeEntities(token.text ?? token.raw)];
  }
}

function link(token, children) {
  const href = unescapeEntities(token.href ?? "").trim();
  if (!SAFE_LINK.test(href)) return children;
  const attributes = { href, title: token.title ?? undefined, target: "_blank", rel: "noopener noreferrer nofollow" };
  return [element("a", attributes, ...children)];
}

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", hellip: "…", mdash: "—", ndash: "–", copy: "©", deg: "°", euro: "€", times: "×" };

function unescapeEntities(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([\da-f]{1,6})|(\w{2,8}));/gi, (whole, decimal, hex, name) => {
    if (name !== undefined) return ENTITIES[name] ?? whole;
    const point = decimal === undefined ? parseInt(hex, 16) : Number(decimal);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}

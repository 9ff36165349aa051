/** The turns on the page: keeps the DOM like the conversation, at most once a frame. */

import { MarkdownView } from "./markdown.js";

/** How near the end counts as being there, in pixels. */
const NEAR_END = 64;
const NOTES = { stopped: "This answer was stopped.", waiting: "", unsent: "Not sent." };

export class TurnsView {
  #list;
  #scroll;
  #latest;
  #views = new Map();
  #conversation;
  #frame = 0;
  #stuck = true;
  #onRetry;

  constructor({ list, scroll, latest, onRetry }) {
    this.#list = list;
    this.#scroll = scroll;
    this.#latest = latest;
    this.#onRetry = onRetry;
    scroll.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    latest.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#keepAtEnd()).observe(list);
    new ResizeObserver(() => this.#keepAtEnd()).observe(scroll);
    list.addEventListener("click", (event) => copyCode(event.target));
  }

  show(conversation) {
    if (conversation !== this.#conversation) {
      this.#views.clear();
      this.#list.replaceChildren();
      this.#stuck = true;
    }
    this.#conversation = conversation;
    this.refresh();
  }

  /** Something has changed. */
  refresh() {
    // A page in the background draws nothing, and catches up when it is looked at.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  toEnd() {
    this.#stuck = true;
    this.#keepAtEnd();
  }

  #draw() {
    const { turns } = this.#conversation;
    for (const [turn, view] of this.#views) {
      if (turns.includes(turn)) continue;
      view.element.remove();
      this.#views.delete(turn);
    }
    turns.forEach((turn, at) => {
      let view = this.#views.get(turn);
      if (view === undefined) this.#views.set(turn, (view = new TurnView(turn, this.#onRetry)));
      if (this.#list.children[at] !== view.element) this.#list.insertBefore(view.element, this.#list.children[at] ?? null);
      view.draw();
    });
    this.#keepAtEnd();
  }

  #noteScroll() {
    const { scrollHeight, scrollTop, clientHeight } = this.#scroll;
    this.#stuck = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this.#latest.hidden = this.#stuck;
  }

  #keepAtEnd() {
    if (this.#stuck) this.#scroll.scrollTop = this.#scroll.scrollHeight;
    this.#noteScroll();
  }
}

class TurnView {
  #turn;
  #you = make("div", "you");
  #answer = make("article", "answer");
  #parts = make("div", "parts");
  #working = make("p", "working");
  #foot = make("div", "turn-foot");
  #views = [];
  #shownState;
  #shownMessage;
  #onRetry;

  constructor(turn, onRetry) {
    this.#turn = turn;
    this.#onRetry = onRetry;
    this.element = make("li", "turn");
    this.#answer.setAttribute("aria-label", "Answer");
    for (let dot = 0; dot < 3; dot += 1) this.#working.append(make("i"));
    this.#working.append(make("span", "sr", "Working…"));
    this.#answer.append(this.#parts, this.#working, this.#foot);
    this.element.append(this.#you, this.#answer);
  }

  draw() {
    const { parts, state, message } = this.#turn;
    const live = state === "running" || state === "stopping";
    if (message !== this.#shownMessage) this.#drawMessage(message);
    // After a reset the parts are others.
    if (this.#views.some((view, at) => view.part !== parts[at])) {
      this.#views = [];
      this.#parts.replaceChildren();
    }
    parts.forEach((part, at) => {
      const isLast = at === parts.length - 1;
      if (this.#views[at] === undefined) {
        this.#views[at] = viewOf(part);
        this.#parts.append(this.#views[at].element);
      }
      this.#views[at].draw({ live, growing: live && isLast });
    });
    const last = parts.at(-1);
    this.#working.hidden = !(state === "sending" || state === "waiting" || (live && last?.kind !== "text"));
    this.#answer.setAttribute("aria-busy", String(live));
    this.element.dataset.state = state;
    if (state !== this.#shownState) this.#drawFoot(state);
  }

  #drawMessage(message) {
    this.#shownMessage = message;
    this.#you.replaceChildren(make("span", "sr", "You: "), make("p", message === null ? "elsewhere" : "", message ?? "Asked from another place"));
  }

  #drawFoot(state) {
    this.#shownState = state;
    const turn = this.#turn;
    this.#foot.replaceChildren();
    if (state === "failed" || state === "unsent") {
      const box = make("div", "problem");
      box.append(make("p", "", turn.error ?? NOTES[state]));
      if (turn.message !== null) box.append(button("Try again", "", () => this.#onRetry(turn)));
      this.#foot.append(box);
    }
    if (state === "stopped") this.#foot.append(make("p", "note", NOTES.stopped));
    if ((state === "done" || state === "stopped") && turn.parts.some((part) => part.kind === "text")) {
      this.#foot.append(button("Copy answer", "quiet small", (event) => copy(event.currentTarget, textOf(turn))));
    }
  }
}

const textOf = (turn) => turn.parts.filter((part) => part.kind === "text").map((part) => part.text).join("");

function viewOf(part) {
  if (part.kind === "text") return new TextView(part);
  if (part.kind === "tool") return new ToolView(part);
  if (part.kind === "reasoning") return new ReasoningView(part);
  return { part, element: make("p", "note", "Part of this answer is no longer kept."), draw() {} };
}

class TextView {
  #markdown;
  #shown = "";
  #growing;

  constructor(part) {
    this.part = part;
    this.element = make("div", "prose");
    this.#markdown = new MarkdownView(this.element);
  }

  draw({ growing }) {
    const { text } = this.part;
    if (text === this.#shown && growing === this.#growing) return;
    this.#shown = text;
    this.#growing = growing;
    this.element.classList.toggle("growing", growing);
    this.#markdown.update(text, { growing });
  }
}

class ReasoningView {
  #text = make("p");

  constructor(part) {
    this.part = part;
    this.element = make("details", "step reasoning");
    const summary = make("summary");
    summary.append(icon("M9 18h6M10 21h4M12 3a6 6 0 0 0-3.7 10.7c.8.7 1.2 1.3 1.2 2.3h5c0-1 .4-1.6 1.2-2.3A6 6 0 0 0 12 3Z"), make("span", "step-name", "Thoughts"));
    this.element.append(summary, this.#text);
  }

  draw() {
    if (this.#text.textContent !== this.part.text) this.#text.textContent = this.part.text;
  }
}

class ToolView {
  #state = make("span", "step-state");
  #result = make("pre");

  constructor(part) {
    this.part = part;
    this.element = make("details", "step tool");
    const summary = make("summary");
    summary.append(this.#state, make("span", "step-name", humanName(part.name)), make("span", "step-about", about(part.given)));
    this.#result.tabIndex = 0;
    const given = make("pre", "", pretty(part.given));
    given.tabIndex = 0;
    this.element.append(summary, make("div", "step-label", "Asked"), given, make("div", "step-label", "Got"), this.#result);
  }

  draw({ live }) {
    const { result } = this.part;
    const state = result !== undefined ? "finished" : live ? "running" : "unfinished";
    if (this.element.dataset.state === state) return;
    this.element.dataset.state = state;
    const said = { finished: "finished", running: "in progress", unfinished: "not finished" }[state];
    this.#state.replaceChildren(state === "finished" ? icon("M5 12.5 10 17.5 19.5 7") : make("i"), make("span", "sr", said));
    this.#result.textContent = result === undefined ? "" : pretty(result);
  }
}

const humanName = (name) => {
  const words = name.replace(/([a-z])([A-Z])/g, "$1 $2").replace(/[_-]+/g, " ").trim().toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
};

/** What a call is about: its plain arguments. */
function about(given) {
  try {
    return Object.values(JSON.parse(given)).filter((value) => typeof value !== "object").join(" · ");
  } catch {
    return "";
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

export function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function button(label, className, onClick) {
  const element = make("button", className, label);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

function icon(path) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

function copyCode(target) {
  const from = target.closest?.(".copy");
  if (from) copy(from, from.closest(".code").querySelector("code").textContent);
}

async function copy(from, text) {
  const label = from.textContent;
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch {
    from.textContent = "Can't copy here";
  }
  setTimeout(() => (from.textContent = label), 1_500);
}

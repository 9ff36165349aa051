// Shows a thread's events as they come. What an agent said is only ever set as text, never as markup.
"use strict";

const SOON = 1000; // ms between two looks while a run goes on
const LATER = 5000; // ms while none does, or the service is away
const WORDS = {
  text: "Text", tool_call: "Tool call", tool_result: "Tool result", reasoning: "Reasoning", usage: "Tokens",
  final: "Final answer", dropped: "Events are missing here",
};
const ENDS = { cancelled: "Cancelled", interrupted: "Interrupted" }; // by code; all other errors are failures
const COUNTS = { input_token_count: "in", output_token_count: "out", total_token_count: "in all" };

const address = new URL(location.href);
const trail = address.pathname.replace(/\/timeline$/, "");
const parts = trail.split("/").map(decodeURIComponent);
const every = document.getElementById("every");
const runs = new Map(); // by correlation id: {events, item}
let newest = "";
let timer = 0;

const agent = parts[parts.indexOf("agents") + 1];
document.getElementById("agent").textContent = agent;
document.getElementById("thread").textContent = parts[parts.length - 1];
document.title = `${agent}: callback timeline`;

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function kindOf(event) {
  if (event.event_type === "stream") return event.update_kind;
  return event.code === "cancelled" ? "cancelled" : event.event_type;
}

function colour(kind) {
  return `k-${WORDS[kind] || kind === "error" ? kind : "other"}`;
}

function nameOf({ kind, event }) {
  return event.event_type === "error" ? ENDS[event.code] ?? "Failed" : WORDS[kind] ?? kind;
}

function seconds(milliseconds) {
  if (milliseconds < 60000) return `${(milliseconds / 1000).toFixed(milliseconds < 10000 ? 2 : 1)} s`;
  return `${Math.floor(milliseconds / 60000)} min ${Math.round((milliseconds % 60000) / 1000)} s`;
}

function ended(event) {
  return event.event_type === "final" || event.event_type === "error";
}

/** Pieces of one text become one row, unless every event is wanted. */
function rows(events) {
  const found = [];
  for (const event of events) {
    const kind = kindOf(event);
    const last = found[found.length - 1];
    const joins = !every.checked && (kind === "text" || kind === "reasoning");
    if (joins && last && last.kind === kind) {
      last.text += event.text;
      last.pieces += 1;
      last.to = Date.parse(event.timestamp);
    } else {
      const at = Date.parse(event.timestamp);
      found.push({ kind, event, at, to: at, text: event.text ?? "", pieces: 1 });
    }
  }
  return found;
}

function counts(usage) {
  const list = make("p", "counts");
  for (const [name, count] of Object.entries(usage)) {
    if (typeof count === "number") list.append(make("span", "", `${count} ${COUNTS[name] ?? name.replaceAll("_", " ")}`));
  }
  return list;
}

function box(text) {
  const element = make("p", "said code mono", text || "(nothing)");
  element.tabIndex = 0; // It may scroll.
  return element;
}

function body({ kind, event, text }, streamed) {
  if (kind === "tool_call" || kind === "tool_result") return [box(text)];
  if (kind === "usage") return event.usage ? [counts(event.usage)] : [];
  if (kind === "dropped") return [make("p", "said quiet", `${event.dropped} of them: the store was away, or too slow.`)];
  const shown = [];
  if (event.event_type === "error") shown.push(make("p", "said", event.error));
  const said = ended(event) ? event.response_text : text;
  if (said && ended(event) && said === streamed) shown.push(make("p", "said quiet", "As streamed above."));
  else if (said) shown.push(make("p", kind === "reasoning" ? "said quiet" : "said", said));
  if (ended(event) && event.usage) shown.push(counts(event.usage));
  return shown;
}

function row(each, began, streamed) {
  const item = make("li", colour(each.kind));
  const what = make("div", "what");
  const head = make("p", "kind", nameOf(each));
  if (each.event.event_type === "error") head.append(make("small", "mono", each.event.code));
  if (each.pieces > 1) head.append(make("small", "", `${each.pieces} pieces in ${seconds(each.to - each.at)}`));
  what.append(head, ...body(each, streamed));
  item.append(make("span", "at", `+${seconds(Math.max(0, each.at - began))}`), what);
  return item;
}

/** Where in the run's time its events lie. */
function strip(events, began, took) {
  const bar = make("div", "strip");
  bar.setAttribute("aria-hidden", "true");
  for (const event of events) {
    const mark = make("i", colour(kindOf(event)));
    mark.style.left = `${(0.5 + 98.5 * (took ? (Date.parse(event.timestamp) - began) / took : 0)).toFixed(2)}%`;
    bar.append(mark);
  }
  return bar;
}

function show(run) {
  const { events, item } = run;
  const began = Date.parse(events[0].timestamp);
  const end = events.find(ended);
  const took = Math.max(0, Date.parse((end ?? events[events.length - 1]).timestamp) - began);
  const head = make("header");
  head.append(make("h2", "asked", events[0].request_message || "(message not known)"));
  const facts = make("div", "facts");
  let state = ["live", "Running"];
  if (end) {
    const name = nameOf({ kind: kindOf(end), event: end });
    state = end.event_type === "final" ? ["good", "Completed"] : [end.code === "cancelled" ? "" : "bad", name];
  }
  facts.append(make("b", `pill ${state[0]}`, state[1]));
  facts.append(make("span", "", new Date(began).toLocaleString()), make("span", "", seconds(took)));
  facts.append(make("span", "", `${events.length} event${events.length === 1 ? "" : "s"}`));
  const id = make("span", "mono", `run ${events[0].correlation_id.slice(0, 12)}`);
  id.title = events[0].correlation_id;
  facts.append(id);
  head.append(facts);
  const list = make("ol", "events");
  const streamed = events.filter((event) => kindOf(event) === "text").map((event) => event.text).join("");
  list.append(...rows(events).map((each) => row(each, began, streamed)));
  item.replaceChildren(head, strip(events, began, took), list);
}

function take(events) {
  const changed = new Set();
  for (const event of events) {
    let run = runs.get(event.correlation_id);
    if (!run) {
      run = { events: [], item: make("li", "run") };
      runs.set(event.correlation_id, run);
      document.getElementById("runs").append(run.item);
    }
    run.events.push(event);
    changed.add(run);
    newest = event.id;
  }
  changed.forEach(show);
  document.getElementById("empty").hidden = runs.size > 0;
}

function tell(name, text) {
  const state = document.getElementById("state");
  if (state.textContent !== text) state.textContent = text;
  state.className = `pill ${name}`;
}

async function look() {
  // What let this page in, a key or a token in its address, lets it read.
  const query = new URLSearchParams();
  for (const name of ["code", "token", "run"]) {
    if (address.searchParams.has(name)) query.set(name, address.searchParams.get(name));
  }
  if (newest) query.set("since", newest);
  const answer = await fetch(`${trail}?${query}`);
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    tell("bad", answer.status === 503 ? "Away, trying again" : told.error ?? `Status ${answer.status}`);
    // What is refused stays refused.
    return answer.status >= 500 ? LATER : 0;
  }
  take(await answer.json());
  const running = [...runs.values()].some((run) => !run.events.some(ended));
  tell(running ? "live" : "good", running ? "Live" : "Up to date");
  return running ? SOON : LATER;
}

async function keepLooking() {
  clearTimeout(timer);
  let pause = LATER;
  try {
    pause = await look();
  } catch {
    tell("bad", "Away, trying again");
  }
  if (pause && !document.hidden) timer = setTimeout(keepLooking, pause);
}

every.addEventListener("change", () => runs.forEach(show));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) keepLooking();
});
keepLooking();

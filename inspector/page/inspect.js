"use strict";

// Text from the stream only ever becomes text: textContent, never markup.

const REFRESH_MS = 2000;
// The service has other things to do: the longer it takes to answer, the less often it is asked.
const REST_FACTOR = 10;
const base = location.pathname.replace(/\/$/, "");
// The page was opened with a key, if the service wants one; what it asks for needs the same.
const key = new URLSearchParams(location.search).get("code");

const $ = (id) => document.getElementById(id);
const view = { conversations: [], isWhole: true, shown: "", detailOf: "", asked: 0 };

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

async function ask(path) {
  const response = await fetch(base + path, { headers: key ? { "x-functions-key": key } : {}, cache: "no-store" });
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || `The service answered ${response.status}.`);
  return body;
}

function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  const minutes = Math.round(ms / 60000);
  return minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
}

function age(ms) {
  return ms < 60000 ? `${Math.round(ms / 1000)} s` : duration(ms);
}

function plural(count, name) {
  return `${count} ${count === 1 ? name : name.replace(/y$/, "ie") + "s"}`;
}

function pill(status) {
  return element("span", `pill s-${status || "none"}`, status || "no state");
}

function selected() {
  return decodeURIComponent(location.hash.slice(1));
}

function matches(row, wanted) {
  return [row.conversation_id, row.agent, row.status].some((part) => (part || "").toLowerCase().includes(wanted));
}

function showList() {
  const wanted = $("filter").value.trim().toLowerCase();
  const rows = view.conversations.filter((row) => matches(row, wanted));
  const focused = document.activeElement && document.activeElement.dataset.id;
  $("list").replaceChildren(...rows.map((row) => {
    const item = element("li");
    const pick = element("button", "pick");
    pick.type = "button";
    pick.dataset.id = row.conversation_id;
    pick.setAttribute("aria-current", String(row.conversation_id === selected()));
    pick.append(element("b", "mono", row.conversation_id));
    const facts = element("span", "about");
    facts.append(pill(row.is_stream ? row.status : "broken"), element("span", "name", row.agent || "no agent"));
    if (row.producer === "gone") facts.append(element("span", "s-failed", "producer gone"));
    facts.append(element("span", "end", row.age_ms === null ? "" : `${plural(row.entries, "entry")} · ${age(row.age_ms)}`));
    pick.append(facts);
    pick.addEventListener("click", () => { location.hash = encodeURIComponent(row.conversation_id); });
    item.append(pick);
    return item;
  }));
  if (focused) for (const each of document.querySelectorAll(".pick")) if (each.dataset.id === focused) each.focus();
  const more = view.isWhole ? "" : " · there are more than were looked at";
  $("count").textContent = `${rows.length} of ${view.conversations.length} conversations${more}`;
}

function strip(run) {
  const shown = element("div", "strip");
  const end = Math.max(1, ...run.steps.map((step) => step.after_ms + step.duration_ms));
  for (const step of run.steps) {
    const bar = element("i", kindClass(step));
    bar.style.left = `${(100 * step.after_ms) / end}%`;
    bar.style.width = `${(100 * step.duration_ms) / end}%`;
    bar.title = `${step.kind}: ${step.what}`;
    shown.append(bar);
  }
  return shown;
}

function kindClass(step) {
  return `k-${step.kind.replace(" ", "-")}${step.is_trouble ? " trouble" : ""}`;
}

function stepRow(step) {
  const row = element("li", kindClass(step));
  row.append(
    element("span", "after", `+${duration(step.after_ms)}`),
    element("span", "kind", step.kind),
    element("span", "what", step.what),
    element("span", "id mono", step.kind === "silence" ? "" : step.entry_id),
  );
  if (step.text) row.append(element("pre", "said", step.text));
  return row;
}

function runCard(run, number) {
  const card = element("section", "run");
  const head = element("header");
  head.append(
    element("span", "soft", `run ${number}`),
    element("b", "mono", run.run || "anonymous"),
    element("span", "soft", run.agent || ""),
    pill(run.status || "running"),
  );
  if (run.producer !== "-") head.append(element("span", run.producer === "gone" ? "s-failed" : "soft", `producer ${run.producer}`));
  card.append(head, ...run.summary.map((line) => element("p", "facts", line)));
  if (run.causes.length) {
    const causes = element("ul", "causes");
    causes.append(...run.causes.map((cause) => element("li", "", cause)));
    card.append(causes);
  }
  if (run.steps.length) {
    const steps = element("ol", "steps");
    steps.append(...run.steps.map(stepRow));
    card.append(strip(run), steps);
  }
  if (run.steps_left_out) card.append(element("p", "facts", `… and ${run.steps_left_out} more steps`));
  return card;
}

function showDetail(conversation) {
  const head = element("header");
  const stream = conversation.keys.find((stored) => stored.kind === "stream");
  const left = !stream ? "no stream" : stream.ttl < 0 ? "never expires" : `expires in ${duration(stream.ttl)}`;
  head.append(
    element("h2", "mono", conversation.conversation_id),
    element("p", "soft facts", `${plural(conversation.entries, "entry")} · ${plural(conversation.runs.length, "run")} · ${left}`),
  );
  const parts = [head];
  if (!conversation.is_whole) parts.push(element("p", "finding", "This stream is too long for this page: only its start is shown. The command shows all of it."));
  for (const finding of conversation.findings) {
    const shown = element("p", "finding");
    shown.append(element("code", "mono", finding.code), ` ${finding.message}`);
    parts.push(shown);
  }
  const cards = conversation.runs.map((run, place) => runCard(run, place + 1));
  const top = $("detail").scrollTop;
  $("detail").replaceChildren(...parts, ...cards.reverse());
  $("detail").scrollTop = view.detailOf === conversation.conversation_id ? top : 0;
  view.detailOf = conversation.conversation_id;
}

function tell(word, className) {
  $("state").textContent = word;
  $("state").className = `pill ${className}`;
}

async function refresh() {
  const asked = ++view.asked;
  const id = selected();
  try {
    const [list, detail] = await Promise.all([
      ask("/conversations"),
      id ? ask(`/conversations/${encodeURIComponent(id)}${$("text").checked ? "?text=true" : ""}`).catch((error) => ({ error })) : null,
    ]);
    if (asked !== view.asked) return;
    view.conversations = list.conversations;
    view.isWhole = list.is_whole;
    showList();
    if (detail && detail.error) {
      $("detail").replaceChildren(element("p", "finding", detail.error.message));
    } else if (detail) {
      const same = JSON.stringify({ ...detail, now: 0, keys: 0 });
      // Rebuilding what has not changed would take a selection away.
      if (same !== view.shown || view.detailOf !== id) showDetail(detail);
      view.shown = same;
    }
    tell("live", "s-live");
  } catch (error) {
    if (asked === view.asked) tell(error.message, "s-failed");
  }
}

async function keepFresh() {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) await refresh();
    const rest = Math.max(REFRESH_MS, REST_FACTOR * (performance.now() - began));
    await new Promise((resolve) => setTimeout(resolve, rest));
  }
}

$("filter").addEventListener("input", showList);
$("text").addEventListener("change", refresh);
window.addEventListener("hashchange", () => { view.shown = ""; showList(); refresh(); $("detail").focus({ preventScroll: true }); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
keepFresh();

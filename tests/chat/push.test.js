/** Pushes and the stream together give the stream's events, whatever becomes of the pushes: docs/protocol.md, 7.1. */

import assert from "node:assert/strict";
import { mock, test } from "node:test";

import { PushedReading } from "../../chat/assets/push.js";

const isAfter = (id, other) => Number(id.split("-")[0]) > Number(other.split("-")[0]);
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Numbers that are the same each time. */
function chances(seed) {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

/** What a service stores: three runs, one after the other, with texts, calls, resets and all ends. */
function story(chance) {
  const entries = [];
  const add = (run, entry) => entries.push({ run, id: `${entries.length + 1}-0`, ...entry });
  ["completed", "cancelled", "failed"].forEach((status, at) => {
    const run = `run-${at}`;
    add(run, { type: "tool_call", data: { call_id: "1", name: "look" } });
    for (let count = 0; count < 15; count += 1) {
      if (chance() < 0.05) add(run, { type: "reset", data: { reason: "again" } });
      else if (chance() < 0.1) add(run, { type: "done", data: { of: "another service" } });
      else add(run, { text: `${run}.${count}\r\n` });
    }
    add(run, status === "failed" ? { status, error: "It failed.", code: "agent_failed" } : { status });
  });
  return entries;
}

/** An entry as the stream gives it. */
function eventsOf({ id, run, text, type, data, status, error, code }, before) {
  if (text !== undefined) return [{ type: "message", data: text.replaceAll("\r\n", "\n"), id, run }];
  if (type === "done") return [{ type: "x-done", data: JSON.stringify(data), id, run }];
  if (type !== undefined) return [{ type, data: JSON.stringify(data), id, run }];
  if (error) return [{ type: "error", data: JSON.stringify({ code, message: error }), id, run }];
  const done = { type: "done", data: "[DONE]", id, run };
  const reason = JSON.stringify({ reason: "The run was cancelled." });
  return status === "cancelled" ? [{ type: "cancelled", data: reason, id: before, run }, done] : [done];
}

/** A stream of what is stored, slow and fast by turns. */
class Stream extends EventTarget {
  state = "connecting";

  constructor(stored, after, chance) {
    super();
    Object.assign(this, { stored, after, chance, isClosed: false });
  }

  [Symbol.asyncIterator]() {
    const events = this.events();
    return { next: () => events.next(), return: async () => (this.isClosed = true) };
  }

  async *events() {
    await this.wait();
    this.state = "open";
    this.dispatchEvent(new Event("state"));
    let at = this.after === undefined ? 0 : this.stored.findIndex(({ id }) => id === this.after) + 1;
    while (!this.isClosed) {
      if (at < this.stored.length) yield* eventsOf(this.stored[at], this.stored[at++ - 1]?.id ?? "");
      await this.wait();
    }
  }

  async wait() {
    for (let turns = this.chance() * 8; turns > 0; turns -= 1) await turn();
  }
}

/** Pushes what is stored: some are joined, and some are lost, or come twice, or late, as it is told. */
class Hub {
  isConnected = false;
  isJoined = false;
  #previous = "";
  #late = [];

  constructor(chance, { loses = 0, doubles = 0, swaps = 0, drops = 0 }) {
    Object.assign(this, { chance, loses, doubles, swaps, drops, calls: 0 });
  }

  start() {
    this.set(true);
  }

  set(to) {
    Object.assign(this, { isConnected: to, isJoined: to });
    this.onChange();
  }

  joinAgain() {}

  close() {
    this.isClosed = true;
  }

  push({ id, run, text, type, data, status, error, code }, isFirst) {
    const common = { correlationId: run, entryId: id, previousEntryId: isFirst ? "" : this.#previous };
    this.#previous = id;
    if (this.chance() < this.drops) this.set(!this.isConnected);
    if (!this.isConnected || this.chance() < this.loses) return;
    if (text !== undefined) this.#call("agentMessage", { ...common, text });
    else if (type !== undefined) this.#call("agentEvent", { ...common, type, data });
    else if (error) this.#call("agentError", { ...common, status, error, code });
    else this.#call("agentDone", { ...common, status });
  }

  #call(...call) {
    this.#late.push(call);
    if (this.chance() < this.swaps) return;
    for (const each of this.#late.splice(0).reverse()) {
      for (let times = this.chance() < this.doubles ? 2 : 1; times > 0; times -= 1) this.onCall(...each);
      this.calls += 1;
    }
  }
}

/** One telling of a story; what was given, and how often the stream was read. */
async function tell(seed, troubles) {
  const chance = chances(seed), entries = story(chance), stored = [], given = [];
  const hub = new Hub(chance, troubles);
  let reads = 0;
  const reading = new PushedReading({
    hub,
    openStream: (after) => {
      reads += 1;
      return new Stream(stored, after, chance);
    },
    isAfter,
    isAnswerDue: () => given.at(-1)?.id !== entries.at(-1).id,
    reader: { signal: new AbortController().signal, onState: () => {} },
  });
  const events = reading.events();
  const finished = (async () => {
    for await (const event of events) {
      given.push(event);
      if (event.id === entries.at(-1).id) break;
    }
  })();
  for (const entry of entries) {
    for (let turns = chance() * 12; turns > 0; turns -= 1) await turn();
    const isFirst = stored.at(-1)?.run !== entry.run;
    stored.push(entry);
    hub.push(entry, isFirst);
  }
  // Silence: whatever was lost is missed, and read.
  for (let seconds = 0; seconds < 20; seconds += 1) {
    for (let turns = 0; turns < 20; turns += 1) await turn();
    mock.timers.tick(1_000);
  }
  await finished;
  assert.ok(hub.isClosed);
  const expected = entries.flatMap((entry, at) => eventsOf(entry, entries[at - 1]?.id ?? ""));
  assert.deepEqual(given, expected, `seed ${seed}`);
  return { reads, calls: hub.calls };
}

for (const [name, troubles] of Object.entries({
  "arrive": {},
  "are lost": { loses: 0.2 },
  "come twice": { doubles: 0.5 },
  "come late": { swaps: 0.3 },
  "stop when connections drop": { drops: 0.1 },
  "are lost, come twice, late, and stop": { loses: 0.1, doubles: 0.2, swaps: 0.2, drops: 0.05 },
  "never come": { loses: 1 },
})) {
  test(`each event is given once and in order where pushes ${name}`, async () => {
    mock.timers.enable({ apis: ["setTimeout", "Date"] });
    try {
      for (let seed = 1; seed <= 40; seed += 1) await tell(seed, troubles);
    } finally {
      mock.timers.reset();
    }
  });
}

test("where pushes arrive, the stream is read once for each run", async () => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const told = await tell(7, {});
  mock.timers.reset();
  assert.deepEqual(told, { reads: 3, calls: 51 });
});

test("a connection that is lost, and a page that is looked at again, read the stream at once", async () => {
  const page = new EventTarget();
  globalThis.document = Object.assign(page, { visibilityState: "visible" });
  const chance = chances(3), hub = new Hub(chance, {}), stored = [{ id: "1-0", run: "a", text: "x" }];
  let reads = 0;
  const openStream = (after) => {
    reads += 1;
    return new Stream(stored, after, chance);
  };
  const reader = { signal: new AbortController().signal, onState: () => {} };
  const events = new PushedReading({ hub, openStream, isAfter, isAnswerDue: () => true, reader }).events();
  hub.start();
  hub.push(stored[0], true);
  await events.next();
  for (const disturb of [() => hub.set(false), () => page.dispatchEvent(new Event("visibilitychange"))]) {
    const next = events.next();
    await turn();
    const before = reads;
    disturb();
    for (let turns = 0; turns < 5; turns += 1) await turn();
    assert.equal(reads, before + 1);
    hub.set(true);
    stored.push({ id: `${stored.length + 1}-0`, run: "a", text: "y" });
    hub.push(stored.at(-1));
    assert.equal((await next).value.data, "y");
  }
  await events.return();
  delete globalThis.document;
});

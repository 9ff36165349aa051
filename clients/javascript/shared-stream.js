/**
 * One connection for many tabs: the tab that holds a Web Lock reads, and tells the others over a BroadcastChannel.
 *
 * Each tab has its own place in the stream, and takes from another only the event that follows on exactly this
 * place. Whenever that is not so (it came late, slept, or the reading tab was closed) it reads over a connection
 * of its own until both places are the same again. So what a tab is given never depends on another tab's fate.
 */

import { AgentStream, isAfter, readsAllRuns } from "./agent-stream.js";

/** Silence of the reading tab after which another one reads for itself: heartbeats make it speak every 15 s. */
const SILENCE_MS = 40_000;
/** How long the reading tab may take to answer; a tab in the background may be slow. */
const ANSWER_MS = 3_000;
/** How often the reading tab says that it is there, at most. */
const ALIVE_MS = 5_000;
/** Events that wait for a tab that is behind. What does not fit it reads itself. */
const MAX_WAITING = 10_000;

/** `after`: an entry of this read that was given before; what comes after it is given. */
export function sharedStream(client, conversationId, { signal, after, ...options } = {}) {
  const locks = globalThis.navigator?.locks;
  const endsAtTerminal = !readsAllRuns(options);
  if (!locks || typeof globalThis.BroadcastChannel !== "function") {
    const readAlone = (reader) => client.read(conversationId, options, { ...reader, after });
    return new AgentStream(readAlone, { conversationId, endsAtTerminal, signal });
  }
  const read = async function* (reader) {
    const shared = new SharedReading(client, conversationId, options, { endsAtTerminal, after, reader });
    try {
      yield* shared.events(locks);
    } finally {
      shared.close();
    }
  };
  return new AgentStream(read, { conversationId, endsAtTerminal, signal });
}

class SharedReading {
  #open; // (reader) → async iterator of our own connection's events
  #reader;
  #endsAtTerminal;
  #name;
  #channel;
  #cursor;
  #place; // Two readers at the same place are given the same from there on.
  #leading = false;
  #release = () => {};
  #ended = new AbortController();
  #leaderPlace;
  #waiting = []; // What the reading tab gave, from the oldest that may follow on our place.
  #silentAt = Infinity; // When the reading tab counts as silent.
  #saidAt = 0;
  #state = "connecting";
  #notify = () => {};

  constructor(client, conversationId, options, { endsAtTerminal, after, reader }) {
    this.#cursor = after;
    this.#place = after ?? unique();
    this.#open = (how) => client.read(conversationId, options, how);
    this.#reader = reader;
    this.#endsAtTerminal = endsAtTerminal;
    // Readers of the same name are given the same after the same entry.
    const { run = "", follow = false, events = "" } = options;
    this.#name = JSON.stringify(["agent-stream", client.baseUrl, conversationId, run, follow, events, endsAtTerminal]);
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    const stop = { signal: this.#ended.signal };
    globalThis.document?.addEventListener("visibilitychange", () => this.#ask(), stop);
    globalThis.addEventListener?.("online", () => this.#ask(), stop);
  }

  async *events(locks) {
    locks.request(this.#name, { signal: this.#ended.signal }, () => this.#lead()).catch(() => {});
    this.#ask();
    for (;;) {
      if (yield* this.#readOwn()) return;
      if (yield* this.#listen()) return;
    }
  }

  close() {
    this.#ended.abort();
    this.#release();
    this.#channel.close();
  }

  #lead() {
    if (this.#ended.signal.aborted) return undefined;
    this.#leading = true;
    this.#notify();
    return new Promise((release) => (this.#release = release));
  }

  /** Reads over a connection of our own, for all if we lead, else until we are where the reading tab is. */
  async *#readOwn() {
    const controller = new AbortController();
    const { signal } = this.#reader;
    const abort = () => controller.abort(signal.reason);
    signal.addEventListener("abort", abort);
    const source = this.#open({
      signal: controller.signal,
      after: this.#cursor,
      onState: (state) => this.#tell(state),
      onActivity: () => this.#sayAlive(),
    });
    let next = source.next();
    try {
      for (;;) {
        const changed = new Promise((resolve) => (this.#notify = resolve));
        if (!this.#leading && this.#isLinked()) return false;
        const got = await Promise.race([next, changed]);
        if (got === undefined) continue;
        if (got.done) return true;
        const before = this.#place;
        this.#advance(got.value);
        if (this.#leading) this.#say({ before, event: got.value });
        yield got.value;
        next = source.next();
      }
    } finally {
      signal.removeEventListener("abort", abort);
      controller.abort();
      next.catch(() => {});
      source.return().catch(() => {});
    }
  }

  /** Takes what the reading tab gives, for as long as it follows on our place. */
  async *#listen() {
    this.#silentAt = Date.now() + SILENCE_MS;
    for (;;) {
      this.#reader.signal.throwIfAborted();
      if (this.#leading) return false;
      const changed = new Promise((resolve) => (this.#notify = resolve));
      const said = this.#waiting.shift();
      if (said === undefined) {
        if (Date.now() >= this.#silentAt) {
          this.#leaderPlace = undefined;
          return false;
        }
        await this.#patience(changed);
      } else if (said.before === this.#place) {
        this.#place = said.place;
        this.#cursor = said.event.id || undefined;
        yield said.event;
        if (this.#endsAtTerminal && (said.event.type === "done" || said.event.type === "error")) return true;
      } else if (this.#cursor === undefined || isAfter(said.event.id, this.#cursor) || said.place !== said.event.id) {
        this.#waiting.unshift(said);
        return false;
      }
    }
  }

  /** Waits for a change, or until the reading tab counts as silent. */
  async #patience(changed) {
    const { signal } = this.#reader;
    const timer = setTimeout(() => this.#notify(), this.#silentAt - Date.now());
    const abort = () => this.#notify();
    signal.addEventListener("abort", abort);
    await changed;
    signal.removeEventListener("abort", abort);
    clearTimeout(timer);
  }

  #isLinked() {
    const at = this.#waiting.findIndex(({ before }) => before === this.#place);
    if (at >= 0) this.#waiting.splice(0, at);
    else if (this.#leaderPlace === this.#place) this.#waiting = [];
    else return false;
    return true;
  }

  #advance({ type, id }) {
    if (id !== (this.#cursor ?? "")) this.#place = this.#cursor = id;
    // The cursor stayed, and something was told: only who heard it is here. (`run` each event says by itself.)
    else if (type !== "run") this.#place = unique();
  }

  #hear(said) {
    if (said.ask) return this.#leading ? this.#say({}) : undefined;
    this.#leaderPlace = said.place;
    this.#silentAt = Date.now() + SILENCE_MS;
    if (said.event && !this.#leading) {
      if (this.#waiting.push(said) > MAX_WAITING) this.#waiting.shift();
    } else if (!this.#leading && said.state !== this.#state && this.#place === said.place) {
      this.#tell(said.state);
    }
    this.#notify();
  }

  /** Asks the reading tab whether it is there: ours may have slept. */
  #ask() {
    if (this.#leading) return;
    this.#silentAt = Math.min(this.#silentAt, Date.now() + ANSWER_MS);
    this.#channel.postMessage({ ask: true });
    this.#notify();
  }

  #sayAlive() {
    if (this.#leading && Date.now() - this.#saidAt >= ALIVE_MS) this.#say({});
  }

  #say(said) {
    this.#saidAt = Date.now();
    this.#channel.postMessage({ ...said, place: this.#place, state: this.#state });
  }

  #tell(state) {
    this.#state = state;
    this.#reader.onState(state);
    if (this.#leading && !this.#ended.signal.aborted) this.#say({});
  }
}

/** A place that nobody else is at. */
const unique = () => `${Date.now()}-${Math.random()}~`;

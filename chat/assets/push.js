/**
 * A conversation as it is pushed. Pushes are a shortcut, the stream is the truth: each push names the entry before
 * it, and is taken only if this is the one that we have. Whenever it is not, or none come, the stream is read from
 * our entry on, until pushes follow on what it gave. Knows no SignalR and no page.
 */

/** Silence of the pushes, while an answer is due, after which one may have been lost. */
const STALL_MS = 5_000;
/** Silence of the stream after which it has given all that it holds. */
const QUIET_MS = 1_000;
/** How often silence is looked at. */
const TICK_MS = 1_000;
/** Pushes that wait until the stream has given what comes before them. What does not fit the stream gives. */
const MAX_WAITING = 1_000;
/** Names of events that an entry's type can't take (docs/protocol.md, 6.2). */
const OWN_EVENTS = new Set(["cancelled", "done", "error", "gap", "message", "run"]);

export class PushedReading {
  #hub;
  #openStream; // (after) → stream of all that comes after an entry
  #isAfter;
  #isAnswerDue;
  #reader;
  #cursor;
  #waiting = []; // Pushes that may follow on our entry, in the order they came.
  #pushedTo; // The last pushed entry: where the pushes stand.
  #heardAt = 0;
  #isSuspicious = false;
  #notify = () => {};

  constructor({ hub, openStream, isAfter, isAnswerDue, reader }) {
    Object.assign(hub, { onCall: (target, push) => this.#hear(target, push), onChange: () => this.#notify() });
    this.#hub = hub;
    this.#openStream = openStream;
    this.#isAfter = isAfter;
    this.#isAnswerDue = isAnswerDue;
    this.#reader = reader;
  }

  async *events() {
    const ended = new AbortController();
    const options = { signal: ended.signal };
    this.#reader.signal.addEventListener("abort", () => this.#notify(), options);
    const { document } = globalThis;
    document?.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#suspect(), options);
    // The network is another one.
    globalThis.addEventListener?.("online", () => this.#hub.reconnect(), options);
    this.#hub.start();
    try {
      for (;;) {
        if (yield* this.#readStream()) return;
        yield* this.#listen();
      }
    } finally {
      ended.abort();
      this.#hub.close();
    }
  }

  /** Reads the stream until pushes follow on what it gave. Tells whether there is nothing more. */
  async *#readStream() {
    const stream = this.#openStream(this.#cursor);
    let givenAt = Infinity;
    stream.addEventListener("state", () => {
      givenAt = stream.state === "open" ? Date.now() : Infinity;
      if (stream.state !== "closed") this.#reader.onState(stream.state);
    });
    const events = stream[Symbol.asyncIterator]();
    let next = events.next();
    try {
      for (;;) {
        this.#reader.signal.throwIfAborted();
        if (this.#isLinked(Date.now() - givenAt)) return false;
        const got = await this.#wait(next);
        if (got === undefined) continue;
        if (got.done) return true;
        givenAt = Date.now();
        this.#cursor = got.value.id || undefined;
        yield got.value;
        next = events.next();
      }
    } finally {
      next.catch(() => {});
      events.return().catch(() => {});
    }
  }

  /** Takes pushes for as long as each follows on the entry that we have. */
  async *#listen() {
    this.#isSuspicious = false;
    this.#heardAt = Date.now();
    this.#reader.onState("open");
    for (;;) {
      this.#reader.signal.throwIfAborted();
      const heard = this.#waiting.shift();
      if (heard === undefined) {
        if (!this.#hub.isConnected || this.#isSuspicious) return this.#forgetPlace();
        if (!this.#isAnswerDue()) this.#heardAt = Date.now();
        else if (Date.now() - this.#heardAt >= STALL_MS) {
          this.#hub.joinAgain();
          return this.#forgetPlace();
        }
        await this.#wait();
      } else if (heard.push.previousEntryId === this.#cursor) {
        this.#cursor = heard.push.entryId;
        this.#heardAt = Date.now();
        yield* eventsOf(heard);
      } else if (this.#isNews(heard)) {
        this.#waiting.unshift(heard);
        return undefined;
      }
    }
  }

  #hear(target, push) {
    this.#pushedTo = push.entryId;
    if (this.#waiting.push({ target, push }) > MAX_WAITING) this.#waiting.shift();
    this.#notify();
  }

  /** Whether we can go on by pushes alone: they stand where we do, or nothing is missing before the next one. */
  #isLinked(quietMs) {
    if (!this.#hub.isConnected) return false;
    while (this.#waiting.length > 0 && !this.#isNews(this.#waiting[0])) this.#waiting.shift();
    if (this.#waiting.length > 0) return this.#waiting[0].push.previousEntryId === this.#cursor;
    if (this.#pushedTo !== undefined && this.#pushedTo === this.#cursor) return true;
    return this.#hub.isJoined && quietMs >= QUIET_MS && !this.#isAnswerDue();
  }

  #isNews({ push }) {
    return this.#cursor === undefined || this.#isAfter(push.entryId, this.#cursor);
  }

  /** Only pushes from now on tell where the pushes stand: those before may have been the last. */
  #forgetPlace() {
    this.#pushedTo = undefined;
  }

  #suspect() {
    this.#isSuspicious = true;
    this.#notify();
  }

  /** Waits for what is given, a change, or the next look at the silence. */
  async #wait(next) {
    const changed = new Promise((resolve) => (this.#notify = resolve));
    const timer = setTimeout(this.#notify, TICK_MS);
    try {
      return await (next === undefined ? changed : Promise.race([next, changed]));
    } finally {
      clearTimeout(timer);
    }
  }
}

/** What the stream would have given in place of a push. */
function* eventsOf({ target, push }) {
  const { entryId: id, correlationId: run } = push;
  if (target === "agentMessage") {
    yield { type: "message", data: push.text.replace(/\r\n?/g, "\n"), id, run };
  } else if (target === "agentEvent") {
    yield { type: eventName(push.type), data: JSON.stringify(push.data), id, run };
  } else if (target === "agentError") {
    yield { type: "error", data: JSON.stringify({ code: push.code, message: push.error }), id, run };
  } else {
    if (push.status === "cancelled") {
      const data = JSON.stringify({ reason: "The run was cancelled." });
      yield { type: "cancelled", data, id: push.previousEntryId, run };
    }
    yield { type: "done", data: "[DONE]", id, run };
  }
}

function eventName(type) {
  const name = type.replace(/[^\p{L}\p{N}_.-]/gu, "") || "event";
  return OWN_EVENTS.has(name) ? `x-${name}` : name;
}

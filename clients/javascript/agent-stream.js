/**
 * Reads an agent's answer over any network: each chunk once, in order, to its end. For browsers and Node ≥ 20.
 *
 * `EventSource` semantics over `fetch`, so that keys and tokens travel in headers. The contract is
 * docs/protocol.md; how to use it is docs/clients.md.
 */

/** Silence after which a connection counts as dead: heartbeats come every 15 s, and two may be late. */
const STALL_MS = 40_000;
/** Silence that is suspicious when somebody comes back to look: one heartbeat and some seconds. */
const SUSPICIOUS_MS = 18_000;
/** How long an answer's head may take: the service waits 3 s for a conversation to appear. */
const CONNECT_MS = 20_000;
/** Until the service says otherwise (`retry:`). */
const RECONNECT_MS = 1_000;
/** The longest pause between two attempts, unless the service asks for a longer one. */
const LONGEST_PAUSE_MS = 30_000;
/** A longer `Retry-After` or `retry:` is cut to this: a typing error must not stop a reader for good. */
const LONGEST_ASKED_PAUSE_MS = 600_000;
/** A connection that lasted this long was a good one, whatever it brought. */
const GOOD_CONNECTION_MS = 10_000;
/** How long to go on without any success. */
const GIVE_UP_MS = 600_000;
/** A stream that was there and is unknown now is asked for again: a service whose Redis was emptied knows it soon. */
const UNKNOWN_MS = 20_000;
/** Characters of one event: far above the largest answer, far below what harms a page. */
const MAX_EVENT_CHARS = 64 * 1024 * 1024;
/** How often a refused request is tried. A `run` only at 429 and 503: then it was not started. */
const ATTEMPTS = 5;
/** Conversations that are remembered, each with its token and latest run: of more, the oldest are forgotten. */
const MAX_CONVERSATIONS = 10_000;
const RETRYABLE = [408, 429, 500, 502, 503, 504];

/** The base of all errors of this module. */
export class AgentStreamError extends Error {
  constructor(message, { code, status, conversationId, runId, cause, retryAfterMs } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    /** A stable word for programs: `agent_failed`, `token_expired` … (docs/protocol.md, 2.2 and 5.7). */
    this.code = code ?? "error";
    this.status = status;
    this.conversationId = conversationId;
    this.runId = runId;
    this.retryAfterMs = retryAfterMs;
    /** What there was of the answer; set by `text()`. */
    this.partialText = undefined;
  }
}
/** The run ended with an error: the agent failed, took too long, or was never started. */
export class RunFailedError extends AgentStreamError {}
/** The process that executed the run is gone, and nobody resumes it. */
export class RunInterruptedError extends RunFailedError {}
/** The stream was deleted or has expired before the run ended. */
export class StreamLostError extends AgentStreamError {}
/** Part of the answer is no longer retained. */
export class AnswerIncompleteError extends AgentStreamError {}
/** There is no such agent, conversation or run (any more). */
export class NotFoundError extends AgentStreamError {}
/** The key or token is missing, wrong, expired, or another conversation's. */
export class AccessDeniedError extends AgentStreamError {}
/** The service does not take the request as it is. */
export class RequestRefusedError extends AgentStreamError {}
/** The service could not be reached, or did not answer, for too long. */
export class ServiceUnavailableError extends AgentStreamError {}

/** An event stream's decoder, in the words of the HTML standard (9.2.5 and 9.2.6). Pure: bytes in, events out. */
export class EventStreamDecoder {
  #utf8 = new TextDecoder("utf-8"); // Takes a leading BOM away, and replaces what is no UTF-8.
  #line = ""; // The beginning of a line whose end has not come.
  #afterCR = false; // An LF that comes first belongs to the CR before it.
  #data = null; // The data buffer: its lines, or null while there is none.
  #type = ""; // The event type buffer.
  #hasId = false; // Whether the event names its entry itself.
  /** The last event ID buffer. */
  lastEventId = "";
  /** The reconnection time that the stream asked for, in milliseconds. */
  retry = undefined;

  /** Takes the next bytes; gives the events that they complete. An unfinished event is never given. */
  feed(bytes) {
    let text = this.#utf8.decode(bytes, { stream: true });
    if (this.#afterCR && text !== "") {
      this.#afterCR = false;
      if (text[0] === "\n") text = text.slice(1);
    }
    const events = [];
    const lines = text.split(/\r\n|\n|\r/);
    const rest = lines.pop();
    for (const line of lines) {
      this.#take(this.#line + line, events);
      this.#line = "";
    }
    this.#line += rest;
    if (text.endsWith("\r")) this.#afterCR = true;
    if (this.#line.length > MAX_EVENT_CHARS) throw new RangeError("an event of the stream is too large");
    return events;
  }

  #take(line, events) {
    if (line === "") return this.#dispatch(events);
    const colon = line.indexOf(":");
    if (colon === 0) return; // A comment.
    const field = colon < 0 ? line : line.slice(0, colon);
    const from = colon < 0 ? line.length : colon + (line[colon + 1] === " " ? 2 : 1);
    const value = line.slice(from);
    if (field === "data") (this.#data ??= []).push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) {
      this.lastEventId = value;
      this.#hasId = value !== "";
    }
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
  }

  #dispatch(events) {
    const event = { type: this.#type || "message", id: this.lastEventId, hasId: this.#hasId };
    if (this.#data !== null) events.push({ ...event, data: this.#data.join("\n") });
    this.#data = null;
    this.#type = "";
    this.#hasId = false;
  }
}

/** Whether an entry id comes after another; ids that are not Redis's only have to differ. */
export function isAfter(id, other) {
  const [a, b] = [/^(\d+)(?:-(\d+))?$/.exec(id), /^(\d+)(?:-(\d+))?$/.exec(other)];
  if (a === null || b === null) return id !== other;
  const first = BigInt(a[1]), second = BigInt(b[1]);
  return first === second ? BigInt(a[2] ?? 0) > BigInt(b[2] ?? 0) : first > second;
}

/** Drops what was given before; keeps the cursor and the current run. */
export class Deduplicator {
  /** What to read on after. Undefined before the first entry; null: from the start, wherever the read began. */
  cursor;
  run;
  #floor; // What does not come after this was given before.
  /** Whether the cursor is one that this read was given. */
  hasTaken = false;

  constructor(cursor) {
    this.cursor = this.#floor = cursor;
  }

  /** The event as a reader is to see it, or null if there is nothing new in it. */
  take(event) {
    if (event.type === "run") {
      const run = parse(event.data)?.run ?? undefined;
      if (run === this.run) return null;
      this.run = run;
    } else if (!event.hasId) {
      // A reset or gap of the reader's own: what follows may lie before the cursor (protocol, 4.8 and 4.9).
      if (event.type === "reset" || event.type === "gap") this.#floor = undefined;
    } else if (!isLost(event)) {
      if (this.#floor !== undefined && !isAfter(event.id, this.#floor)) return null;
      this.cursor = this.#floor = event.id;
      this.hasTaken = true;
    }
    return { type: event.type, data: event.data, id: this.cursor ?? "", run: this.run };
  }

  /** Stands at the beginning: the service no longer knows the cursor that it gave. The reset that says so. */
  forget() {
    this.cursor = null;
    this.#floor = undefined;
    this.hasTaken = false;
    const data = JSON.stringify({ reason: "the service no longer knows the cursor: all of it comes again" });
    return { type: "reset", data, id: "", run: this.run };
  }
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}

const isTerminal = (event) => event.type === "done" || event.type === "error";
const isLost = (event) => event.type === "error" && parse(event.data)?.code === "stream_lost";

/** The error that an `error` event stands for. */
export function errorOf(event, conversationId) {
  const { code = "agent_failed", message = "The run failed." } = parse(event.data) ?? {};
  const details = { code, conversationId, runId: event.run };
  if (code === "stream_lost") return new StreamLostError(message, details);
  if (code === "interrupted") return new RunInterruptedError(message, details);
  return new RunFailedError(message, details);
}

/** The error that an HTTP answer stands for. */
async function errorOfResponse(response, details) {
  const said = parse(await response.text().catch(() => "")) ?? {};
  const { status } = response;
  const message = typeof said.error === "string" ? said.error : `The service answered with status ${status}.`;
  const all = { ...details, code: said.code ?? `http_${status}`, status, retryAfterMs: retryAfter(response) };
  if (status === 401 || status === 403) return new AccessDeniedError(message, all);
  if (status === 404 || status === 410) return new NotFoundError(message, all);
  if ([408, 425, 429].includes(status) || status >= 500) return new ServiceUnavailableError(message, all);
  return new RequestRefusedError(message, all);
}

/** `Retry-After` in milliseconds: seconds, or a date. */
function retryAfter(response) {
  const value = response.headers.get("retry-after");
  if (value === null) return undefined;
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1_000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), LONGEST_ASKED_PAUSE_MS) : undefined;
}

/** Waits until the time has passed, somebody calls what `wakeable` is given, or the signal is aborted. */
function pause(ms, signal, wakeable) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    wakeable?.(end);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

/** Calls back when a page is looked at again, or (urgent) the network is another one. Gives what undoes it. */
function onWake(callback) {
  const page = globalThis.document;
  const targets = [
    [page, "visibilitychange", () => page.visibilityState === "visible" && callback(false)],
    [globalThis, "online", () => callback(true)],
    [globalThis, "pageshow", (event) => event.persisted && callback(true)],
  ].filter(([target]) => typeof target?.addEventListener === "function");
  for (const [target, type, listener] of targets) target.addEventListener(type, listener);
  return () => targets.forEach(([target, type, listener]) => target.removeEventListener(type, listener));
}

/** One read, over as many connections as it takes. Its events come once each, in order. */
class Reading {
  #open; // (cursor, signal) → Response
  #wasThere; // Whether the service has known the stream.
  #unknownSince;
  #options;
  #signal;
  #seen;
  #attempt = new AbortController(); // Ends the current connection.
  #woken = false;
  #wakePause;
  #lastByteAt = 0;
  #retryMs;
  #failures = 0;
  #failingSince;

  constructor(open, options, signal, after) {
    this.#open = open;
    this.#seen = new Deduplicator(after);
    this.#options = options;
    this.#signal = signal;
    this.#retryMs = options.reconnectMs;
    this.#wasThere = options.wasThere;
  }

  async *events() {
    const stopListening = onWake((urgent) => this.#wake(urgent));
    const abort = () => this.#attempt.abort();
    this.#signal.addEventListener("abort", abort);
    try {
      for (;;) {
        this.#signal.throwIfAborted();
        this.#attempt = new AbortController();
        this.#woken = false;
        this.#options.onState("connecting");
        const startedAt = (this.#lastByteAt = Date.now());
        const end = yield* this.#connection();
        this.#signal.throwIfAborted();
        if (end.over) return;
        if (end.opened && Date.now() - startedAt >= GOOD_CONNECTION_MS) this.#failures = 0;
        this.#count(end.error);
        // After a terminal only another answer tells whether more is to come.
        if (!end.atTerminal && !this.#woken) await this.#pause(end.error);
      }
    } finally {
      this.#signal.removeEventListener("abort", abort);
      stopListening();
      this.#attempt.abort();
    }
  }

  /** One connection: yields its new events, returns how it ended. Throws what no further attempt can cure. */
  async *#connection() {
    const attempt = this.#attempt;
    let body;
    try {
      const response = await this.#watched(CONNECT_MS, () => this.#open(this.#seen.cursor, attempt.signal));
      if (response.status === 204) return { over: true };
      if (response.status !== 200) throw await errorOfResponse(response, this.#options.details);
      if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
        // A sign-in page of the network, say: it passes.
        throw new ServiceUnavailableError("The answer is no event stream.", this.#options.details);
      }
      body = response.body.getReader();
    } catch (error) {
      if (error.code === "invalid_cursor" && this.#seen.hasTaken) yield this.#seen.forget();
      else if (error instanceof AgentStreamError && !this.#passes(error)) throw error;
      return { error };
    }
    this.#wasThere = true;
    this.#unknownSince = undefined;
    this.#options.onState("open");
    const decoder = new EventStreamDecoder();
    let atTerminal = false;
    for (;;) {
      let events;
      try {
        const { done, value } = await this.#watched(this.#options.stallMs, () => body.read());
        if (done) return { opened: true, atTerminal };
        events = decoder.feed(value);
      } catch (error) {
        return { opened: true, atTerminal, error };
      }
      this.#lastByteAt = Date.now();
      this.#options.onActivity();
      if (decoder.retry !== undefined) this.#retryMs = Math.min(decoder.retry, LONGEST_ASKED_PAUSE_MS);
      for (const event of events) {
        const shown = this.#seen.take(event);
        if (shown === null) continue;
        this.#failures = 0;
        atTerminal = isTerminal(shown);
        yield shown;
        if (isTerminal(shown) && (this.#options.endsAtTerminal || isLost(shown))) return { over: true };
      }
    }
  }

  /** Whether a refusal may be another one later. */
  #passes(error) {
    if (!(error instanceof NotFoundError)) return error instanceof ServiceUnavailableError;
    this.#unknownSince ??= Date.now();
    return this.#wasThere && Date.now() - this.#unknownSince < Math.min(UNKNOWN_MS, this.#options.giveUpMs / 2);
  }

  /** Waits for the network, but not for ever: then the connection is given up. */
  async #watched(ms, wait) {
    const attempt = this.#attempt;
    const timer = setTimeout(() => this.#wake(true), ms);
    try {
      return await wait();
    } finally {
      clearTimeout(timer);
    }
  }

  /** Looks at once whether the network is there: ends a pause, and a connection that may be dead. */
  #wake(urgent) {
    this.#wakePause?.();
    if (urgent || Date.now() - this.#lastByteAt > SUSPICIOUS_MS) {
      this.#woken = true;
      this.#attempt.abort();
    }
  }

  /** Counts an attempt that brought nothing; gives up when nothing did for too long. */
  #count(error) {
    this.#failures += 1;
    if (this.#failures === 1) this.#failingSince = Date.now();
    if (Date.now() - this.#failingSince > this.#options.giveUpMs) {
      if (error instanceof AgentStreamError) throw error;
      throw new ServiceUnavailableError("The service could not be reached for too long.", {
        ...this.#options.details, code: "unreachable", cause: error,
      });
    }
  }

  async #pause(error) {
    this.#options.onState("waiting");
    const backoff = Math.min(this.#retryMs * 2 ** (this.#failures - 1), Math.max(LONGEST_PAUSE_MS, this.#retryMs));
    const ms = (error?.retryAfterMs ?? 0) + backoff * (0.75 + Math.random() / 2);
    await pause(ms, this.#signal, (wake) => (this.#wakePause = wake));
    this.#wakePause = undefined;
  }
}

/**
 * A stream of events. Read it in one of two ways: `for await (const event of stream)`, or
 * `stream.addEventListener("message", …)`. It reads when it is first asked to.
 */
export class AgentStream extends EventTarget {
  /** `idle`, `connecting`, `open`, `waiting` (for the next attempt) or `closed`. */
  state = "idle";
  /** The cursor: the id of the last entry that was given. */
  lastEventId = "";
  #events; // ({ signal, onState }) → async iterator of events
  #conversationId;
  #endsAtTerminal;
  #controller = new AbortController();
  #begun = false;
  #closed = false;

  constructor(events, { conversationId, endsAtTerminal = true, signal } = {}) {
    super();
    this.#events = events;
    this.#conversationId = conversationId;
    this.#endsAtTerminal = endsAtTerminal;
    if (signal?.aborted) this.#controller.abort(signal.reason);
    signal?.addEventListener("abort", () => this.#controller.abort(signal.reason), {
      once: true, signal: this.#controller.signal,
    });
  }

  /** Ends reading. The run goes on: only `cancel()` stops it. */
  close() {
    this.#closed = true;
    this.#controller.abort();
  }

  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
    if (!this.#begun && type !== "state") {
      const reading = this[Symbol.asyncIterator]();
      // Not before the caller has added its other listeners.
      queueMicrotask(() => this.#dispatchAll(reading));
    }
  }

  [Symbol.asyncIterator]() {
    if (this.#begun) throw new TypeError("This stream is being read already: a second reader needs its own.");
    this.#begun = true;
    const events = this.#read();
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: () => events.next(),
      return: () => {
        this.close(); // Else it would wait for the next event first.
        return events.return();
      },
    };
  }

  async *#read() {
    const { signal } = this.#controller;
    try {
      for await (const event of this.#events({ signal, onState: (state) => this.#tell(state) })) {
        this.lastEventId = event.id;
        const failed = event.type === "error" && (this.#endsAtTerminal || isLost(event));
        if (failed) throw errorOf(event, this.#conversationId);
        yield event;
      }
    } catch (error) {
      if (!this.#closed) throw signal.aborted ? signal.reason : error;
    } finally {
      this.#controller.abort();
      this.#tell("closed");
    }
  }

  async #dispatchAll(reading) {
    let end = new Event("close");
    try {
      for await (const { type, data, id, run } of reading) {
        const event = new MessageEvent(type, { data, lastEventId: id });
        const error = type === "error" ? errorOf({ data, run }, this.#conversationId) : undefined;
        this.dispatchEvent(Object.assign(event, { run, error }));
      }
    } catch (error) {
      this.dispatchEvent(Object.assign(new Event("error"), { error }));
      end = Object.assign(end, { error });
    }
    this.dispatchEvent(end);
  }

  #tell(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}

/** Speaks with one service. */
export class StreamClient {
  /** Without a slash at its end. */
  baseUrl;
  #options;
  #tokens = new Map(); // The newest token of each conversation.
  #started = new Map(); // The run that this client has started last in each conversation.

  /** `baseUrl`: where the service is, as in `https://agents.example.com`. "": the page's own origin. */
  constructor(baseUrl, options = {}) {
    this.baseUrl = String(baseUrl).replace(/\/*$/, "");
    this.#options = { stallMs: STALL_MS, reconnectMs: RECONNECT_MS, giveUpMs: GIVE_UP_MS, ...options };
  }

  /**
   * Reads a conversation's stream: without more its latest run, from the start of its answer to its end.
   * An answer that ends with an error throws, unless later runs are read too (`follow`, or cursor `0`).
   */
  stream(conversationId, { signal, ...options } = {}) {
    const read = (how) => this.read(conversationId, options, how);
    return new AgentStream(read, { conversationId, endsAtTerminal: !readsAllRuns(options), signal });
  }

  /** The events of `stream()` as they are, for streams of one's own. `after`: an entry that was given before. */
  read(conversationId, { cursor, run, follow = false, events }, { signal, onState, onActivity, after }) {
    const query = new URLSearchParams();
    if (run !== undefined) query.set("run", run);
    if (follow) query.set("follow", "true");
    if (events !== undefined) query.set("events", events);
    const open = (lastEventId, attemptSignal) => {
      if (cursor !== undefined && lastEventId !== null) query.set("cursor", cursor);
      else query.delete("cursor");
      const path = `/api/agent/stream/${encodeURIComponent(conversationId)}${query.size ? `?${query}` : ""}`;
      const headers = { accept: "text/event-stream" };
      if (lastEventId) headers["last-event-id"] = lastEventId;
      return this.#fetch(path, { headers, cache: "no-store", signal: attemptSignal }, conversationId);
    };
    const started = this.#started.get(conversationId);
    const options = {
      ...this.#options,
      wasThere: started !== undefined && (run === undefined || run === started),
      details: { conversationId, runId: run },
      endsAtTerminal: !readsAllRuns({ cursor, run, follow }),
      onState,
      onActivity: onActivity ?? (() => {}),
    };
    return new Reading(open, options, signal, after).events();
  }

  /** The whole answer of a run (without `run`: of the latest one), once it has ended; right over resets. */
  async text(conversationId, { run, signal } = {}) {
    let pieces = [], hasGap = false;
    try {
      for await (const event of this.stream(conversationId, { run, signal })) {
        if (event.type === "message") pieces.push(event.data);
        else if (event.type === "gap") hasGap = true;
        else if (event.type === "reset") [pieces, hasGap] = [[], false];
      }
      if (hasGap) {
        const details = { code: "gap", conversationId, runId: run };
        throw new AnswerIncompleteError("Part of the answer is no longer retained.", details);
      }
    } catch (error) {
      if (error instanceof AgentStreamError) error.partialText = pieces.join("");
      throw error;
    }
    return pieces.join("");
  }

  /** Starts a run, in a new conversation or in the one that is named. Does not wait for its answer. */
  async run(agent, message, { conversationId, signal, ...more } = {}) {
    const body = { ...more, message, wait_for_response: false };
    if (conversationId !== undefined) body.conversation_id = conversationId;
    const init = {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
    };
    const said = await this.#json(`${agentPath(agent)}/run`, init, conversationId, [429, 503]);
    remember(this.#tokens, said.conversation_id, said.stream_token);
    remember(this.#started, said.conversation_id, said.correlation_id);
    return {
      conversationId: said.conversation_id,
      runId: said.correlation_id,
      streamToken: said.stream_token,
      streamTokenExpiresAt: said.stream_token_expires_at,
    };
  }

  /** Where a run stands (without `run`: the latest one), as the service reports it. */
  status(agent, conversationId, { run, signal } = {}) {
    return this.#json(runPath(agent, conversationId, run), { signal }, conversationId, RETRYABLE);
  }

  /** Stops a run (without `run`: the latest one). What it has said stays. */
  cancel(agent, conversationId, { run, signal } = {}) {
    const init = { method: "DELETE", signal };
    return this.#json(runPath(agent, conversationId, run), init, conversationId, RETRYABLE);
  }

  /** Which agents there are, and how the service is. */
  health({ signal } = {}) {
    return this.#json("/api/health", { signal }, undefined, []);
  }

  /** A conversation before its first run: its id, and the token that lets its bearer join its pushes. */
  async createConversation({ signal } = {}) {
    const init = { method: "POST", signal };
    const said = await this.#json("/api/agent/create-thread", init, undefined, [429, 503]);
    remember(this.#tokens, said.conversation_id, said.stream_token);
    return {
      conversationId: said.conversation_id,
      streamToken: said.stream_token,
      streamTokenExpiresAt: said.stream_token_expires_at,
    };
  }

  /** Where to connect for pushes, and what lets us in there. With a `userToken` of before: as the same user. */
  negotiate(conversationId, { userToken, signal } = {}) {
    const headers = userToken ? { "x-user-token": userToken } : {};
    return this.#json("/api/agent/negotiate", { method: "POST", headers, signal }, conversationId, []);
  }

  /** Has a user told of a conversation: all of its connections, also those to come. */
  async join(conversationId, { userToken, signal } = {}) {
    const headers = { "content-type": "application/json", "x-user-token": userToken };
    const init = { method: "POST", headers, body: JSON.stringify({ group: conversationId }), signal };
    await this.#json("/api/agent/join-group", init, conversationId, []);
  }

  async #json(path, init, conversationId, retried) {
    const details = { conversationId };
    for (let attempt = 1; ; attempt += 1) {
      init.signal?.throwIfAborted();
      let response;
      try {
        const limit = AbortSignal.timeout(CONNECT_MS);
        const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
        response = await this.#fetch(path, { ...init, cache: "no-store", signal }, conversationId);
        if (response.ok) return await response.json();
      } catch (error) {
        if (init.signal?.aborted) throw init.signal.reason;
        if (error instanceof AgentStreamError) throw error;
        const all = { ...details, code: "unreachable", cause: error };
        throw new ServiceUnavailableError("The service could not be reached.", all);
      }
      const error = await errorOfResponse(response, details);
      if (!retried.includes(response.status) || attempt >= ATTEMPTS) throw error;
      await pause((error.retryAfterMs ?? this.#options.reconnectMs) * (1 + Math.random() / 2), init.signal);
    }
  }

  async #fetch(path, init, conversationId) {
    const fetch = this.#options.fetch ?? globalThis.fetch;
    for (let refresh = false; ; refresh = true) {
      const headers = { ...this.#options.headers, ...init.headers };
      if (this.#options.apiKey) headers["x-functions-key"] = this.#options.apiKey;
      const token = await this.#token(conversationId, refresh);
      if (token) headers["x-stream-token"] = token;
      const response = await fetch(this.baseUrl + path, { ...init, headers });
      const isRefreshable = response.status === 401 && typeof this.#options.token === "function";
      if (!isRefreshable || refresh) return response;
      await response.body?.cancel();
    }
  }

  /** A conversation's token: what `run` brought, or what the caller gave (a token, or a function that gets one). */
  async #token(conversationId, refresh) {
    const { token } = this.#options;
    const known = refresh ? undefined : this.#tokens.get(conversationId);
    if (known !== undefined || typeof token !== "function") return known ?? token;
    const fresh = await token(conversationId, { refresh });
    if (conversationId !== undefined) remember(this.#tokens, conversationId, fresh);
    return fresh;
  }
}

/** Keeps a value that there is, as the newest. */
function remember(map, key, value) {
  if (!value) return;
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_CONVERSATIONS) map.delete(map.keys().next().value);
}

/** Whether a read goes on after a run's end. */
export const readsAllRuns = ({ cursor, run, follow = false }) =>
  follow || ((cursor === "0" || cursor === "0-0") && run === undefined);

const agentPath = (agent) => `/api/agents/${encodeURIComponent(agent)}`;

function runPath(agent, conversationId, run) {
  const path = `${agentPath(agent)}/run/${encodeURIComponent(conversationId)}`;
  return run === undefined ? path : `${path}?run=${encodeURIComponent(run)}`;
}

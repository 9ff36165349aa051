/**
 * A connection to the SignalR service: made, joined to one conversation, and made again for as long as it is wanted.
 * What it hears goes to `onCall(target, push)`; `onChange()` is told when `isConnected` or `isJoined` have changed.
 */

import { AccessDeniedError, NotFoundError, RequestRefusedError } from "./agent-stream.js";

/** How long connecting may take. */
const CONNECT_MS = 20_000;
/** Between attempts; it doubles. */
const PAUSE_MS = 500;
/** The longest pause: SignalR is away, and the stream is read meanwhile. */
const LONGEST_PAUSE_MS = 60_000;
const TARGETS = ["agentMessage", "agentEvent", "agentDone", "agentError"];

export class Hub {
  isConnected = false;
  isJoined = false;
  onCall = () => {};
  onChange = () => {};
  #client;
  #conversationId;
  #session; // Keeps our `userToken`: who we are, each time we connect.
  #onPush;
  #ended = new AbortController();
  #drop = () => {}; // Ends the current connection, or the pause before the next.
  #failures = 0;

  constructor(client, conversationId, { session, onPush }) {
    this.#client = client;
    this.#conversationId = conversationId;
    this.#session = session;
    this.#onPush = onPush;
  }

  async start() {
    while (!this.#ended.signal.aborted) {
      this.#onPush("connecting");
      const failure = await this.#serve().catch((error) => error);
      this.#change({ isConnected: false, isJoined: false });
      if (this.#ended.signal.aborted) return;
      if (isFinal(failure)) return this.#onPush("refused");
      if (this.#isAway(failure)) this.#onPush("unavailable");
      await this.#pause(failure?.retryAfterMs ?? 0);
    }
  }

  /** Connects anew, at once. */
  reconnect() {
    this.#failures = 0;
    this.#drop();
  }

  /** The service may have forgotten us. */
  joinAgain() {
    this.#join().catch(() => this.#drop());
  }

  close() {
    this.#ended.abort();
    this.#drop();
  }

  /** One connection, from its beginning to its end. */
  async #serve() {
    const dropped = new Promise((resolve) => (this.#drop = resolve));
    this.#failures += 1;
    const { url, accessToken } = await this.#negotiate();
    const signalR = await vendorsClient();
    // Ours, not the vendor's way of coming back: each connection has a new token, and no key goes to the service.
    const connection = new signalR.HubConnectionBuilder()
      .withUrl(url, { accessTokenFactory: () => accessToken })
      .configureLogging(signalR.LogLevel.None)
      .build();
    for (const target of TARGETS) connection.on(target, (push) => this.#hear(target, push));
    const closed = new Promise((resolve) => connection.onclose(resolve));
    const timer = setTimeout(() => this.#drop(new Error("Connecting took too long.")), CONNECT_MS);
    try {
      const connected = connection.start().then(() => true);
      connected.catch(() => {});
      const first = await Promise.race([connected, dropped]);
      if (first !== true) return first;
      this.#change({ isConnected: true });
      await this.#join();
      clearTimeout(timer);
      this.#failures = 0;
      await Promise.race([closed, dropped]);
      return undefined;
    } finally {
      clearTimeout(timer);
      connection.stop().catch(() => {});
    }
  }

  async #negotiate() {
    const { userToken } = this.#session;
    const ask = (token) => this.#client.negotiate(this.#conversationId, { userToken: token, signal: this.#ended.signal });
    let answer;
    try {
      answer = await ask(userToken);
    } catch (error) {
      if (!userToken || !(error instanceof AccessDeniedError)) throw error;
      answer = await ask(); // It has expired: we are a new user, who joins anew.
    }
    this.#session.userToken = answer.userToken;
    return answer;
  }

  async #join() {
    const { userToken } = this.#session;
    await this.#client.join(this.#conversationId, { userToken, signal: this.#ended.signal });
    if (!this.isConnected) return;
    this.#change({ isJoined: true });
    this.#onPush("joined");
  }

  #hear(target, push) {
    // We are told of every conversation that we have joined.
    if (push.conversationId === this.#conversationId) this.onCall(target, push);
  }

  #change(to) {
    Object.assign(this, to);
    this.onChange();
  }

  /** Whether it is SignalR that is not there, and not by accident. Whether our own service is, the stream tells. */
  #isAway(failure) {
    if (failure === undefined || failure.code === "unreachable") return false;
    return failure.code === "push_unavailable" || this.#failures > 1;
  }

  async #pause(askedMs) {
    const doubled = PAUSE_MS * 2 ** Math.max(this.#failures - 1, 0);
    const ms = askedMs + Math.min(doubled, LONGEST_PAUSE_MS) * (0.75 + Math.random() / 2);
    await new Promise((resolve) => {
      this.#drop = resolve;
      setTimeout(resolve, ms);
    });
  }
}

/** Whether trying again is in vain: until there is a key, another token or another conversation. */
const isFinal = (error) => [AccessDeniedError, NotFoundError, RequestRefusedError].some((kind) => error instanceof kind);

/** Loaded when it is needed first. It is no module: it leaves a global. */
async function vendorsClient() {
  await import("./signalr.js");
  return globalThis.signalR;
}

/**
 * What a tab remembers: its key, its choice of a transport, as whom it is pushed to, and of each conversation the
 * user's messages and its token. In sessionStorage only, so that closing the tab forgets it; a second tab on the same conversation is handed it by the first.
 */

const KEY = "agent-chat:key";
const TRANSPORT = "agent-chat:transport";
const USER = "agent-chat:user";
const of = (conversation) => `agent-chat:conversation:${conversation}`;
/** How long to wait for another tab that knows a conversation. */
const HANDOVER_MS = 400;

export class Session {
  /** Called with (conversation, known) when another tab has news. */
  onNews = () => {};
  #channel = typeof BroadcastChannel === "function" ? new BroadcastChannel("agent-chat") : null;
  #waiting = new Map();

  constructor() {
    this.#channel?.addEventListener("message", ({ data }) => this.#hear(data));
  }

  get key() {
    return read(KEY) ?? undefined;
  }

  set key(key) {
    if (key) write(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  get transport() {
    return read(TRANSPORT) ?? undefined;
  }

  set transport(transport) {
    write(TRANSPORT, transport);
  }

  /** What makes us the same user of the push service over a reload. */
  get userToken() {
    return read(USER) ?? undefined;
  }

  set userToken(token) {
    write(USER, token);
  }

  /** What is known of a conversation: `{turns: [{run, message, stopped}], token}`. */
  known(conversation) {
    return read(of(conversation)) ?? { turns: [], token: undefined };
  }

  remember(conversation, { turn, token }) {
    const known = this.known(conversation);
    if (turn) merge(known.turns, turn);
    if (token) known.token = token;
    write(of(conversation), known);
    this.#channel?.postMessage({ kind: "known", conversation, known });
  }

  /** Asks the other tabs for a conversation that this one does not know. */
  async handedOver(conversation) {
    const known = this.known(conversation);
    if (known.turns.length > 0 || this.#channel === null) return known;
    this.#channel.postMessage({ kind: "who", conversation });
    await new Promise((resolve) => {
      this.#waiting.set(conversation, resolve);
      setTimeout(resolve, HANDOVER_MS);
    });
    this.#waiting.delete(conversation);
    return this.known(conversation);
  }

  #hear({ kind, conversation, known, key }) {
    if (kind === "who") {
      const ours = this.known(conversation);
      if (ours.turns.length > 0) this.#channel.postMessage({ kind: "known", conversation, known: ours, key: this.key });
      return;
    }
    const isAwaited = this.#waiting.has(conversation);
    if (!isAwaited && sessionStorage.getItem(of(conversation)) === null) return;
    const ours = this.known(conversation);
    for (const turn of known.turns) merge(ours.turns, turn);
    ours.token = known.token ?? ours.token;
    write(of(conversation), ours);
    if (key && !this.key) this.key = key;
    this.#waiting.get(conversation)?.();
    this.onNews(conversation, ours);
  }
}

function merge(turns, turn) {
  const same = turns.find(({ run }) => run === turn.run);
  if (same) Object.assign(same, turn);
  else turns.push(turn);
}

function read(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

function write(name, value) {
  try {
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // Full or forbidden: this page goes on without a memory.
  }
}

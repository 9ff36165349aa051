// Follows one conversation: pushes by SignalR, and the stream itself wherever a push was missed.
export class Follower {
  // `saved` may hold the run and cursor of an earlier visit. `on` has any of text, event, reset, end, state.
  constructor({ signalR, base, threadId, streamToken, userToken, on, saved = {} }) {
    Object.assign(this, { base, threadId, streamToken, userToken, on });
    this.run = saved.run ?? "";
    this.cursor = saved.cursor ?? "";
    this.ended = true;
    this.heardAt = Date.now();
    // It asks /api/agent/negotiate anew for each connection, so no token is ever too old.
    this.connection = new signalR.HubConnectionBuilder()
      .withUrl(`${base}/api/agent?token=${encodeURIComponent(streamToken)}`, {
        accessTokenFactory: () => this.userToken,
      })
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 500 })
      .configureLogging(signalR.LogLevel.None)
      .build();
    for (const target of ["agentMessage", "agentEvent", "agentDone", "agentError"]) {
      this.connection.on(target, (push) => this.#take(target, push));
    }
    this.connection.onreconnected(() => this.#changed("connected"));
    this.connection.onreconnecting(() => this.#changed("reconnecting"));
  }

  // Connects, and joins: from then on every connection of this user is told of the conversation.
  async start() {
    await this.connection.start();
    const headers = { "x-user-token": this.userToken, "x-stream-token": this.streamToken };
    const response = await fetch(`${this.base}/api/agent/join-group`, {
      method: "POST", headers, body: JSON.stringify({ group: this.threadId }),
    });
    if (!response.ok) throw new Error((await response.json()).error);
    this.stall = setInterval(() => {
      if (!this.ended && Date.now() - this.heardAt > 5000) this.#catchUp();
    }, 1000);
    this.#changed("connected");
  }

  async stop() {
    clearInterval(this.stall);
    this.reading?.abort();
    await this.connection.stop();
  }

  // A run has been started, or is going on: its correlation_id.
  expect(run) {
    if (run !== this.run) Object.assign(this, { run, cursor: "" });
    this.ended = false;
    this.heardAt = Date.now();
  }

  #changed(state) {
    this.on.state?.(state, this.connection.connectionId);
    if (state === "connected" && !this.ended) this.#catchUp();
  }

  #take(target, push) {
    if (push.conversationId !== this.threadId) return;
    if (push.correlationId !== this.run) this.expect(push.correlationId);
    if (!isAfter(push.entryId, this.cursor)) return; // it is here already
    if (push.previousEntryId !== this.cursor) return this.#catchUp(); // something is missing before it
    this.reading?.abort(); // nothing is missing (any more)
    this.#apply(push.entryId, target, push);
  }

  #apply(id, target, { text, type, data, status, code, error }) {
    this.cursor = id;
    this.heardAt = Date.now();
    if (target === "agentMessage") this.on.text?.(text);
    else if (target === "agentEvent" && type === "reset") this.on.reset?.();
    else if (target === "agentEvent") this.on.event?.(type, data);
    else {
      this.ended = true;
      this.on.end?.({ status, code, error });
    }
  }

  // Reads the stream from the cursor, until a push fits or the run has ended.
  async #catchUp() {
    if (this.reading || this.ended) return;
    const reading = (this.reading = new AbortController());
    const query = new URLSearchParams({ run: this.run, cursor: this.cursor, events: "all", token: this.streamToken });
    try {
      const url = `${this.base}/api/agent/stream/${this.threadId}?${query}`;
      const response = await fetch(url, { headers: { accept: "text/event-stream" }, signal: reading.signal });
      if (response.status === 200) {
        for await (const event of events(response.body)) {
          if (reading.signal.aborted) break;
          this.#applyEvent(event);
        }
      }
    } catch {
      // Cut, or no longer needed: the next push or the stall timer comes back to it.
    } finally {
      this.reading = undefined;
    }
  }

  #applyEvent({ id, event, data }) {
    if (!id && event === "reset") return this.on.reset?.(); // the answer comes again; the cursor stays
    if (!id || !isAfter(id, this.cursor)) return;
    if (event === "message") this.#apply(id, "agentMessage", { text: data });
    else if (event === "done") this.#apply(id, "agentDone", { status: "completed" });
    else if (event === "error") this.#apply(id, "agentError", withError(JSON.parse(data)));
    else this.#apply(id, "agentEvent", { type: event, data: JSON.parse(data) });
  }
}

const withError = ({ code, message }) => ({ code, error: message, status: "failed" });

// Whether one entry id comes after another: two numbers each, which may be too large for a double.
function isAfter(id, other) {
  const [a, b] = [id, other || "0-0"].map((each) => each.split("-").map(BigInt));
  return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
}

// Server-sent events of a body. A line of an unfinished event waits for the rest.
async function* events(body) {
  const decoder = new TextDecoder();
  let rest = "";
  const reader = body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { event: "message", data: [] };
      for (const line of block.split("\n")) {
        const [, field, content] = /^(\w+): ?(.*)$/s.exec(line) ?? [];
        if (field === "data") event.data.push(content);
        else if (field) event[field] = content;
      }
      if (event.data.length) yield { ...event, data: event.data.join("\n") };
    }
  }
}

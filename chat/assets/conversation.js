/** A conversation as turns: what the user said, and what the stream's events make of its answer. Knows no page. */

/** States that a turn does not leave. */
const ENDED = new Set(["done", "stopped", "failed"]);

export class Conversation {
  /** `{run, message, state, parts, error, stopped}`; parts are `{kind: "text" | "reasoning" | "tool" | "gap", …}`. */
  turns = [];

  /** A message that is on its way; its run is known when the service has taken it. */
  ask(message) {
    const turn = newTurn({ message, state: "sending" });
    this.turns.push(turn);
    return turn;
  }

  /** The service has taken a turn's message. */
  taken(turn, run) {
    const other = this.turns.find((each) => each !== turn && each.run === run);
    if (turn.run !== undefined && turn.run !== run) {
      // Another tab's run came first, and was taken for this turn's.
      const theirs = newTurn({ ...turn, message: null });
      this.turns.splice(this.turns.indexOf(turn), 0, theirs);
      Object.assign(turn, newTurn({ message: turn.message }));
    }
    if (other) {
      Object.assign(turn, other, { message: turn.message });
      this.turns.splice(this.turns.indexOf(other), 1);
    }
    turn.run = run;
    if (turn.state === "sending" || turn.state === "unsent") turn.state = "waiting";
  }

  /** What this or another tab remembers of a turn. */
  recall({ run, message, stopped }) {
    const turn = this.find(run);
    if (turn === undefined) {
      const before = this.turns.findLastIndex((each) => each.state !== "sending" && each.state !== "unsent");
      this.turns.splice(before + 1, 0, newTurn({ run, message, stopped, state: "waiting" }));
      return;
    }
    turn.message ??= message;
    turn.stopped ||= stopped;
    if (turn.stopped && turn.state === "done") turn.state = "stopped";
  }

  /** The stream is read from its start once more: what it gives takes the place of what is there. */
  expectAgain() {
    for (const turn of this.turns) turn.stale = turn.run !== undefined;
  }

  find(run) {
    return this.turns.find((turn) => turn.run === run);
  }

  get current() {
    return this.turns.at(-1);
  }

  /** Takes an event of the stream; gives the turn that it changed. */
  apply({ type, data, run }) {
    const turn = this.#turnOf(run ?? null);
    if (type === "run") return turn;
    if (turn.stale) Object.assign(turn, { parts: [], error: undefined, state: "running", stale: false });
    if (ENDED.has(turn.state) && type !== "reset") return turn; // Nothing of a run comes after its end.
    if (turn.state !== "stopping") turn.state = "running";
    this.#take(turn, type, data);
    return turn;
  }

  /** An answer that the stream no longer has, as the service reports it. */
  restore(turn, { status, response, error }) {
    if (status === "Pending" || status === "Running" || status === "Canceling") return;
    turn.parts = response ? [{ kind: "text", text: response }] : [];
    turn.stale = true;
    turn.error = error;
    turn.state = { Completed: "done", Canceled: "stopped" }[status] ?? "failed";
  }

  #turnOf(run) {
    // Runs without an id come one after the other.
    const isIt = (turn) => turn.run === run && (run !== null || turn.stale || !ENDED.has(turn.state));
    const known = this.turns.find(isIt);
    if (known) return known;
    // The stream may be faster than the answer to the request that started the run.
    const sent = this.turns.find((turn) => turn.run === undefined && turn.state === "sending");
    if (sent) return Object.assign(sent, { run, state: "waiting" });
    const turn = newTurn({ run, message: null });
    const waiting = this.turns.findIndex((each) => each.run === undefined);
    this.turns.splice(waiting < 0 ? this.turns.length : waiting, 0, turn);
    return turn;
  }

  #take(turn, type, data) {
    switch (type) {
      case "message":
        return append(turn, "text", data);
      case "reasoning":
        return append(turn, "reasoning", parse(data).text ?? "");
      case "tool_call": {
        const { call_id: id, name = "tool", arguments: given = "" } = parse(data);
        return turn.parts.push({ kind: "tool", id, name, given, result: undefined });
      }
      case "tool_result": {
        const { call_id: id, result } = parse(data);
        const call = turn.parts.findLast((part) => part.kind === "tool" && part.id === id);
        if (call) call.result = typeof result === "string" ? result : JSON.stringify(result, null, 2) ?? "";
        return undefined;
      }
      case "reset":
        return Object.assign(turn, { parts: [], error: undefined, state: "running" });
      case "gap":
        return turn.parts.push({ kind: "gap" });
      case "cancelled":
        turn.stopped = true;
        return undefined;
      case "done":
        turn.state = turn.stopped || turn.state === "stopping" ? "stopped" : "done";
        return undefined;
      case "error":
        return Object.assign(turn, { state: "failed", error: parse(data).message ?? "The run failed." });
      default:
        return undefined; // Types that this page does not know.
    }
  }
}

const newTurn = (more) => ({ run: undefined, message: null, state: "waiting", parts: [], ...more });

function append(turn, kind, text) {
  const last = turn.parts.at(-1);
  if (last?.kind === kind) last.text += text;
  else if (text !== "") turn.parts.push({ kind, text });
}

function parse(json) {
  try {
    return JSON.parse(json) ?? {};
  } catch {
    return {};
  }
}

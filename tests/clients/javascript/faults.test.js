/** What the client gives over a line that breaks: always exactly the answer (docs/protocol.md, 4, 5.5, 5.7, 6). */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as api from "../../../clients/javascript/agent-stream.js";
import { bodyAfter, encode, ENTRIES, sendCut, SSE, startServer, TEXT } from "./fault-server.js";

const QUICK = { reconnectMs: 1, stallMs: 2_000 };
const ID = "conversation";

/** Runs `use` with a client of a server that answers so. */
async function withServer(answer, use, options = {}) {
  const server = await startServer(answer);
  try {
    return await use(new api.StreamClient(server.url, { ...QUICK, ...options }), server);
  } finally {
    await server.stop();
  }
}
const whole = (response, cursor) => sendCut(response, bodyAfter(cursor), Infinity);
const json = (response, status, said, headers = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(said));
};
async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}
const isExpected = (events) => assert.deepEqual(events.map(({ id, type, data }) => [id, type, data]), ENTRIES);

for (const reset of [false, true]) {
  test(`cut after any byte (${reset ? "reset" : "closed"}), each event comes once`, async () => {
    const size = bodyAfter().length;
    const answer = (request, response, cursor) => {
      const cut = Number(/cut-(\d+)/.exec(request.url)[1]);
      if (broken.has(cut)) return whole(response, cursor);
      broken.add(cut);
      return sendCut(response, bodyAfter(cursor), cut, { reset });
    };
    const broken = new Set();
    await withServer(answer, async (client) => {
      const cuts = Array.from({ length: size + 1 }, (_, cut) => cut);
      const worker = async () => {
        for (let cut; (cut = cuts.pop()) !== undefined; ) isExpected(await collect(client.stream(`cut-${cut}`)));
      };
      await Promise.all(Array.from({ length: 20 }, worker));
      assert.equal(broken.size, size + 1);
    });
  });
}

test("every connection is cut after so many bytes, for any number of them: text() is the answer", async () => {
  const longest = Math.max(...ENTRIES.map((entry) => Buffer.from(encode(entry)).length)) + 10;
  for (let size = longest; size < longest + 150; size += 3) {
    const answer = (_request, response, cursor) => sendCut(response, bodyAfter(cursor), size, { reset: size % 2 === 0 });
    await withServer(answer, async (client) => assert.equal(await client.text(ID), TEXT, `size ${size}`));
  }
});

test("what a server gives again is dropped", async () => {
  const answer = (_request, response, cursor, number) => {
    const at = ENTRIES.findIndex(([id]) => id === cursor);
    const body = bodyAfter(ENTRIES[at - number]?.[0], ENTRIES.flatMap((entry) => [entry, entry]));
    return sendCut(response, body, number < 6 ? 200 + number * 50 : Infinity);
  };
  await withServer(answer, async (client) => isExpected(await collect(client.stream(ID))));
});

test("a connection that falls silent anywhere is left and read on", async () => {
  for (const size of [0, 1, 20, 60, 90, 150, 300]) {
    const answer = (_request, response, cursor, number) => {
      if (number > 1) return whole(response, cursor);
      response.writeHead(200, SSE);
      response.write(bodyAfter(cursor).subarray(0, size));
    };
    await withServer(answer, async (client) => assert.equal(await client.text(ID), TEXT), { stallMs: 60 });
  }
});

test("heartbeats keep a silent connection", async () => {
  const check = async (client, server) => {
    assert.equal(await client.text(ID), TEXT);
    assert.equal(server.requests.length, 1);
  };
  // The heartbeats must not fall into an event: the cut lies between two.
  const between = bodyAfter().indexOf("\n\n", 60) + 2;
  const answer = async (_request, response, cursor) => {
    response.writeHead(200, SSE);
    const body = bodyAfter(cursor);
    response.write(body.subarray(0, between));
    for (let beat = 0; beat < 6; beat += 1) {
      await new Promise((resolve) => setTimeout(resolve, 40));
      response.write(": heartbeat\n\n");
    }
    response.end(body.subarray(between));
  };
  await withServer(answer, check, { stallMs: 150 });
});

test("a reader that is slow itself is not taken for a silent service", async () => {
  await withServer((_request, response, cursor) => whole(response, cursor), async (client, server) => {
    const events = [];
    for await (const event of client.stream(ID)) {
      events.push(event);
      if (events.length === 3) await new Promise((resolve) => setTimeout(resolve, 120));
    }
    isExpected(events);
    assert.equal(server.requests.length, 1);
  }, { stallMs: 50 });
});

test("429, 502, 503, a sign-in page, no answer at all: it comes back with its cursor, and no sooner than told", async () => {
  const answer = (_request, response, cursor, number) => {
    if (number === 1) return sendCut(response, bodyAfter(cursor), 300);
    if (number === 2) return json(response, 503, { error: "away", code: "stream_unavailable" }, { "retry-after": "1" });
    if (number === 3) return json(response, 429, { error: "full", code: "too_many_streams" });
    if (number === 4) return response.writeHead(502).end("<html>");
    if (number === 5) return response.writeHead(200, { "content-type": "text/html" }).end("<html>Sign in");
    if (number === 6) return response.socket.destroy();
    return whole(response, cursor);
  };
  await withServer(answer, async (client, server) => {
    isExpected(await collect(client.stream(ID)));
    const cursor = server.requests[1].cursor;
    assert.ok(cursor);
    assert.deepEqual(server.requests.slice(1).map((request) => request.cursor), Array(6).fill(cursor));
    assert.ok(server.requests[2].at - server.requests[1].at >= 990);
  });
});

test("retry: sets the pause before a reconnect", async () => {
  const answer = (_request, response, cursor, number) =>
    number === 1 ? sendCut(response, bodyAfter(cursor, ENTRIES, "retry: 400\n\n"), 200) : whole(response, cursor);
  await withServer(answer, async (client, server) => {
    assert.equal(await client.text(ID), TEXT);
    assert.ok(server.requests[1].at - server.requests[0].at >= 290);
  });
});

test("a service that was restarted on the same port is found again", async () => {
  let server = await startServer((_request, response, cursor) => sendCut(response, bodyAfter(cursor), 200, { reset: true }));
  const client = new api.StreamClient(server.url, QUICK);
  const { port } = server;
  const events = [];
  for await (const event of client.stream(ID)) {
    events.push(event);
    if (events.length !== 2) continue;
    await server.stop();
    setTimeout(async () => (server = await startServer((_q, response, cursor) => whole(response, cursor), port)), 100);
  }
  isExpected(events);
  await server.stop();
});

test("a reset of the reader's own gives the run again, though its ids lie before the cursor", async () => {
  const answer = (_request, response, cursor, number) => {
    if (number === 1) return sendCut(response, bodyAfter(cursor), 500);
    if (number === 2) return sendCut(response, Buffer.from(encode([null, "reset", '{"reason":"gone"}'])), Infinity);
    if (number === 3) return sendCut(response, Buffer.concat([Buffer.from(encode([null, "reset", "{}"])), bodyAfter(undefined)]), 200);
    return whole(response, cursor);
  };
  await withServer(answer, async (client) => assert.equal(await client.text(ID), TEXT));
});

test("a gap is surfaced; text() does not pass it over", async () => {
  const body = Buffer.concat([Buffer.from(encode([null, "gap", '{"reason":"trimmed"}'])), bodyAfter("104-0")]);
  await withServer((_request, response) => sendCut(response, body, Infinity), async (client) => {
    assert.equal((await collect(client.stream(ID)))[0].type, "gap");
    await assert.rejects(client.text(ID), api.AnswerIncompleteError);
  });
});

test("a gap that a reset follows is none: text() is the answer that comes again", async () => {
  const anew = Buffer.from(encode([null, "gap", '{"reason":"trimmed"}']) + encode(["104-1", "message", "x"]));
  const body = Buffer.concat([anew, Buffer.from(encode([null, "reset", "{}"])), bodyAfter(undefined)]);
  await withServer((_request, response) => sendCut(response, body, Infinity), async (client) =>
    assert.equal(await client.text(ID), TEXT));
});

for (const code of ["conversation_not_found", "run_not_found", undefined]) {
  test(`a stream that was there and is unknown for a while (${code}) is asked for again`, async () => {
    const answer = (_request, response, cursor, number) => {
      if (number === 1) return sendCut(response, bodyAfter(cursor), 300);
      if (number < 5) return json(response, 404, code ? { error: "No.", code } : undefined);
      return whole(response, cursor);
    };
    await withServer(answer, async (client) => isExpected(await collect(client.stream(ID))));
  });
}

test("a run that this client has started is asked for again, though its stream is unknown at first", async () => {
  const answer = (request, response, cursor, number) => {
    if (request.method === "POST") return json(response, 202, { conversation_id: ID, correlation_id: "r" });
    if (number < 4) return json(response, 404, { error: "No.", code: "run_not_found" });
    return whole(response, cursor);
  };
  await withServer(answer, async (client) => {
    const { conversationId, runId } = await client.run("Agent", "Hello");
    assert.equal(await client.text(conversationId, { run: runId }), TEXT);
  });
});

test("a stream that was there and stays unknown is not asked for without end", async () => {
  const answer = (_request, response, cursor, number) => {
    if (number === 1) return sendCut(response, bodyAfter(cursor), 300);
    return json(response, 404, { error: "No.", code: "conversation_not_found" });
  };
  await withServer(answer, (client) => assert.rejects(client.text(ID), api.NotFoundError), { giveUpMs: 200 });
});

test("a cursor that the service gave and no longer knows: a reset, then all of it again", async () => {
  const asked = [];
  const answer = (request, response, cursor, number) => {
    asked.push([new URL(request.url, "http://x").searchParams.get("cursor"), cursor]);
    if (number === 1) return sendCut(response, bodyAfter("101-0"), 100);
    if (cursor === "102-0") return json(response, 400, { error: "No.", code: "invalid_cursor" });
    return whole(response, cursor);
  };
  await withServer(answer, async (client) => {
    const events = await collect(client.stream(ID, { cursor: "101-0" }));
    assert.deepEqual(events.slice(0, 2).map(({ type, id }) => [type, id]), [["message", "102-0"], ["reset", ""]]);
    isExpected(events.slice(2));
    assert.deepEqual(asked, [["101-0", undefined], ["101-0", "102-0"], [null, undefined]]);
  });
});

for (const [code, type] of [
  ["agent_failed", "RunFailedError"], ["run_timeout", "RunFailedError"],
  ["interrupted", "RunInterruptedError"], ["stream_lost", "StreamLostError"],
]) {
  test(`a run that ends with ${code} throws ${type}, with what there was`, async () => {
    const entries = [["1-0", "message", "so far"], ["1-1", "error", JSON.stringify({ code, message: "No." })]];
    const answer = (_request, response, cursor, number) =>
      sendCut(response, bodyAfter(cursor, entries), number === 1 ? 70 : Infinity);
    await withServer(answer, async (client) => {
      await assert.rejects(client.text(ID), (error) =>
        error instanceof api[type] && error.code === code && error.partialText === "so far" && error.message === "No.");
    });
  });
}

for (const [status, code, type] of [
  [404, "conversation_not_found", "NotFoundError"], [401, "unauthorized", "AccessDeniedError"],
  [403, "forbidden", "AccessDeniedError"], [400, "invalid_cursor", "RequestRefusedError"],
]) {
  test(`status ${status} throws ${type} at once`, async () => {
    await withServer((_request, response) => json(response, status, { error: "No.", code }), async (client, server) => {
      const refused = (error) => error instanceof api[type] && error.code === code && error.status === status;
      await assert.rejects(collect(client.stream(ID)), refused);
      await assert.rejects(client.status("Agent", ID), refused);
      assert.equal(server.requests.length, 2);
    });
  });
}

test("204 ends, and so does a terminal; all that is retained is read through terminals until 204", async () => {
  const second = [["2000-0", "message", "second"], ["2000-1", "error", '{"code":"agent_failed","message":"No."}']];
  const entries = [...ENTRIES, ...second];
  const answer = (request, response, cursor) => {
    if (cursor === "2000-1") return response.writeHead(204).end();
    const upTo = cursor === undefined || cursor < "1000-1" ? ENTRIES : entries;
    return sendCut(response, bodyAfter(cursor, upTo), request.url.includes("cursor=0") && !cursor ? 300 : Infinity);
  };
  await withServer(answer, async (client, server) => {
    isExpected(await collect(client.stream(ID)));
    assert.equal(server.requests.length, 1);
    const all = await collect(client.stream(ID, { cursor: "0" }));
    assert.deepEqual(all.map((event) => event.id), entries.map(([id]) => id));
    assert.deepEqual(await collect(client.stream(ID, { cursor: "0" , signal: undefined })), all);
  });
});

test("events are told which run they belong to, each run once, over reconnects", async () => {
  const run = (name) => [null, "run", JSON.stringify({ run: name })];
  const answer = (_request, response, cursor, number) => {
    if (number === 1) return sendCut(response, bodyAfter(cursor, [run("a"), ["1-0", "message", "x"], ["1-1", "message", "y"]]), 90);
    if (number === 2) return sendCut(response, bodyAfter(undefined, [run("a"), ["1-1", "message", "y"], ["1-2", "done", "[DONE]"], run("b"), ["2-0", "message", "z"]]), Infinity);
    return response.writeHead(204).end();
  };
  await withServer(answer, async (client) => {
    const events = await collect(client.stream(ID, { follow: true, events: "all" }));
    assert.deepEqual(events.map((event) => [event.type, event.run]), [
      ["run", "a"], ["message", "a"], ["message", "a"], ["done", "a"], ["run", "b"], ["message", "b"],
    ]);
  });
});

test("AbortSignal, close() and leaving the loop all let go of the connection", async () => {
  let open = 0, closed;
  const answer = (_request, response, cursor) => {
    open += 1;
    response.on("close", () => {
      open -= 1;
      if (open === 0) closed();
    });
    response.writeHead(200, SSE);
    response.write(bodyAfter(cursor).subarray(0, 300));
  };
  await withServer(answer, async (client) => {
    const gone = () => new Promise((resolve) => (closed = resolve));
    let left = gone();
    for await (const event of client.stream(ID)) if (event.type === "reset") break;
    await left;
    left = gone();
    const controller = new AbortController();
    const reading = collect(client.stream(ID, { signal: controller.signal }));
    setTimeout(() => controller.abort(new Error("enough")), 50);
    await assert.rejects(reading, /enough/);
    await left;
    left = gone();
    const stream = client.stream(ID);
    setTimeout(() => stream.close(), 50);
    assert.ok((await collect(stream)).length > 1);
    assert.equal(stream.state, "closed");
    await left;
    await assert.rejects(collect(client.stream(ID, { signal: AbortSignal.abort(new Error("before")) })), /before/);
  });
});

test("listeners get what an iteration gets, and the states on the way", async () => {
  const answer = (_request, response, cursor, number) => sendCut(response, bodyAfter(cursor), number === 1 ? 200 : Infinity);
  await withServer(answer, async (client) => {
    const stream = client.stream(ID);
    const texts = [], states = [];
    stream.addEventListener("state", () => states.push(stream.state));
    stream.addEventListener("reset", () => texts.splice(0));
    stream.addEventListener("message", (event) => texts.push(event.data));
    const end = new Promise((resolve) => stream.addEventListener("close", resolve));
    const done = new Promise((resolve) => stream.addEventListener("done", (event) => resolve(event.lastEventId)));
    assert.equal((await end).error, undefined);
    assert.equal(await done, "1000-1");
    assert.equal(texts.join(""), TEXT);
    assert.deepEqual(states, ["connecting", "open", "waiting", "connecting", "open", "closed"]);
    assert.throws(() => stream[Symbol.asyncIterator](), TypeError);
  });
});

test("listeners hear of a failed run as error, then close", async () => {
  const entries = [["1-0", "error", '{"code":"interrupted","message":"Gone."}']];
  await withServer((_request, response) => sendCut(response, bodyAfter(undefined, entries), Infinity), async (client) => {
    const stream = client.stream(ID);
    const heard = await new Promise((resolve) => {
      const errors = [];
      stream.addEventListener("error", (event) => errors.push(event.error));
      stream.addEventListener("close", () => resolve(errors));
    });
    assert.ok(heard.length === 1 && heard[0] instanceof api.RunInterruptedError);
  });
});

test("it gives up after so long without any success, and says so", async () => {
  const answer = (_request, response) => json(response, 503, { error: "Redis is away.", code: "stream_unavailable" });
  await withServer(answer, async (client) => {
    await assert.rejects(client.text(ID), (error) =>
      error instanceof api.ServiceUnavailableError && error.code === "stream_unavailable");
  }, { giveUpMs: 100 });
  await assert.rejects(new api.StreamClient("http://127.0.0.1:1", { ...QUICK, giveUpMs: 50 }).text(ID), (error) =>
    error instanceof api.ServiceUnavailableError && error.code === "unreachable");
});

test("a key, headers and the newest token are sent; an expired one is replaced once", async () => {
  const tokens = [];
  const answer = (request, response, cursor) => {
    assert.equal(request.headers["x-functions-key"], "the-key");
    assert.equal(request.headers["x-more"], "1");
    if (request.method === "POST") return json(response, 202, { conversation_id: ID, correlation_id: "r", stream_token: "first" });
    tokens.push(request.headers["x-stream-token"]);
    if (tokens.length <= 1) return json(response, 401, { error: "expired", code: "token_expired" });
    return whole(response, cursor);
  };
  const token = async (conversation, { refresh }) => (refresh ? `fresh-of-${conversation}` : undefined);
  await withServer(answer, async (client) => {
    const run = await client.run("Agent", "Hello");
    assert.deepEqual([run.conversationId, run.runId, run.streamToken], [ID, "r", "first"]);
    assert.equal(await client.text(ID), TEXT);
    assert.equal(await client.text(ID), TEXT);
    assert.deepEqual(tokens, ["first", `fresh-of-${ID}`, `fresh-of-${ID}`]);
  }, { apiKey: "the-key", headers: { "x-more": "1" }, token });
});

test("run() is tried again when it was refused, and never when it may have been started", async () => {
  const answer = (_request, response, _cursor, number) => {
    if (number <= 2) return json(response, 503, { error: "full", code: "too_many_runs" }, { "retry-after": "0" });
    if (number === 3) return json(response, 202, { conversation_id: ID, correlation_id: "r" });
    return response.socket.destroy();
  };
  await withServer(answer, async (client, server) => {
    assert.equal((await client.run("Agent", "Hello")).runId, "r");
    await assert.rejects(client.run("Agent", "Hello"), api.ServiceUnavailableError);
    assert.equal(server.requests.length, 4);
  });
});

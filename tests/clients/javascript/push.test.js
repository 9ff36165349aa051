/** What a client of pushes asks of the service, and how it goes on after a push (docs/protocol.md, 7). */

import assert from "node:assert/strict";
import { test } from "node:test";

import { AccessDeniedError, StreamClient } from "../../../clients/javascript/agent-stream.js";
import { sharedStream } from "../../../clients/javascript/shared-stream.js";
import { bodyAfter, ENTRIES, sendCut, startServer } from "./fault-server.js";

async function withServer(answer, use, options = {}) {
  const server = await startServer(answer);
  try {
    return await use(new StreamClient(server.url, { reconnectMs: 1, ...options }));
  } finally {
    await server.stop();
  }
}
const json = (response, status, said) => {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(said));
};

test("a shared stream that begins after an entry gives what comes after it", () =>
  withServer((request, response, cursor) => sendCut(response, bodyAfter(cursor), Infinity), async (client) => {
    const given = [];
    for await (const { id } of sharedStream(client, "c", { after: ENTRIES[1][0] })) given.push(id);
    assert.deepEqual(given, ENTRIES.slice(2).map(([id]) => id));
  }));

test("a conversation is made, negotiated for and joined with its own token, and as the same user", async () => {
  const asked = [];
  const answer = (request, response) => {
    const { "x-stream-token": token, "x-user-token": user, "x-functions-key": key } = request.headers;
    asked.push([request.method, request.url, token, user, key]);
    if (request.url.endsWith("create-thread")) json(response, 200, { conversation_id: "c", stream_token: "t" });
    else if (request.url.endsWith("negotiate")) json(response, 200, { url: "u", accessToken: "a", userToken: "me" });
    else json(response, 200, { status: "joined", group: "c" });
  };
  await withServer(answer, async (client) => {
    const { conversationId, streamToken } = await client.createConversation();
    assert.deepEqual([conversationId, streamToken], ["c", "t"]);
    const { userToken } = await client.negotiate(conversationId);
    await client.negotiate(conversationId, { userToken });
    await client.join(conversationId, { userToken });
  }, { apiKey: "k" });
  assert.deepEqual(asked, [
    ["POST", "/api/agent/create-thread", undefined, undefined, "k"],
    ["POST", "/api/agent/negotiate", "t", undefined, "k"],
    ["POST", "/api/agent/negotiate", "t", "me", "k"],
    ["POST", "/api/agent/join-group", "t", "me", "k"],
  ]);
});

test("who may not join is told so, and is not asked for again", async () => {
  let asked = 0;
  const answer = (request, response) => {
    asked += 1;
    json(response, 401, { error: "No.", code: "token_expired" });
  };
  await withServer(answer, (client) =>
    assert.rejects(client.join("c", { userToken: "me" }), (error) =>
      error instanceof AccessDeniedError && error.code === "token_expired"));
  assert.equal(asked, 1);
});

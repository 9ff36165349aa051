/** A server of one recorded answer that breaks its responses as it is told to. */

import { once } from "node:events";
import { createServer } from "node:http";

/** An answer with all that can go wrong in it: characters of many bytes, line ends, a reset, tools, other runs. */
export const ENTRIES = [
  ["100-0", "message", "Discarded "],
  ["100-1", "tool_call", '{"call_id":"1","name":"weather"}'],
  ["101-0", "reset", '{"reason":"another attempt"}'],
  ["102-0", "message", "Grüße"],
  ["102-1", "message", " 👩‍👩‍👧‍👦 aus\n\nTōkyō"],
  ["103-0", "message", "\n"],
  ["104-0", "message", "data: [DONE]\nid: 999-9\nevent: done"],
  ["105-0", "message", " leading and trailing "],
  ["105-18446744073709551614", "message", "💡"],
  ["105-18446744073709551615", "message", ""],
  ["1000-0", "message", "end"],
  ["1000-1", "done", "[DONE]"],
];
export const TEXT = 'Grüße 👩‍👩‍👧‍👦 aus\n\nTōkyō\ndata: [DONE]\nid: 999-9\nevent: done leading and trailing 💡end';

export const encode = ([id, type, data]) =>
  `${id === null ? "" : `id: ${id}\n`}event: ${type}\n${data.split("\n").map((line) => `data: ${line}\n`).join("")}\n`;

/** What a server that holds `entries` answers to a reader that has them up to `cursor`. */
export function bodyAfter(cursor, entries = ENTRIES, retry = "retry: 0\n\n") {
  const at = entries.findIndex(([id]) => id === cursor);
  return Buffer.from(retry + entries.slice(at + 1).map(encode).join(""));
}

export const SSE = { "content-type": "text/event-stream; charset=utf-8" };

/** A response that is cut after so many bytes of its body: in good order, or by a reset. */
export async function sendCut(response, body, size, { reset = false } = {}) {
  response.writeHead(200, SSE);
  if (size > 0) await new Promise((done) => response.write(body.subarray(0, size), done));
  if (size >= body.length || !reset) response.end();
  else response.socket.resetAndDestroy();
}

/** A server on a free port: `answer(request, response, cursor, number)` is called for each request. */
export async function startServer(answer, port = 0) {
  const requests = [];
  const server = createServer({ keepAlive: true }, (request, response) => {
    const cursor = request.headers["last-event-id"];
    requests.push({ cursor, url: request.url, headers: request.headers, method: request.method, at: Date.now() });
    Promise.resolve(answer(request, response, cursor, requests.length)).catch(() => response.destroy());
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    port: server.address().port,
    requests,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

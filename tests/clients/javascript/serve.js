/**
 * `node serve.js`: prints its address; serves a page for browsers, the client, and broken answers:
 * `cut-N` (after N bytes at first), `slow` (an entry each 30 ms), `held` (waits in the middle for /release).
 */

import { readFile } from "node:fs/promises";

import { bodyAfter, encode, ENTRIES, sendCut, SSE, startServer } from "./fault-server.js";

const CLIENT = new URL("../../../clients/javascript/", import.meta.url);
const broken = new Set();
const counts = { streams: 0, open: 0 };
let releases = [];
/** A long answer, so that tabs come and go while it is given. */
const LONG = [
  ...Array.from({ length: 60 }, (_, at) => [`${2000 + at}-0`, at === 20 ? "reset" : "message", at === 20 ? "{}" : `word${at} `]),
  ["3000-0", "done", "[DONE]"],
];

async function slowly(response, cursor, step) {
  response.writeHead(200, SSE);
  response.write("retry: 0\n\n");
  const at = LONG.findIndex(([id]) => id === cursor);
  for (const entry of LONG.slice(at + 1)) {
    if (response.destroyed) return;
    response.write(encode(entry));
    await step(entry);
  }
  response.end();
}

const server = await startServer(async (request, response, cursor) => {
  const { pathname } = new URL(request.url, "http://localhost");
  const name = pathname.split("/").at(-1);
  if (pathname === "/") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>test</title>");
  if (name.endsWith(".js")) {
    return response.writeHead(200, { "content-type": "text/javascript" }).end(await readFile(new URL(name, CLIENT)));
  }
  if (name === "counts") return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(counts));
  if (name === "release") {
    releases.splice(0).forEach((go) => go());
    return response.writeHead(200).end();
  }
  if (!pathname.startsWith("/api/agent/stream/")) return response.writeHead(404).end();
  counts.streams += 1;
  counts.open += 1;
  response.on("close", () => (counts.open -= 1));
  if (name.startsWith("cut-")) {
    if (broken.has(name)) return sendCut(response, bodyAfter(cursor), Infinity);
    broken.add(name);
    const cut = Number(name.slice(4));
    return sendCut(response, bodyAfter(cursor), cut, { reset: cut % 2 === 1 });
  }
  if (name.startsWith("slow")) return slowly(response, cursor, () => new Promise((resolve) => setTimeout(resolve, 30)));
  return slowly(response, cursor, ([id]) => id === "2030-0" && !broken.has(name) && new Promise((resolve) => releases.push(resolve)).then(() => broken.add(name)));
});
process.on("SIGTERM", () => process.exit(0));
console.log(JSON.stringify({ url: server.url, size: bodyAfter().length, entries: ENTRIES.length }));

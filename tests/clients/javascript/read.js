/** `node read.js URL CONVERSATION`: prints as JSON what `text()` gives, or which error it throws. */

import { StreamClient } from "../../../clients/javascript/agent-stream.js";

const [url, conversationId] = process.argv.slice(2);
const client = new StreamClient(url, { reconnectMs: 20, giveUpMs: 15_000 });
// The service's own `retry: 1000` would make a test of many cuts slow: pauses pass fifty times as fast.
const { setTimeout } = globalThis;
globalThis.setTimeout = (callback, ms, ...more) => setTimeout(callback, ms < 15_000 ? ms / 50 : ms, ...more);
try {
  console.log(JSON.stringify({ text: await client.text(conversationId) }));
} catch (error) {
  console.log(JSON.stringify({ error: error.name, code: error.code, text: error.partialText }));
}

/**
 * Reads runs with the JavaScript client: `node run_reader.mjs URL HASTE`, each line of stdin a job, each line of
 * stdout what became of one. Its pauses are so many times shorter than a page's, and bounded.
 */

import { createInterface } from "node:readline";

import { StreamClient } from "../clients/javascript/agent-stream.js";

const [url, haste] = process.argv.slice(2);
/** The client's limits stay: how long an answer's head may take, and how long silence. All else is a pause. */
const LIMITS_MS = [20_000, 40_000];
/** A pause that has grown over an outage: still short, so that a soak's readers are there when the next fault comes. */
const LONGEST_PAUSE_MS = 500;
const hurried = (ms) => (LIMITS_MS.includes(ms) ? ms : Math.min(ms / Number(haste), LONGEST_PAUSE_MS));
const { setTimeout } = globalThis;
globalThis.setTimeout = (callback, ms, ...more) => setTimeout(callback, hurried(ms), ...more);

const leaving = new Map(); // Of each job, what ends it.

/** Reads one run as the job says: its text, or its events. */
async function read({ job, conversation, run, how }) {
  let connections = 0;
  const controller = new AbortController();
  leaving.set(job, controller);
  const counting = (...request) => {
    connections += 1;
    return fetch(...request);
  };
  const client = new StreamClient(url, { fetch: counting });
  const options = { run, signal: controller.signal };
  const events = [];
  const told = { job, events };
  try {
    if (how === "text()") told.text = await client.text(conversation, options);
    else for await (const { type, data, id } of client.stream(conversation, options)) events.push({ type, data, id });
  } catch (error) {
    told.error = { name: error.name, code: error.code ?? "", message: error.message };
    told.text = error.partialText;
  }
  leaving.delete(job);
  process.stdout.write(`${JSON.stringify({ ...told, connections })}\n`);
}

const jobs = createInterface({ input: process.stdin });
jobs.on("line", (line) => {
  const job = JSON.parse(line);
  if (job.leave === undefined) read(job);
  else leaving.get(job.leave)?.abort();
});
jobs.on("close", () => process.exit());

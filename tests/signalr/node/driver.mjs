// Follows a conversation under Node for a test. What it hears goes out as lines of JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { modules, follow, ...options } = JSON.parse(process.argv[2]);
const signalR = createRequire(pathToFileURL(`${modules}/`))("@microsoft/signalr");
const { Follower } = await import(pathToFileURL(follow));

const say = (name, value) => process.stdout.write(`${JSON.stringify([name, value])}\n`);
const follower = new Follower({
  ...options,
  signalR,
  on: {
    text: (text) => say("text", text),
    event: (type) => say("event", type),
    reset: () => say("reset", null),
    end: (end) => say("end", end),
    state: (state, connectionId) => say(state, connectionId),
  },
});
await follower.start();
say("joined", null);
process.stdin.once("data", (run) => follower.expect(String(run).trim()));

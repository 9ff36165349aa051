// resumable-stream as its README uses it, its producer and its readers' server in two processes:
//   node resumable_stream.mjs NODE_MODULES_FOLDER serve PORT
//   node resumable_stream.mjs NODE_MODULES_FOLDER produce STREAMS RATE SECONDS
import http from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, what, ...rest] = process.argv.slice(2);
const { createResumableStreamContext } = createRequire(`${folder}/`)("resumable-stream");
const context = createResumableStreamContext({ waitUntil: (promise) => void promise.catch(() => {}) });

const name = (stream) => `bench-${stream}`;
const event = (number) => `data: @${number} ${process.hrtime.bigint()};\n\n`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

async function consume(stream) {
  const reader = stream.getReader();
  while (!(await reader.read()).done);
}

function serve(port) {
  const server = http.createServer(async (request, response) => {
    const stream = await context.resumeExistingStream(request.url.split("/").pop());
    if (!stream) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    const reader = stream.getReader();
    response.on("close", () => reader.cancel().catch(() => {}));
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      if (piece.value) response.write(piece.value);
    }
    response.end();
  });
  server.listen(port, "127.0.0.1", 4096, () => console.log("ready"));
}

async function told() {
  console.log("ready");
  const lines = createInterface({ input: process.stdin });
  await new Promise((resolve) => lines.once("line", resolve));
  lines.close();
}

async function produce(streams, rate, duration) {
  const sent = new Array(streams).fill(0);
  const controllers = new Array(streams);
  let until = Infinity;
  let go;
  const started = new Promise((resolve) => (go = resolve));
  const source = (stream) => ({
    start: (controller) => void (controllers[stream] = controller),
    // As fast as it can: whenever the library asks for more.
    pull: rate
      ? undefined
      : async (controller) => {
          await started;
          if (seconds() >= until) controller.close();
          else controller.enqueue(event(sent[stream]++));
        },
  });
  const ends = [];
  for (let stream = 0; stream < streams; stream++) {
    const own = await context.createNewResumableStream(name(stream), () => new ReadableStream(source(stream)));
    ends.push(consume(own));
    if (!rate) ends.push(consume(await context.resumeExistingStream(name(stream))));
  }
  await told();
  const began = seconds();
  const cpu = process.cpuUsage();
  until = began + duration;
  go();
  if (rate) {
    let done = 0;
    while (done < Math.floor(rate * duration)) {
      const due = Math.floor(Math.min(duration, seconds() - began) * rate);
      for (; done < due; done++) {
        const stream = done % streams;
        controllers[stream].enqueue(event(sent[stream]++));
      }
      await sleep(1);
    }
  } else {
    await Promise.all(ends);
  }
  const used = process.cpuUsage(cpu);
  console.log(JSON.stringify({ sent, took: seconds() - began, cpu: (used.user + used.system) / 1e6 }));
  await sleep(600_000);
}

if (what === "serve") serve(Number(rest[0]));
else await produce(...rest.map(Number));

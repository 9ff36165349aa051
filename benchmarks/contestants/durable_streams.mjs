// The reference server of Durable Streams: node durable_streams.mjs NODE_MODULES_FOLDER PORT
import { createRequire } from "node:module";

const [folder, port] = process.argv.slice(2);
const { DurableStreamTestServer } = createRequire(`${folder}/`)("@durable-streams/server");

const server = new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1" });
await server.start();
console.log("ready");

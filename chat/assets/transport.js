/**
 * How the page reads a conversation. Whatever is returned here has the interface of the client's streams:
 * iterating it gives events ({type, data, id, run}), `state` and `state` events tell of the connection, `close()`
 * ends it. A push transport is another entry of this table.
 */

import { sharedStream } from "./shared-stream.js";

const TRANSPORTS = {
  /** Server-sent events over one connection for all tabs. */
  sse: (client, conversationId, options) => sharedStream(client, conversationId, options),
};

export function openConversation(client, conversationId, options, transport = "sse") {
  return TRANSPORTS[transport](client, conversationId, { cursor: "0", follow: true, events: "all", ...options });
}

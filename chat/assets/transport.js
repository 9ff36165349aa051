/**
 * How the page reads a conversation. Whatever is returned here has the interface of the client's streams:
 * iterating it gives events ({type, data, id, run}), `state` and `state` events tell of the connection, `close()`
 * ends it. All transports give the same events.
 */

import { AgentStream, isAfter } from "./agent-stream.js";
import { Hub } from "./hub.js";
import { PushedReading } from "./push.js";
import { sharedStream } from "./shared-stream.js";

/** All of a conversation, and what comes. */
const ALL = { cursor: "0", follow: true, events: "all" };

const TRANSPORTS = {
  /** Server-sent events over one connection for all tabs. */
  sse: {
    open: (client, conversationId) => sharedStream(client, conversationId, ALL),
    begin: async () => ({}),
  },
  /** Pushes by SignalR, and the stream itself wherever one is missing. */
  signalr: {
    open: (client, conversationId, { isAnswerDue, session, onPush }) =>
      new AgentStream((reader) => {
        const hub = new Hub(client, conversationId, { session, onPush });
        const openStream = (after) => sharedStream(client, conversationId, { ...ALL, after, signal: reader.signal });
        return new PushedReading({ hub, openStream, isAfter, isAnswerDue, reader }).events();
      }, { conversationId, endsAtTerminal: false }),
    // Its token is what lets us join it, also where the service asks for no tokens elsewhere.
    begin: (client) => client.createConversation(),
  },
};

export const isTransport = (name) => Object.hasOwn(TRANSPORTS, name);

/**
 * Options: `isAnswerDue()`, whether silence is suspicious; `session`, which keeps a `userToken`; `onPush(state)`, told
 * whether pushes come: `connecting`, `joined`, `unavailable` (at the moment) or `refused` (for this conversation).
 */
export function openConversation(client, conversationId, options, transport) {
  return TRANSPORTS[transport].open(client, conversationId, options);
}

/** What a transport needs before a conversation's first run: its id and token, or nothing. */
export function beginConversation(client, transport) {
  return TRANSPORTS[transport].begin(client);
}

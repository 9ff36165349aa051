import type { AgentStream, ReadOptions, StreamClient } from "./agent-stream.js";

/**
 * Reads like `client.stream(conversationId, options)`, over one connection for all tabs of this origin that read
 * the same. Where the browser has no Web Locks or BroadcastChannel (or in Node) each reads over its own.
 */
export function sharedStream(
  client: StreamClient,
  conversationId: string,
  /** `after`: an entry of this read that was given before; what comes after it is given. */
  options?: ReadOptions & { after?: string },
): AgentStream;

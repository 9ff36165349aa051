/** Reads an agent's answer over any network: each chunk once, in order, to its end. See docs/clients.md. */

/** `run`: which run the next events belong to. Others (`tool_call` …) are the entry's type. */
export type EventType =
  | "message" | "done" | "error" | "cancelled" | "reset" | "gap" | "run"
  | "tool_call" | "tool_result" | "reasoning" | "usage" | (string & {});

/** One event. */
export interface StreamEvent {
  readonly type: EventType;
  /** Of `message`: text. Of `done`: `[DONE]`. Of all others: JSON. */
  readonly data: string;
  /** The cursor after this event; "" before the first entry. */
  readonly id: string;
  /** The run it belongs to, where the stream tells (`events: "all"`, all runs). */
  readonly run?: string;
}

export interface ReadOptions {
  /** An entry id: read on strictly after it. `0`: all that is retained. `$`: what is new. None: the latest run. */
  cursor?: string;
  /** Only this run. */
  run?: string;
  /** Go on through later runs until `close()`. */
  follow?: boolean;
  /** `all`: tool calls, their results, reasoning and token counts too. */
  events?: "all";
  signal?: AbortSignal;
}

export type StreamState = "idle" | "connecting" | "open" | "waiting" | "closed";

/** What `addEventListener` gives; `error` and `close` may have come without data. */
export interface DispatchedEvent extends Event {
  readonly data?: string;
  readonly lastEventId?: string;
  readonly run?: string;
  readonly error?: unknown;
}

/** What a page or program reads: iterate it, or listen to it; not both. */
export interface Readable extends EventTarget, AsyncIterable<StreamEvent> {
  readonly state: StreamState;
  /** The cursor: the id of the last entry that was given. */
  readonly lastEventId: string;
  /** Ends reading. The run goes on. */
  close(): void;
  [Symbol.asyncIterator](): AsyncIterableIterator<StreamEvent>;
  addEventListener(
    type: EventType | "state" | "close",
    listener: ((event: DispatchedEvent) => void) | EventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface Reader {
  signal: AbortSignal;
  onState: (state: StreamState) => void;
  /** Called when anything came, heartbeats included. */
  onActivity?: () => void;
  /** An entry that was given before: read on after it. */
  after?: string;
}

export class AgentStream extends EventTarget implements Readable {
  /** `events`: where they come from; for streams of one's own. */
  constructor(
    events: (reader: Reader) => AsyncIterable<StreamEvent>,
    options?: { conversationId?: string; endsAtTerminal?: boolean; signal?: AbortSignal },
  );
  readonly state: StreamState;
  readonly lastEventId: string;
  close(): void;
  [Symbol.asyncIterator](): AsyncIterableIterator<StreamEvent>;
  addEventListener: Readable["addEventListener"];
}

export interface ClientOptions {
  /** Sent as `x-functions-key`. Not for pages: who has it may do everything. */
  apiKey?: string;
  /** The conversation's stream token, or a function that gets one (`refresh`: the last one was refused). */
  token?: string | ((
    conversationId: string | undefined,
    how: { refresh: boolean },
  ) => string | undefined | Promise<string | undefined>);
  /** Sent with every request. */
  headers?: Record<string, string>;
  fetch?: typeof fetch;
  /** Silence after which a connection counts as dead, in milliseconds; heartbeats come every 15 s. */
  stallMs?: number;
  /** The first pause before a reconnect, until the service says otherwise (`retry:`). */
  reconnectMs?: number;
  /** How long to go on without any success; `Infinity`: for ever. */
  giveUpMs?: number;
}

export interface RunOptions {
  conversationId?: string;
  signal?: AbortSignal;
  role?: "user" | "system" | "assistant";
  response_format?: unknown;
  enable_tool_calls?: boolean;
}

export interface StartedRun {
  conversationId: string;
  runId: string;
  /** Where the service uses stream tokens; the client remembers it. */
  streamToken?: string;
  streamTokenExpiresAt?: string;
}

/** docs/protocol.md, 5.3. */
export interface RunReport {
  status: "Pending" | "Running" | "Completed" | "Failed" | "Canceled" | "Canceling";
  conversation_id: string;
  correlation_id: string;
  response?: string;
  error?: string;
  code?: string;
  [more: string]: unknown;
}

export interface Health {
  status: "healthy" | "unhealthy";
  agents: { name: string }[];
  agent_count: number;
  redis: string;
  task_hub: string;
}

export interface RunReference {
  run?: string;
  signal?: AbortSignal;
}

export interface Negotiated {
  url: string;
  accessToken: string;
  userToken: string;
  userTokenExpiresAt: string;
}

export class StreamClient {
  constructor(baseUrl: string | URL, options?: ClientOptions);
  readonly baseUrl: string;
  stream(conversationId: string, options?: ReadOptions): AgentStream;
  /** The events of `stream()` as they are: errors of runs are events like others. */
  read(conversationId: string, options: ReadOptions, reader: Reader): AsyncGenerator<StreamEvent, void>;
  text(conversationId: string, options?: RunReference): Promise<string>;
  run(agent: string, message: string, options?: RunOptions): Promise<StartedRun>;
  status(agent: string, conversationId: string, options?: RunReference): Promise<RunReport>;
  cancel(agent: string, conversationId: string, options?: RunReference): Promise<RunReport>;
  health(options?: { signal?: AbortSignal }): Promise<Health>;
  /** A conversation before its first run, with the token that lets its bearer join its pushes. */
  createConversation(options?: { signal?: AbortSignal }): Promise<Omit<StartedRun, "runId">>;
  /** Where to connect for pushes; with a `userToken` of before, as the same user. */
  negotiate(conversationId: string, options?: { userToken?: string; signal?: AbortSignal }): Promise<Negotiated>;
  /** Has a user told of a conversation. */
  join(conversationId: string, options: { userToken: string; signal?: AbortSignal }): Promise<void>;
}

export interface ErrorDetails {
  code?: string;
  status?: number;
  conversationId?: string;
  runId?: string;
  cause?: unknown;
  retryAfterMs?: number;
}

/** The base of all errors of this module. */
export class AgentStreamError extends Error {
  constructor(message: string, details?: ErrorDetails);
  /** A stable word for programs (docs/protocol.md, 2.2 and 5.7). */
  readonly code: string;
  readonly status?: number;
  readonly conversationId?: string;
  readonly runId?: string;
  readonly retryAfterMs?: number;
  /** What there was of the answer; set by `text()`. */
  partialText?: string;
}
/** The run ended with an error: the agent failed, took too long, or was never started. */
export class RunFailedError extends AgentStreamError {}
/** The process that executed the run is gone, and nobody resumes it. */
export class RunInterruptedError extends RunFailedError {}
/** The stream was deleted or has expired before the run ended. */
export class StreamLostError extends AgentStreamError {}
/** Part of the answer is no longer retained (`text()` only; others get a `gap` event). */
export class AnswerIncompleteError extends AgentStreamError {}
/** There is no such agent, conversation or run (any more). */
export class NotFoundError extends AgentStreamError {}
/** The key or token is missing, wrong, expired, or another conversation's. */
export class AccessDeniedError extends AgentStreamError {}
/** The service does not take the request as it is. */
export class RequestRefusedError extends AgentStreamError {}
/** The service could not be reached, or did not answer, for too long. */
export class ServiceUnavailableError extends AgentStreamError {}

/** The typed error that an `error` event stands for. */
export function errorOf(event: Pick<StreamEvent, "data" | "run">, conversationId?: string): AgentStreamError;
/** Whether a read goes on after a run's end. */
export function readsAllRuns(options: ReadOptions): boolean;
/** Whether an entry id comes after another. */
export function isAfter(id: string, other: string): boolean;

/** An event stream's decoder in the words of the HTML standard: bytes in, events out. */
export class EventStreamDecoder {
  readonly lastEventId: string;
  readonly retry: number | undefined;
  feed(bytes: Uint8Array): { type: string; data: string; id: string; hasId: boolean }[];
}

/** The chat page: puts the client, the conversation and the view together. */

import { AccessDeniedError, NotFoundError, RequestRefusedError, StreamClient } from "./agent-stream.js";
import { TransportChoice } from "./choice.js";
import { Conversation } from "./conversation.js";
import { Session } from "./session.js";
import { beginConversation, openConversation } from "./transport.js";
import { TurnsView } from "./view.js";

/** Silence after which the stream has given what it holds; turns that are missing are asked for. */
const QUIET_MS = 1_000;
/** A pause shorter than this is not worth a word. */
const FLICKER_MS = 500;

const $ = (id) => document.getElementById(id);
const CONNECTION = { open: "Connected", connecting: "Connecting…", waiting: "Reconnecting…", offline: "Offline" };

const isBusy = ({ current }) => ["sending", "waiting", "running", "stopping"].includes(current?.state);

class ChatPage {
  #session = new Session();
  #choice = new TransportChoice({ select: $("transport"), note: $("push-note"), session: this.#session });
  #client;
  #agent = "";
  #conversation = new Conversation();
  #conversationId;
  #stream;
  #view = new TurnsView({ list: $("turns"), scroll: $("scroll"), latest: $("latest"), onRetry: (turn) => this.#retry(turn) });
  #connectionTimer;
  #quietTimer;
  #askingForKey;
  #ready; // The agents are known.

  start() {
    this.#listen();
    this.#connect();
    // Another tab may hand us its key: before we ask the service, and the user.
    this.#ready = this.#open().then(() => this.#loadAgents());
  }

  #connect() {
    const base = new URL("../..", import.meta.url).href;
    const token = (conversation) => conversation && this.#session.known(conversation).token;
    this.#client = new StreamClient(base, { apiKey: this.#session.key, token, giveUpMs: Infinity });
  }

  #listen() {
    const message = $("message");
    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send(message.value);
    });
    message.addEventListener("input", () => this.#refreshComposer());
    const isTouch = matchMedia("(pointer: coarse) and (hover: none)");
    message.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || isTouch.matches) return;
      event.preventDefault();
      this.#send(message.value);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !$("key").open && !$("stop").hidden) this.#stop();
    });
    $("stop").addEventListener("click", () => this.#stop());
    $("new").addEventListener("click", () => (location.hash = ""));
    $("suggestions").addEventListener("click", ({ target }) => target.closest("button") && this.#send(target.textContent));
    $("agent").addEventListener("change", ({ target }) => {
      this.#agent = target.value;
      if (this.#conversationId !== undefined) location.hash = "";
    });
    addEventListener("hashchange", () => this.#open());
    for (const type of ["online", "offline"]) addEventListener(type, () => this.#showConnection());
    this.#choice.onChange = () => this.#readAnew();
    this.#session.onNews = (conversation, known) => this.#hearNews(conversation, known);
  }

  // ── Which conversation ────────────────────────────────────────────────────────────────────────────────────

  /** Shows the conversation that the address names: `#agent/conversation`. */
  async #open() {
    const [agent, conversationId] = location.hash.slice(1).split("/").map(decodeURIComponent);
    if (conversationId !== undefined && conversationId === this.#conversationId) return;
    this.#stream?.close();
    this.#stream = undefined;
    this.#conversationId = conversationId || undefined;
    this.#conversation = new Conversation();
    if (agent) this.#agent = agent;
    if ($("agent").value !== this.#agent) $("agent").value = this.#agent;
    this.#choice.tell("");
    this.#show();
    this.#showConnection();
    $("message").focus({ preventScroll: true });
    if (this.#conversationId === undefined) return;
    const conversation = this.#conversation;
    const known = await this.#session.handedOver(this.#conversationId);
    if (conversation !== this.#conversation) return;
    for (const turn of known.turns) conversation.recall(turn);
    if (this.#session.key) this.#connect();
    this.#show();
    this.#read();
  }

  async #loadAgents() {
    const names = await this.#agents();
    if (!names.includes(this.#agent) && this.#conversationId === undefined) this.#agent = names[0];
    $("agent").replaceChildren(...names.map((name) => new Option(name, name, false, name === this.#agent)));
    $("agent").closest("label").hidden = names.length < 2;
  }

  async #agents() {
    try {
      return (await this.#client.health()).agents.map(({ name }) => name);
    } catch (error) {
      if (error instanceof AccessDeniedError && (await this.#askForKey(error))) return this.#agents();
      // Busy or away: the agent of the address is enough, or the service's first when it is back.
      return this.#agent ? [this.#agent] : ["TravelPlanner"];
    }
  }

  // ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Reads the conversation for as long as it is shown. */
  async #read() {
    if (this.#stream !== undefined) return;
    const conversation = this.#conversation;
    const options = {
      isAnswerDue: () => isBusy(conversation),
      session: this.#session,
      onPush: (state) => stream === this.#stream && this.#announce(this.#choice.tell(state)),
    };
    const stream = (this.#stream = openConversation(this.#client, this.#conversationId, options, this.#choice.transport));
    stream.addEventListener("state", () => this.#showConnection());
    conversation.expectAgain();
    this.#expectQuiet(conversation);
    let failure;
    try {
      for await (const event of stream) {
        if (stream !== this.#stream) return;
        this.#heard(conversation, event);
      }
    } catch (error) {
      failure = error;
    }
    if (stream !== this.#stream) return;
    this.#stream = undefined;
    this.#showConnection();
    if (failure instanceof AccessDeniedError && (await this.#askForKey(failure))) this.#read();
    else await this.#restoreMissing(conversation, failure);
  }

  /** Another transport was chosen. */
  #readAnew() {
    this.#choice.tell("");
    this.#stream?.close();
    this.#stream = undefined;
    if (this.#conversationId !== undefined) this.#read();
  }

  #heard(conversation, event) {
    const before = conversation.find(event.run)?.state;
    const turn = conversation.apply(event);
    if (event.type === "tool_call") this.#announce(`Using ${JSON.parse(event.data).name?.replaceAll("_", " ")}`);
    if (turn.state !== before) this.#announce({ done: "Answer complete", failed: "The answer failed", stopped: "Answer stopped" }[turn.state]);
    this.#expectQuiet(conversation);
    this.#view.refresh();
    this.#refreshComposer();
  }

  #expectQuiet(conversation) {
    clearTimeout(this.#quietTimer);
    this.#quietTimer = setTimeout(() => this.#restoreMissing(conversation), QUIET_MS);
  }

  /** Answers that the stream no longer holds come from the durable state. */
  async #restoreMissing(conversation, failure) {
    for (const turn of conversation.turns) {
      if (!turn.run || turn.parts.length > 0 || !["waiting", "running"].includes(turn.state)) continue;
      try {
        conversation.restore(turn, await this.#client.status(this.#agent, this.#conversationId, { run: turn.run }));
      } catch (error) {
        if (error instanceof NotFoundError) Object.assign(turn, { state: "failed", stale: true, error: "This answer is no longer kept." });
      }
    }
    const current = conversation.current;
    if (failure && !(failure instanceof NotFoundError) && current?.state === "running") {
      Object.assign(current, { state: "failed", error: failure.message });
    }
    if (conversation === this.#conversation) this.#show();
  }

  /** Another tab knows more of this conversation. */
  #hearNews(conversationId, known) {
    if (conversationId !== this.#conversationId) return;
    for (const turn of known.turns) this.#conversation.recall(turn);
    this.#show();
    this.#read();
  }

  // ── Saying ────────────────────────────────────────────────────────────────────────────────────────────────

  async #send(text) {
    const message = text.trim();
    if (message === "" || this.#isBusy()) return;
    $("message").value = "";
    const turn = this.#conversation.ask(message);
    this.#show();
    this.#view.toEnd();
    await this.#deliver(this.#conversation, turn);
  }

  async #deliver(conversation, turn) {
    try {
      await this.#ready;
      const begun = this.#conversationId ?? (await this.#begin());
      const { conversationId, runId, streamToken } = await this.#client.run(this.#agent, turn.message, {
        conversationId: begun,
      });
      conversation.taken(turn, runId);
      this.#session.remember(conversationId, { turn: { run: runId, message: turn.message }, token: streamToken });
      if (conversation !== this.#conversation) return;
      if (this.#conversationId === undefined) {
        this.#conversationId = conversationId;
        history.pushState(null, "", `#${encodeURIComponent(this.#agent)}/${conversationId}`);
      }
      this.#announce("Message sent");
      this.#read();
    } catch (error) {
      if (error instanceof AccessDeniedError && (await this.#askForKey(error))) return this.#deliver(conversation, turn);
      const kept = error instanceof RequestRefusedError || error instanceof AccessDeniedError ? error.message : `${error.message} Your message is kept.`;
      if (turn.run === undefined) Object.assign(turn, { state: "unsent", error: kept });
      this.#announce("Message not sent");
    }
    this.#show();
    return undefined;
  }

  /** The id of a new conversation, where one is needed before its first run. */
  async #begin() {
    const { conversationId, streamToken } = await beginConversation(this.#client, this.#choice.transport);
    if (streamToken) this.#session.remember(conversationId, { token: streamToken });
    return conversationId;
  }

  #retry(turn) {
    if (this.#isBusy()) return;
    if (turn.state !== "unsent") {
      this.#send(turn.message);
      return;
    }
    this.#conversation.turns.splice(this.#conversation.turns.indexOf(turn), 1);
    this.#conversation.turns.push(Object.assign(turn, { state: "sending", error: undefined }));
    this.#show();
    this.#deliver(this.#conversation, turn);
  }

  async #stop() {
    const turn = this.#conversation.current;
    if (turn?.run === undefined || !this.#isBusy()) return;
    const conversationId = this.#conversationId;
    Object.assign(turn, { state: "stopping", stopped: true });
    this.#show();
    this.#announce("Stopping");
    try {
      await this.#client.cancel(this.#agent, conversationId, { run: turn.run });
      this.#session.remember(conversationId, { turn: { run: turn.run, message: turn.message, stopped: true } });
    } catch {
      // Its answer goes on; the button is there again.
      if (turn.state === "stopping") Object.assign(turn, { state: "running", stopped: false });
      this.#announce("The answer could not be stopped");
      this.#show();
    }
  }

  // ── The page around it ────────────────────────────────────────────────────────────────────────────────────

  #isBusy() {
    return isBusy(this.#conversation);
  }

  #show() {
    $("welcome").hidden = this.#conversation.turns.length > 0 || this.#conversationId !== undefined;
    this.#view.show(this.#conversation);
    this.#refreshComposer();
  }

  #refreshComposer() {
    const busy = this.#isBusy(), state = this.#conversation.current?.state;
    const hadFocus = document.activeElement === $("stop") || document.activeElement === $("send");
    $("stop").hidden = !busy;
    $("stop").disabled = state === "sending" || state === "stopping";
    $("send").hidden = busy;
    $("send").disabled = $("message").value.trim() === "";
    if (hadFocus && document.activeElement === document.body) $("message").focus();
  }

  /** A connection that is back at once is not worth a flicker. */
  #showConnection() {
    clearTimeout(this.#connectionTimer);
    const state = this.#stream?.state ?? "idle";
    const shown = state !== "idle" && state !== "closed" && state !== "open" && !navigator.onLine ? "offline" : state;
    const pill = $("connection");
    const put = () => {
      const said = CONNECTION[shown];
      pill.hidden = said === undefined;
      if (pill.dataset.state === shown) return;
      const wasLost = ["waiting", "offline"].includes(pill.dataset.state);
      pill.dataset.state = shown;
      pill.lastElementChild.textContent = said ?? "";
      if (shown === "waiting" || shown === "offline") this.#announce("Connection lost");
      else if (wasLost && shown === "open") this.#announce("Connected again");
    };
    // While it comes back it is still lost.
    if (shown === "connecting" && pill.dataset.state !== "idle") return;
    if (shown === "open" || shown === "idle" || shown === "closed") put();
    else this.#connectionTimer = setTimeout(put, FLICKER_MS);
  }

  /** Says something to those who do not see the page. */
  #announce(text) {
    if (text) $("status").textContent = text;
  }

  /** Whether there is a key to go on with. */
  #askForKey(error) {
    this.#askingForKey ??= new Promise((resolve) => {
      const dialog = $("key"), input = $("key-value");
      $("key-why").textContent = error.code === "token_expired"
        ? "Access to this conversation has expired. Enter an API key to go on."
        : this.#session.key === undefined
          ? "Enter an API key to go on. It is kept in this tab until you close it."
          : "That key was not accepted. Please check it.";
      input.value = "";
      dialog.showModal();
      const closed = () => {
        this.#askingForKey = undefined;
        const key = input.value.trim();
        input.value = "";
        if (dialog.returnValue === "use" && key) {
          this.#session.key = key;
          this.#connect();
        }
        resolve(dialog.returnValue === "use" && key !== "");
        dialog.returnValue = "";
      };
      dialog.addEventListener("close", closed, { once: true });
    });
    return this.#askingForKey;
  }
}

new ChatPage().start();

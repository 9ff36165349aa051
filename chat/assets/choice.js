/** The choice of the transport: in the address (`?transport=`), else remembered by the tab, else server-sent events. */

import { isTransport } from "./transport.js";

const DEFAULT = "sse";
const PARAMETER = "transport";
const NOTES = {
  unavailable: "Push is not available now: using server-sent events.",
  refused: "This conversation can’t be pushed, a new one can: using server-sent events.",
};

export class TransportChoice {
  /** Called when the user has chosen. */
  onChange = () => {};
  #select;
  #note;
  #session;

  constructor({ select, note, session }) {
    this.#select = select;
    this.#note = note;
    this.#session = session;
    const address = new URL(location.href);
    const wanted = [address.searchParams.get(PARAMETER), session.transport].find(isTransport);
    select.value = wanted ?? DEFAULT;
    if (address.searchParams.has(PARAMETER)) session.transport = select.value;
    select.addEventListener("change", () => this.#choose());
  }

  get transport() {
    return this.#select.value;
  }

  /** Whether pushes come; tells the note, which is new or empty. */
  tell(state) {
    const note = NOTES[state] ?? "";
    // While another attempt is made, what was said of the last one still holds.
    if (state === "connecting" && this.#note.textContent === NOTES.unavailable) return "";
    this.#note.textContent = note;
    this.#note.hidden = note === "";
    return note;
  }

  #choose() {
    this.#session.transport = this.transport;
    const address = new URL(location.href);
    address.searchParams.delete(PARAMETER);
    history.replaceState(history.state, "", address);
    this.onChange();
  }
}

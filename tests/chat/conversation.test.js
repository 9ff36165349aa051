/** What a stream's events make of a conversation: docs/protocol.md, 4 and 6. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Conversation } from "../../chat/assets/conversation.js";

const text = (turn) => turn.parts.map((part) => part.text ?? part.kind).join("");
const give = (conversation, ...events) => events.forEach(([run, type, data = ""]) => conversation.apply({ type, data, run }));

test("events go to the turn of their run, whichever way it was heard of first", () => {
  const conversation = new Conversation();
  const first = conversation.ask("one");
  conversation.taken(first, "a");
  give(conversation, ["a", "message", "1"], ["a", "done"]);
  const second = conversation.ask("two");
  give(conversation, ["b", "message", "2"]); // Faster than the answer to the request.
  conversation.taken(second, "b");
  give(conversation, ["b", "message", "2"]);
  assert.deepEqual(conversation.turns.map((turn) => [turn.message, turn.state, text(turn)]), [["one", "done", "1"], ["two", "running", "22"]]);
});

test("another tab's run that was taken for ours gets a turn of its own", () => {
  const conversation = new Conversation();
  const ours = conversation.ask("ours");
  give(conversation, ["theirs", "message", "x"]);
  conversation.taken(ours, "ours");
  give(conversation, ["theirs", "message", "y"], ["theirs", "done"], ["ours", "message", "z"]);
  assert.deepEqual(conversation.turns.map((turn) => [turn.run, turn.message, text(turn)]), [["theirs", null, "xy"], ["ours", "ours", "z"]]);
});

test("a reset discards the run's parts, tool calls too, and no other's", () => {
  const conversation = new Conversation();
  give(conversation, ["a", "message", "1"], ["a", "done"]);
  give(conversation, ["b", "tool_call", '{"call_id":"1","name":"t"}'], ["b", "message", "x"], ["b", "reset", "{}"], ["b", "message", "y"]);
  assert.deepEqual(conversation.turns.map(text), ["1", "y"]);
});

test("a stream that is read from its start again takes the place of what is there", () => {
  const conversation = new Conversation();
  const events = [["a", "message", "1"], ["a", "done"], [null, "message", "2"], [null, "done"], [null, "message", "3"]];
  give(conversation, ...events);
  conversation.expectAgain();
  give(conversation, ...events);
  assert.deepEqual(conversation.turns.map((turn) => [turn.state, text(turn)]), [["done", "1"], ["done", "2"], ["running", "3"]]);
});

test("what was stopped is told from what was finished, in this tab and in others", () => {
  const conversation = new Conversation();
  give(conversation, ["a", "message", "1"], ["a", "done"], ["b", "message", "2"]);
  conversation.recall({ run: "a", message: "one", stopped: true });
  conversation.find("b").state = "stopping";
  give(conversation, ["b", "message", "2"], ["b", "done"]);
  assert.deepEqual(conversation.turns.map((turn) => turn.state), ["stopped", "stopped"]);
});

test("what was cancelled elsewhere is told from what was finished", () => {
  const conversation = new Conversation();
  give(conversation, ["a", "message", "1"], ["a", "cancelled", "{}"], ["a", "done"]);
  assert.equal(conversation.turns[0].state, "stopped");
});

test("an answer that only the durable state has is shown, and the stream's own beats it", () => {
  const conversation = new Conversation();
  conversation.recall({ run: "a", message: "one" });
  conversation.restore(conversation.find("a"), { status: "Completed", response: "kept" });
  assert.equal(text(conversation.turns[0]), "kept");
  give(conversation, ["a", "message", "streamed"], ["a", "error", '{"message":"No."}']);
  assert.deepEqual([text(conversation.turns[0]), conversation.turns[0].state, conversation.turns[0].error], ["streamed", "failed", "No."]);
});

test("calls and results find each other, types that are unknown do no harm", () => {
  const conversation = new Conversation();
  give(conversation, ["a", "tool_call", '{"call_id":"1","name":"t","arguments":"{}"}'], ["a", "tool_result", '{"call_id":"1","result":"r"}'],
    ["a", "tool_result", '{"call_id":"2"}'], ["a", "shiny", "?"], ["a", "usage", "{}"], ["a", "tool_call", "no json"]);
  assert.deepEqual(conversation.turns[0].parts.map(({ name, result }) => [name, result]), [["t", "r"], ["tool", undefined]]);
});

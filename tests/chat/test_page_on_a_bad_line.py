"""The chat page in Chromium where connections drop, the network goes, and the service dies: docs/chat.md."""

from __future__ import annotations

import random
import signal
from pathlib import Path

from playwright.async_api import Browser

from soak.cutting_proxy import cutting_proxy
from tests.browser import browsing, needs_chromium
from tests.chat.page import assert_shows, durable_answer, has_state, has_words, open_chat, say, turn
from tests.service import connect_http, running_service

pytestmark = needs_chromium

SHORT_TRIP = "Plan a 1-day trip to Oslo"

#: Sets the pauses between attempts aside: `retry: 1000` a hundred times would be a long test.
HURRY = """const { setTimeout } = window;
window.setTimeout = (callback, ms, ...rest) =>
  setTimeout(callback, ms > 500 && ms < 15_000 ? ms / 50 : ms, ...rest);
"""


async def test_dropped_sockets(browser: Browser, tmp_path: Path) -> None:
    """Connections that are cut all the time cost nothing of the answer, in either of two tabs."""
    chance = random.Random(3)
    # A slow machine's second tab takes seconds to open, and the answer has to last longer.
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="60") as service:
        async with (
            connect_http(service) as http,
            cutting_proxy(service.address) as proxy,
            browsing(browser) as tabs,
        ):
            await tabs.add_init_script(HURRY)
            page, other = await tabs.new_page(), await tabs.new_page()
            await open_chat(page, proxy.url)
            await say(page, "Tell me a joke")
            await has_state(page, "done")
            await other.goto(page.url)
            await has_state(other, "done")
            await say(page, SHORT_TRIP)
            for tab in (page, other):
                await has_words(tab, 20, 1)
            proxy.budget = lambda: chance.randrange(300, 3_000)
            proxy.cut_all()
            for tab in (page, other):
                await has_state(tab, "done", 1)
                await assert_shows(tab, (await durable_answer(http, page))["response"])
            assert proxy.cuts > 3


async def test_offline_and_online(browser: Browser, tmp_path: Path) -> None:
    """Without a network the page says so; with it, the answer goes on at once."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="120") as service:
        async with (
            connect_http(service) as http,
            cutting_proxy(service.address) as proxy,
            browsing(browser) as tabs,
        ):
            page = await tabs.new_page()
            await open_chat(page, proxy.url)
            await say(page, SHORT_TRIP)
            await has_words(page, 20)
            await tabs.set_offline(True)
            proxy.cut_all()
            await page.locator("#connection[data-state=offline]").wait_for()
            await tabs.set_offline(False)
            await has_state(page, "done")
            assert await page.locator("#connection").inner_text() == "Connected"
            await assert_shows(page, (await durable_answer(http, page))["response"])


async def test_a_message_that_can_not_be_sent(browser: Browser, tmp_path: Path) -> None:
    """A message that the service never got is kept, and sent when asked to."""
    with running_service(tmp_path / "data") as service:
        async with cutting_proxy(service.address) as proxy, browsing(browser) as tabs:
            page = await tabs.new_page()
            await open_chat(page, proxy.url)
            proxy.is_down = True
            proxy.cut_all()
            await say(page, SHORT_TRIP)
            await has_state(page, "unsent")
            assert await turn(page).locator(".you p").inner_text() == SHORT_TRIP
            proxy.is_down = False
            await turn(page).get_by_role("button", name="Try again").click()
            await has_state(page, "done")
            assert await page.locator(".turn").count() == 1


async def test_killed_and_restarted_service(browser: Browser, tmp_path: Path) -> None:
    """When the service dies in mid-answer the page says that the answer was cut short, and goes on."""
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="20") as service:
        async with cutting_proxy(service.address) as proxy, browsing(browser) as tabs:
            page = await tabs.new_page()
            await open_chat(page, proxy.url)
            await say(page, SHORT_TRIP)
            await has_words(page, 20)
            service.stop(signal.SIGKILL)
            await page.locator("#connection[data-state=waiting]").wait_for()
            with running_service(tmp_path / "data") as again:
                proxy.address = again.address
                await has_state(page, "failed")
                assert await turn(page).locator(".prose").count() == 1
                await say(page, "Tell me a joke")
                await has_state(page, "done", 1)

"""The vendor's client in a real browser: two users, a cut in mid-run, and the exact text."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, async_playwright

from tests.service import PATIENCE, connect_http, read_plain, running_service, start_run
from tests.signalr.helpers import (
    CONNECTION_STRING,
    FOLLOW,
    Cable,
    emulator,
    negotiated,
    new_thread,
    vendors_client,
)

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
SCRIPT: Final = """
window.said = [];
window.text = "";
const say = (name) => (value) => window.said.push([name, value]);
const on = { text: (text) => (window.text += text), end: say("end"), state: say("state") };
on.reset = () => (window.text = "");
window.follow = async (options) => {
  window.follower = new Follower({ ...options, signalR, base: location.origin, on });
  await window.follower.start();
};
"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        # A container has no namespaces to put its pages into.
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


async def open_page(browser: Browser, base: str, modules: Path) -> Page:
    """A page that the service itself has served, of a user of its own."""
    page = await (await browser.new_context()).new_page()
    page.set_default_timeout(PATIENCE * 1_000)
    await page.goto(f"{base}/api/health")
    bundle = modules / "node_modules/@microsoft/signalr/dist/browser/signalr.js"
    await page.add_script_tag(path=bundle)
    follower = FOLLOW.read_text(encoding="utf-8").replace("export class", "class")
    await page.add_script_tag(content=follower + SCRIPT, type="module")
    return page


async def follow(page: Page, thread: dict[str, Any], user: dict[str, Any]) -> None:
    options = {
        "threadId": thread["thread_id"],
        "streamToken": thread["stream_token"],
        "userToken": user["userToken"],
    }
    await page.evaluate("options => follow(options)", options)


async def test_two_users_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    """Each page shows the exact text of its own conversation, though both were cut in mid-run."""
    modules = vendors_client()
    async with emulator() as signalr, Cable(signalr.port) as cable:
        at = f"{signalr.connection_string}ClientEndpoint={cable.url};"
        settings = {CONNECTION_STRING: at, "DEMO_MODEL_WORDS_PER_SECOND": "200"}
        with running_service(tmp_path / "data", **settings) as service:
            async with connect_http(service) as http:
                pages = [await open_page(browser, service.url, modules) for _ in range(2)]
                threads = [await new_thread(http) for _ in pages]
                for page, thread in zip(pages, threads, strict=True):
                    await follow(page, thread, await negotiated(http))
                for city, page, thread in zip(("Rome", "Oslo"), pages, threads, strict=True):
                    run = await start_run(
                        http, f"Plan a 1-day trip to {city}", conversation_id=thread["thread_id"]
                    )
                    await page.evaluate("run => follower.expect(run)", run["correlation_id"])
                    await page.wait_for_function("() => text.length > 100")
                    cable.cut()
                for city, page, thread in zip(("Rome", "Oslo"), pages, threads, strict=True):
                    await page.wait_for_function("() => said.some(([name]) => name === 'end')")
                    shown = str(await page.evaluate("() => text"))
                    assert shown == await read_plain(http, thread["thread_id"])
                    assert city in shown
                    states = await page.evaluate(
                        "() => said.filter(([name]) => name === 'state').map(([, state]) => state)"
                    )
                    assert "reconnecting" in states

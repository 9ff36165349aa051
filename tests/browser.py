"""A real Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.service import PATIENCE

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

_LISTENING: Final = re.compile(rb"DevTools listening on (ws://\S+)")
PHONE: Final = {"width": 390, "height": 844}


@contextmanager
def running_chromium(profile: Path) -> Iterator[str]:
    """A browser for many tests; where to connect to it."""
    assert CHROMIUM is not None
    # A container's root has no sandbox, and a small /dev/shm.
    arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
    ]
    process = subprocess.Popen(
        [CHROMIUM, *arguments, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        address = next((found for line in process.stderr if (found := _LISTENING.search(line))), None)
        assert address is not None, "Chromium did not start"
        # What else it says has to go somewhere.
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        yield address[1].decode()
    finally:
        process.terminate()
        process.wait(PATIENCE)
    rest.join(PATIENCE)
    process.stderr.close()


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Browser]:
    """The running browser, as one test uses it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(address)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def browsing(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """One user's tabs. What their pages complain of fails the test, but for requests that it made fail."""
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE * 1_000)
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    context.on(
        "console",
        lambda message: (
            complaints.append(message.text)
            if message.type == "error" and "Failed to load resource" not in message.text
            else None
        ),
    )
    try:
        yield context
    finally:
        await context.close()
    assert complaints == []

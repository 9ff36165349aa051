"""A real Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.service import PATIENCE

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

PHONE: Final = {"width": 390, "height": 844}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser, closed at the end."""
    async with async_playwright() as playwright:
        # A container's root has no sandbox, and a small /dev/shm.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def browsing(browser: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """One user's tabs. What their pages complain of fails the test, but for requests that it made fail itself."""
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


async def text_of_answer(page: Page, turn: int = -1) -> str:
    """The words that a turn's answer shows."""
    return await page.locator(".turn").nth(turn).locator(".prose").inner_text()

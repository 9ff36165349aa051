"""What a user does on the chat page, and what they see."""

from __future__ import annotations

from typing import Any, Final

import httpx
from playwright.async_api import Locator, Page

#: Shows a text as the page does when it is complete, and tells whether a turn's answer looks the same.
_LOOKS_LIKE: Final = """async ([turn, text]) => {
  const { MarkdownView } = await import("/api/chat/markdown.js");
  const expected = document.createElement("div");
  new MarkdownView(expected).update(text, { growing: false });
  const shown = [...document.querySelectorAll(".turn")].at(turn).querySelector(".prose").cloneNode(true);
  return [shown.innerHTML, expected.innerHTML];
}"""


def turn(page: Page, at: int = -1) -> Locator:
    """A turn of the conversation."""
    return page.locator(".turn").nth(at)


async def open_chat(page: Page, url: str) -> None:
    """Open the page and wait until it is ready."""
    await page.goto(f"{url}/")
    await page.locator("#welcome").wait_for()


async def say(page: Page, message: str) -> None:
    """Type a message and send it."""
    await page.locator("#message").fill(message)
    await page.keyboard.press("Enter")


async def has_state(page: Page, state: str, at: int = -1) -> None:
    """Wait until a turn is in a state."""
    await page.wait_for_function(
        "([at, state]) => [...document.querySelectorAll('.turn')].at(at)?.dataset.state === state",
        arg=[at, state],
    )


async def has_words(page: Page, count: int, at: int = -1) -> None:
    """Wait until a turn's answer has so many characters."""
    await page.wait_for_function(
        "([at, count]) => ([...document.querySelectorAll('.turn')].at(at)?.querySelector('.prose')"
        "?.textContent.length ?? 0) >= count",
        arg=[at, count],
    )


async def conversation_of(page: Page) -> str:
    """The conversation that the address names."""
    await page.wait_for_function("() => location.hash.includes('/')")
    return str(await page.evaluate("location.hash.split('/')[1]"))


async def durable_answer(http: httpx.AsyncClient, page: Page, agent: str = "TravelPlanner") -> dict[str, Any]:
    """What the service says of the conversation's latest run."""
    path = f"/api/agents/{agent}/run/{await conversation_of(page)}"
    return dict((await http.get(path)).json())


async def assert_shows(page: Page, text: str, at: int = -1) -> None:
    """A turn's answer is exactly this text, rendered."""
    shown, expected = await page.evaluate(_LOOKS_LIKE, [at, text])
    assert shown == expected

"""The chat page in Chromium where it was told to read by SignalR: docs/chat.md, docs/protocol.md, 7.

The text that is shown is the stream's, whatever becomes of pushes, connections and services.
"""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest
from playwright.async_api import Browser, Page, Request, WebSocket

from signalr_emulator.server import SignalREmulator
from soak.cutting_proxy import cutting_proxy
from streaming.http.access import ALGORITHM
from tests.browser import browsing, needs_chromium
from tests.chat.page import assert_shows, conversation_of, durable_answer, has_state, has_words, say, turn
from tests.service import Service, connect_http, eventually, free_port, running_service
from tests.signalr.helpers import CONNECTION_STRING, Cable, emulator

pytestmark = needs_chromium

TRIP: Final = "Plan a 1-day trip to Oslo"
JOKE: Final = "Tell me a joke"
#: So that an answer lasts some seconds.
PACE: Final = "150"
SECRET: Final = "a-secret-of-the-tests-0123456789-0123456789"


@dataclass(slots=True)
class Parts:
    """A service, the emulator it pushes by, and the cable that pages reach it by."""

    service: Service
    http: httpx.AsyncClient
    emulator: SignalREmulator
    cable: Cable


@asynccontextmanager
async def pushing(tmp_path: Path, **settings: str) -> AsyncIterator[Parts]:
    """All of them, while inside."""
    async with emulator() as signalr, Cable(signalr.port) as cable:
        at = f"{signalr.connection_string}ClientEndpoint={cable.url};"
        given = {CONNECTION_STRING: at, "DEMO_MODEL_WORDS_PER_SECOND": PACE, **settings}
        with running_service(tmp_path / "data", **given) as service:
            async with connect_http(service) as http:
                yield Parts(service, http, signalr, cable)


@dataclass
class Traffic:
    """What a page gets, and by which way."""

    page: Page
    frames: list[str] = field(default_factory=list)
    sockets: list[WebSocket] = field(default_factory=list)
    reads: set[Request] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("websocket", self._hear)
        self.page.on("request", self._see)
        self.page.on("requestfinished", self._forget)
        self.page.on("requestfailed", self._forget)

    async def ends_reading(self) -> None:
        """Wait until the page reads no stream, as it has joined and has all that there was."""

        async def reads_nothing() -> bool:
            return not self.reads

        await eventually(reads_nothing, "the page waits for pushes alone")

    async def has_another_socket(self) -> None:
        """Wait until the page has made a second connection."""

        async def is_made() -> bool:
            return len(self.sockets) > 1

        await eventually(is_made, "the page connects again")

    async def is_pushed(self) -> None:
        """Wait until the page is given its text by pushes alone."""

        async def is_alone() -> bool:
            return bool(self.frames) and not self.reads

        await eventually(is_alone, "the page reads no stream, as pushes follow on what it has")

    def _hear(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framereceived", self._take)

    def _take(self, frame: Any) -> None:
        if '"agent' in str(frame):
            self.frames.append(str(frame))

    def _forget(self, request: Request) -> None:
        self.reads.discard(request)

    def _see(self, request: Request) -> None:
        if "/api/agent/stream/" in request.url:
            self.reads.add(request)


async def open_chat(page: Page, url: str) -> Traffic:
    """Open the page, told to read by pushes."""
    traffic = Traffic(page)
    await page.goto(f"{url}/?transport=signalr")
    await page.locator("#welcome").wait_for()
    return traffic


async def open_joined_chat(page: Page, url: str) -> Traffic:
    """Open the page and have a first turn; it has joined then, and each later turn is pushed."""
    traffic = await open_chat(page, url)
    await say(page, JOKE)
    await has_state(page, "done")
    await traffic.ends_reading()
    traffic.frames.clear()
    return traffic


async def ask_until_pushed(page: Page, traffic: Traffic) -> None:
    """Ask, and wait until the page is in the middle of an answer that comes by pushes."""
    await say(page, TRIP)
    await has_words(page, 20)
    await traffic.is_pushed()


async def test_an_answer_is_pushed(browser: Browser, tmp_path: Path) -> None:
    """Pushes alone bring the rest of an answer, tool calls too; another turn and a reload show the same."""
    async with pushing(tmp_path) as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        traffic = await open_joined_chat(page, parts.service.url)
        await ask_until_pushed(page, traffic)
        await page.route("**/api/agent/stream/**", lambda route: route.abort())
        await has_state(page, "done", 1)
        await page.unroute_all()
        second = await durable_answer(parts.http, page)
        await assert_shows(page, second["response"])
        assert await turn(page).locator(".tool").count() == 2
        assert await page.locator("#connection").inner_text() == "Connected"
        await say(page, JOKE)
        await has_state(page, "done", 2)
        await page.reload()
        await has_state(page, "done", 2)
        assert await page.locator("#transport").input_value() == "signalr"
        await assert_shows(page, second["response"], 1)
        await assert_shows(page, (await durable_answer(parts.http, page))["response"], 2)


async def test_a_dropped_websocket(browser: Browser, tmp_path: Path) -> None:
    """A connection that is cut in mid-answer costs nothing of it; pushes go on over a new one."""
    async with pushing(tmp_path) as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        traffic = await open_joined_chat(page, parts.service.url)
        await say(page, TRIP)
        await has_words(page, 20)
        assert traffic.frames
        assert parts.cable.cut() >= 1
        await has_state(page, "done", 1)
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])
        await traffic.has_another_socket()
        await traffic.ends_reading()
        traffic.frames.clear()
        await say(page, JOKE)
        await has_state(page, "done", 2)
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])
        assert traffic.frames


async def test_two_users_do_not_hear_each_other(browser: Browser, tmp_path: Path) -> None:
    """Each of two users is pushed their own conversation to the last word, and nothing of the other's."""
    brisk = {"DEMO_MODEL_WORDS_PER_SECOND": "300"}
    async with pushing(tmp_path, **brisk) as parts, browsing(browser) as one, browsing(browser) as other:
        pages = [await one.new_page(), await other.new_page()]
        traffics = [await open_joined_chat(page, parts.service.url) for page in pages]
        for page, city in zip(pages, ("Oslo", "Rome"), strict=True):
            await say(page, f"Plan a 1-day trip to {city}")
        conversations = [await conversation_of(page) for page in pages]
        for page, traffic, own in zip(pages, traffics, conversations, strict=True):
            await has_state(page, "done", 1)
            await assert_shows(page, (await durable_answer(parts.http, page))["response"])
            assert traffic.frames
            assert all(own in frame for frame in traffic.frames)
        assert len(set(conversations)) == 2


async def test_where_there_is_no_push(browser: Browser, tmp_path: Path) -> None:
    """Without a push service the page says so, and reads by server-sent events; the choice can be undone."""
    # Where others reach it, there is no emulator.
    everywhere = "0.0.0.0"  # noqa: S104 - that is what is tested
    with running_service(tmp_path / "data", HOST=everywhere) as service:
        url = service.url.replace(everywhere, "127.0.0.1")
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http, browsing(browser) as tabs:
            page = await tabs.new_page()
            await open_chat(page, url)
            await say(page, TRIP)
            await has_state(page, "done")
            await assert_shows(page, (await durable_answer(http, page))["response"])
            await page.locator("#push-note", has_text="Push is not available now").wait_for()
            await page.locator("#transport").select_option("sse")
            await page.locator("#push-note").wait_for(state="hidden")
            assert "transport" not in page.url
            await page.reload()
            await has_state(page, "done")
            assert await page.locator("#transport").input_value() == "sse"
            await page.locator("#push-note").wait_for(state="hidden")


async def test_nothing_of_signalr_is_loaded_unless_it_is_chosen(browser: Browser, tmp_path: Path) -> None:
    """The vendor's client is asked for when push is chosen, which a conversation of before can't have."""
    async with pushing(tmp_path, DEMO_MODEL_WORDS_PER_SECOND="0") as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        asked = list[str]()
        page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1]))
        await page.goto(f"{parts.service.url}/?transport=unheard-of")
        await page.locator("#welcome").wait_for()
        assert await page.locator("#transport").input_value() == "sse"
        await say(page, TRIP)
        await has_state(page, "done")
        assert not {"signalr.js", "negotiate"} & set(asked)
        # Nobody has given it the token that joins it.
        await page.locator("#transport").select_option("signalr")
        await page.locator("#push-note", has_text="can’t be pushed, a new one can").wait_for()
        assert "signalr.js" in asked
        await page.locator("#new").click()
        await say(page, TRIP)
        await has_state(page, "done")
        await page.locator("#push-note").wait_for(state="hidden")


@pytest.mark.long
async def test_a_reload_in_mid_answer(browser: Browser, tmp_path: Path) -> None:
    """A page that is loaded again in the middle of an answer is the same user, and is pushed the rest."""
    async with pushing(tmp_path) as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        traffic = await open_chat(page, parts.service.url)
        await say(page, TRIP)
        users = []
        for words in (20, 200, 400):
            await has_words(page, words)
            await traffic.is_pushed()
            token = await page.evaluate("JSON.parse(sessionStorage.getItem('agent-chat:user'))")
            users.append(jwt.decode(token, options={"verify_signature": False})["sub"])
            traffic.frames.clear()
            await page.reload()
        await traffic.is_pushed()
        await has_state(page, "done")
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])
        assert len(set(users)) == 1


@pytest.mark.long
async def test_offline_and_online(browser: Browser, tmp_path: Path) -> None:
    """Without a network the page says so; with it, the answer goes on at once, and is pushed again."""
    async with (
        pushing(tmp_path) as parts,
        cutting_proxy(parts.service.address) as proxy,
        browsing(browser) as tabs,
    ):
        page = await tabs.new_page()
        traffic = await open_chat(page, proxy.url)
        await ask_until_pushed(page, traffic)
        await tabs.set_offline(True)
        parts.cable.cut()
        proxy.cut_all()
        await page.locator("#connection[data-state=offline]").wait_for()
        traffic.frames.clear()
        await tabs.set_offline(False)
        await traffic.is_pushed()
        await has_state(page, "done")
        assert await page.locator("#connection").inner_text() == "Connected"
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])


@pytest.mark.long
async def test_expired_tokens(browser: Browser, tmp_path: Path) -> None:
    """A page whose access token has expired gets another; one whose user has expired is a new one."""
    settings = {"STREAM_TOKEN_SECRETS": SECRET, "SIGNALR_TOKEN_TTL_MINUTES": "0.03"}
    async with pushing(tmp_path, **settings) as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        now = int(time.time())
        claims = {"aud": "agent-signalr-user", "sub": "somebody", "iat": now - 90, "exp": now - 30}
        expired = jwt.encode(claims, SECRET, algorithm=ALGORITHM)
        await page.goto(f"{parts.service.url}/api/chat/icon.svg")
        await page.evaluate("token => sessionStorage.setItem('agent-chat:user', token)", f'"{expired}"')
        traffic = await open_chat(page, parts.service.url)
        await ask_until_pushed(page, traffic)
        assert await page.evaluate("sessionStorage.getItem('agent-chat:user')") != f'"{expired}"'
        first = traffic.sockets[0].url
        query = dict(httpx.URL(first).params)

        async def is_expired() -> bool:
            headers = {"authorization": f"Bearer {query['access_token']}"}
            path = f"{parts.cable.url}/client/negotiate?hub={query['hub']}"
            return (await parts.http.post(path, headers=headers)).status_code == 401

        await eventually(is_expired, "the access token expires")
        parts.cable.cut()
        traffic.frames.clear()
        await traffic.is_pushed()
        await has_state(page, "done")
        key = f"agent-chat:conversation:{await conversation_of(page)}"
        token = await page.evaluate("key => JSON.parse(sessionStorage.getItem(key)).token", key)
        parts.http.headers["x-stream-token"] = token
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])


@pytest.mark.long
async def test_a_key_stays_with_its_service(browser: Browser, tmp_path: Path) -> None:
    """Where a key is asked for, the push is got with it; the SignalR service is never shown it."""
    settings = {"API_KEYS": SECRET, "STREAM_TOKEN_SECRETS": SECRET, "HEALTH_ANONYMOUS": "false"}
    async with pushing(tmp_path, **settings) as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        sent = list[Request]()
        page.on("request", lambda request: sent.append(request))  # noqa: PLW0108 - Playwright marks it
        traffic = await open_chat(page, parts.service.url)
        await page.locator("#key-value").fill(SECRET)
        await page.keyboard.press("Enter")
        await page.locator("#key").wait_for(state="hidden")
        await ask_until_pushed(page, traffic)
        await has_state(page, "done")
        parts.http.headers["x-functions-key"] = SECRET
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])
        to_signalr = [request for request in sent if request.url.startswith(parts.cable.url)]
        assert to_signalr
        for request in to_signalr:
            assert SECRET not in request.url + str(await request.all_headers())


@pytest.mark.long
async def test_a_signalr_service_that_forgets(browser: Browser, tmp_path: Path) -> None:
    """A push service that starts anew has forgotten who had joined; the page joins again."""
    async with pushing(tmp_path, DEMO_MODEL_WORDS_PER_SECOND="20") as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        traffic = await open_chat(page, parts.service.url)
        await ask_until_pushed(page, traffic)
        port = parts.emulator.port
        await parts.emulator.__aexit__(None, None, None)
        parts.cable.cut()
        await page.locator("#push-note", has_text="Push is not available now").wait_for()
        traffic.frames.clear()
        async with emulator(port=port):
            await page.locator("#push-note").wait_for(state="hidden")
            await traffic.is_pushed()
            await has_state(page, "done")
            await assert_shows(page, (await durable_answer(parts.http, page))["response"])


@pytest.mark.long
async def test_a_forgotten_member(browser: Browser, tmp_path: Path) -> None:
    """Where the push service forgets a member without a word, silence makes the page read, and join again."""
    async with pushing(tmp_path, DEMO_MODEL_WORDS_PER_SECOND="20") as parts, browsing(browser) as tabs:
        page = await tabs.new_page()
        traffic = await open_chat(page, parts.service.url)
        await ask_until_pushed(page, traffic)
        hub = parts.emulator._hubs.get("travel")
        conversation = await conversation_of(page)
        [connection] = hub.in_group(conversation)
        hub.remove_user(connection.user, conversation)
        traffic.frames.clear()
        await traffic.is_pushed()
        await has_state(page, "done")
        await assert_shows(page, (await durable_answer(parts.http, page))["response"])


@pytest.mark.long
async def test_killed_and_restarted_service(browser: Browser, tmp_path: Path) -> None:
    """When service and emulator die in mid-answer the page says so, and is pushed what comes next."""
    settings = {"SIGNALR_EMULATOR_PORT": str(free_port()), "PORT": str(free_port())}
    with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND="20", **settings) as service:
        async with browsing(browser) as tabs:
            page = await tabs.new_page()
            traffic = await open_chat(page, service.url)
            await ask_until_pushed(page, traffic)
            service.stop(signal.SIGKILL)
            await page.locator("#connection[data-state=waiting]").wait_for()
            with running_service(tmp_path / "data", DEMO_MODEL_WORDS_PER_SECOND=PACE, **settings) as again:
                async with connect_http(again) as http:
                    await has_state(page, "failed")
                    traffic.frames.clear()
                    await say(page, TRIP)
                    await traffic.is_pushed()
                    await has_state(page, "done", 1)
                    await assert_shows(page, (await durable_answer(http, page))["response"])

"""What tests of the push have in common: an emulator, a plain hub client, a cable to cut, and Node."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from signalr_emulator.hub_protocol import SEPARATOR
from signalr_emulator.server import SignalREmulator
from tests.service import PATIENCE, ROOT

ACCESS_KEY: Final = "an-access-key-of-a-service-that-is-not-there"
FOLLOW: Final = ROOT / "tests" / "signalr" / "follow.mjs"
_NODE: Final = ROOT / "tests" / "signalr" / "node"
CONNECTION_STRING: Final = "AZURE_SIGNALR_CONNECTION_STRING"


@dataclass(slots=True)
class HubClient:
    """A client of the hub protocol that does nothing by itself. A ``with`` block holds its connection."""

    url: str
    token: str
    connection_id: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    _socket: ClientConnection | None = None
    _rest: list[dict[str, Any]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as http:
            parts = urlsplit(self.url)
            negotiated = await http.post(
                f"{parts.scheme}://{parts.netloc}{parts.path}negotiate?{parts.query}",
                headers={"authorization": f"Bearer {self.token}"},
            )
        assert negotiated.status_code == 200, negotiated.text
        self.connection_id = negotiated.json()["connectionId"]
        query = urlencode({"id": self.connection_id, "access_token": self.token})
        self._socket = await connect(f"ws{self.url.removeprefix('http')}&{query}", proxy=None)
        await self._socket.send('{"protocol":"json","version":1}' + SEPARATOR)
        assert await self.message() == {}
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def send(self, text: str) -> None:
        """Send as it is."""
        assert self._socket is not None
        await self._socket.send(text)

    async def message(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        assert self._socket is not None
        while not self._rest:
            async with asyncio.timeout(PATIENCE):
                raw = await self._socket.recv()
            assert isinstance(raw, str)
            assert raw.endswith(SEPARATOR)
            self._rest = [json.loads(each) for each in raw.split(SEPARATOR)[:-1]]
        return self._rest.pop(0)

    async def call(self) -> tuple[str, dict[str, Any]]:
        """The next call of the hub: its target and its argument."""
        while (message := await self.message()).get("type") != 1:
            assert message.get("type") == 6, message
        return str(message["target"]), dict(message["arguments"][0])

    async def calls_up_to(self, *targets: str) -> list[tuple[str, dict[str, Any]]]:
        """All calls up to the first of one of these targets."""
        calls = [await self.call()]
        while calls[-1][0] not in targets:
            calls.append(await self.call())
        return calls


def text_of_calls(calls: list[tuple[str, dict[str, Any]]]) -> str:
    """The text that was pushed."""
    return "".join(argument["text"] for target, argument in calls if target == "agentMessage")


@asynccontextmanager
async def emulator(*, port: int = 0, key: str = ACCESS_KEY) -> AsyncIterator[SignalREmulator]:
    """An emulator on this test's event loop."""
    async with SignalREmulator(key, port=port) as running:
        yield running


class Cable:
    """Carries TCP between clients and a port, until it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        """Where to connect."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> int:
        """Break every connection, without a word. How many there were."""
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers) // 2

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers |= ends
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        # Cut.
        pass
    writer.transport.abort()


def vendors_client() -> Path:
    """The folder of ``node_modules`` with the vendor's client in it; installed at its first use."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node or npm is not installed")
    lock = _NODE / "package-lock.json"
    folder = ROOT / ".pytest_cache" / "signalr-client"
    installed = folder / "node_modules" / ".package-lock.json"
    if not installed.is_file() or installed.stat().st_mtime < lock.stat().st_mtime:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_NODE / name, folder / name)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        os.utime(installed)
    return folder


@dataclass(slots=True)
class NodeFollower:
    """The vendor's client under Node, following one conversation as docs/signalr.md says."""

    process: asyncio.subprocess.Process
    said: list[tuple[str, Any]] = field(default_factory=list)

    async def until(self, name: str) -> Any:
        """What it says next under this name."""
        assert self.process.stdout is not None
        while True:
            async with asyncio.timeout(PATIENCE):
                line = await self.process.stdout.readline()
            assert line, f"it ended, after saying {self.said[-3:]}"
            said, value = json.loads(line)
            self.said.append((said, value))
            if said == name:
                return value

    async def expect(self, run: str) -> None:
        """Tell it that a run has been started."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{run}\n".encode())
        await self.process.stdin.drain()

    @property
    def text(self) -> str:
        """What it shows."""
        shown = ""
        for name, value in self.said:
            shown = "" if name == "reset" else shown + value if name == "text" else shown
        return shown


@asynccontextmanager
async def following(base: str, thread: dict[str, Any], user_token: str) -> AsyncIterator[NodeFollower]:
    """A follower that has joined a thread, while inside."""
    modules = await asyncio.to_thread(vendors_client)
    options = {
        "modules": str(modules),
        "follow": str(FOLLOW),
        "base": base,
        "threadId": thread["thread_id"],
        "streamToken": thread["stream_token"],
        "userToken": user_token,
    }
    process = await asyncio.create_subprocess_exec(
        *("node", str(_NODE / "driver.mjs"), json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    follower = NodeFollower(process)
    try:
        await follower.until("joined")
        yield follower
    finally:
        process.kill()
        # Closes the pipes too.
        await process.communicate()


async def negotiated(http: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    """What a client is told to connect with."""
    response = await http.post("/api/agent/negotiate", headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def new_thread(http: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    """A new conversation, and its token."""
    response = await http.post("/api/agent/create-thread", headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def join(
    http: httpx.AsyncClient, group: str, headers: dict[str, str], connection: str | None = None
) -> httpx.Response:
    """Ask to be told of a conversation."""
    body = {"group": group, **({"connectionId": connection} if connection else {})}
    return await http.post("/api/agent/join-group", json=body, headers=headers)


def random_key() -> str:
    """The key of another service."""
    return secrets.token_hex(32)

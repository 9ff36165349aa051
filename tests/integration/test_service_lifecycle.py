"""Starting, stopping and restarting the standalone service, as an operator sees it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from streaming.sse import ServerSentEvent
from tests.service import (
    SLOW,
    TRIP,
    Service,
    connect_http,
    failed_start,
    finished_run,
    open_events,
    read_events,
    read_plain,
    running_service,
    start_run,
    start_service,
    text_of,
)

RUN = "/api/agents/TravelPlanner/run"
SIGNALS = (signal.SIGTERM, signal.SIGINT)

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows: processes are not stopped by signals"
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def services() -> Iterator[ExitStack]:
    """Services that a test enters here are gone at its end."""
    with ExitStack() as stack:
        yield stack


def start_slow(services: ExitStack, data_dir: Path) -> Service:
    """A service whose runs don't end by themselves while a test lasts."""
    return services.enter_context(running_service(data_dir, DEMO_MODEL_WORDS_PER_SECOND=SLOW))


async def stopped_in_mid_stream(
    service: Service, number: signal.Signals
) -> tuple[str, list[ServerSentEvent], bytes, int]:
    """Stop a service while a client reads: the conversation, the client's events and bytes, the status."""
    async with connect_http(service) as http:
        run = await start_run(http)
        async with open_events(http, run["conversation_id"]) as stream:
            events = [await stream.next(), await stream.next()]
            service.process.send_signal(number)
            events += await stream.rest()
            return (
                run["conversation_id"],
                events,
                bytes(stream.received),
                await asyncio.to_thread(service.wait),
            )


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_stop_in_mid_stream(services: ExitStack, data_dir: Path, number: signal.Signals) -> None:
    """A service that stops lets its readers go with retry and without done, so that they come back.

    Then they are told that the run was interrupted: nobody resumes it.
    """
    service = start_slow(services, data_dir)
    conversation, events, received, status = await stopped_in_mid_stream(service, number)
    assert received.endswith(b"\n\nretry: 1000\n\n")
    assert received.count(b"retry:") == 2
    assert {event.event for event in events} == {"message"}
    assert status == 0
    assert "Traceback" not in service.log
    assert "ERROR" not in service.log
    async with connect_http(start_slow(services, data_dir)) as http:
        rest = await read_events(http, conversation, headers={"last-event-id": events[-1].id})
        assert rest[-1].event == "error"
        assert '"code":"interrupted"' in rest[-1].data
        assert events + rest == await read_events(http, conversation)
        report = (await http.get(f"{RUN}/{conversation}")).json()
        assert (report["status"], report["code"]) == ("Failed", "interrupted")
        assert report["response"] == text_of(events + rest)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
async def test_stop_while_idle(services: ExitStack, data_dir: Path, number: signal.Signals) -> None:
    """An idle service stops cleanly, an open follower of an ended run notwithstanding."""
    service = services.enter_context(running_service(data_dir))
    async with connect_http(service) as http:
        run = await finished_run(http, "Tell me a joke")
        async with open_events(http, run["conversation_id"], {"follow": "true"}) as stream:
            await stream.up_to("done")
            service.process.send_signal(number)
            assert await stream.rest() == []
            assert bytes(stream.received).endswith(b"\n\nretry: 1000\n\n")
    assert await asyncio.to_thread(service.wait) == 0
    assert "Traceback" not in service.log


async def test_streams_survive_a_restart(services: ExitStack, data_dir: Path) -> None:
    """A restarted service has every entry of what it had streamed, and every cursor still resumes."""
    first = services.enter_context(running_service(data_dir))
    async with connect_http(first) as http:
        answer = await finished_run(http)
        conversation = answer["conversation_id"]
        whole = await read_events(http, conversation, {"events": "all"})
    assert first.stop() == 0
    second = services.enter_context(running_service(data_dir))
    assert second.process.pid != first.process.pid
    async with connect_http(second) as http:
        assert await read_events(http, conversation, {"events": "all"}) == whole
        assert await read_plain(http, conversation) == answer["response"]
        for cut in range(1, len(whole) - 1, 25):
            asked = {"cursor": whole[cut - 1].id, "events": "all"}
            assert whole[:cut] + await read_events(http, conversation, asked) == whole
        report = (await http.get(f"{RUN}/{conversation}")).json()
        assert (report["status"], report["response"]) == ("Completed", answer["response"])


async def test_conversation_goes_on_after_a_restart(services: ExitStack, data_dir: Path) -> None:
    """After a restart a conversation takes another turn, which is the one that is shown."""
    first = services.enter_context(running_service(data_dir))
    async with connect_http(first) as http:
        conversation = (await finished_run(http))["conversation_id"]
    first.stop()
    async with connect_http(services.enter_context(running_service(data_dir))) as http:
        answer = await finished_run(http, "Plan a trip to Oslo", conversation_id=conversation)
        assert await read_plain(http, conversation) == answer["response"]


async def test_killed_in_mid_run(services: ExitStack, data_dir: Path) -> None:
    """A run whose service was killed ends as interrupted after the restart, for readers old and new."""
    service = start_slow(services, data_dir)
    async with connect_http(service) as http:
        conversation = (await start_run(http))["conversation_id"]
        async with open_events(http, conversation) as stream:
            seen = [await stream.next(), await stream.next(), await stream.next()]
            service.process.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                await stream.rest()
    service.wait()
    async with connect_http(start_slow(services, data_dir)) as http:
        # At once, before any reader waits for it: nobody resumes what the embedded task hub has lost.
        report = (await http.get(f"{RUN}/{conversation}")).json()
        assert (report["status"], report["code"]) == ("Failed", "interrupted")
        rest = await read_events(http, conversation, headers={"last-event-id": seen[-1].id})
        assert [event.event for event in rest].count("error") == 1
        assert rest[-1].event == "error"
        assert '"code":"interrupted"' in rest[-1].data
        whole = await read_events(http, conversation)
        assert whole[:3] == seen
        assert whole[-len(rest) :] == rest
        again = await start_run(http, "Tell me a joke", conversation_id=conversation)
        async with open_events(http, conversation) as stream:
            assert (await stream.next()).event == "message"
        assert (await http.get(again["links"]["status"])).json()["status"] == "Running"


async def test_killed_while_a_run_waits_for_its_turn(services: ExitStack, data_dir: Path) -> None:
    """A run that was accepted and had not begun ends as interrupted too: nobody waits for it for ever."""
    service = start_slow(services, data_dir)
    async with connect_http(service) as http:
        first = await start_run(http)
        second = await start_run(http, conversation_id=first["conversation_id"])
        async with open_events(http, first["conversation_id"], {"run": first["correlation_id"]}) as stream:
            await stream.next()
    service.stop(signal.SIGKILL)
    async with connect_http(start_slow(services, data_dir)) as http:
        for run in (first, second):
            events = await read_events(http, run["conversation_id"], {"run": run["correlation_id"]})
            assert [event.event for event in events if event.event != "message"] == ["error"]
            assert (await http.get(run["links"]["status"])).json()["code"] == "interrupted"


def test_second_signal_while_stopping(services: ExitStack, data_dir: Path) -> None:
    """An impatient second Ctrl-C ends the service as well, and its Redis with it."""
    service = start_slow(services, data_dir)
    httpx.post(f"{service.url}{RUN}", content=TRIP, trust_env=False)
    service.process.send_signal(signal.SIGINT)
    service.stop(signal.SIGINT)
    assert start_slow(services, data_dir).process.poll() is None, "the data folder is free again"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "eighty", "'eighty'"),
        ("HOST", "192.0.2.1", "192.0.2.1"),
        ("REDIS_CONNECTION_STRING", "http://:secret@x", "redis://"),
        ("REDIS_CONNECTION_STRING", "redis://:secret@x:port", "port"),
        ("REDIS_STREAM_TTL_MINUTES", "0", "above 0"),
        ("DURABLE_TASK_SCHEDULER_CONNECTION_STRING", "nonsense", "Endpoint="),
        ("AZURE_OPENAI_ENDPOINT", "x.openai.azure.com", "http"),
        ("DEMO_MODEL_WORDS_PER_SECOND", "fast", "words per second"),
        ("LOG_LEVEL", "LOUD", "'LOUD'"),
    ],
)
def test_wrong_setting(data_dir: Path, name: str, value: str, words: str) -> None:
    """A wrong setting stops the start with status 2 and one sentence that names it and tells no secret."""
    ended = failed_start(data_dir, **{name: value})
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("Can't start: ")
    assert ended.stderr.count("\n") == 1
    assert name in ended.stderr
    assert words in ended.stderr
    assert "secret" not in ended.stderr


def test_model_without_its_name(data_dir: Path) -> None:
    """A setting that needs another is refused by the name of the one that is missing."""
    ended = failed_start(data_dir, OPENAI_API_KEY="secret")
    assert (ended.returncode, "OPENAI_MODEL" in ended.stderr, "secret" in ended.stderr) == (2, True, False)
    ended = failed_start(data_dir, AZURE_OPENAI_ENDPOINT="https://x.openai.azure.com")
    assert (ended.returncode, "AZURE_OPENAI_CHAT_DEPLOYMENT_NAME" in ended.stderr) == (2, True)


def test_port_in_use(data_dir: Path) -> None:
    """A port that is taken stops the start with exit status 2 and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = failed_start(data_dir, PORT=str(port))
    assert ended.returncode == 2
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_redis_port_in_use(data_dir: Path) -> None:
    """A taken port for the embedded Redis is named by its setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = failed_start(data_dir, EMBEDDED_REDIS_PORT=str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "EMBEDDED_REDIS_PORT" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_second_service_on_the_same_data(service: Service) -> None:
    """A second service on the same data folder is refused with a sentence; the first goes on."""
    ended = failed_start(service.log_path.with_suffix(""))
    assert ended.returncode != 0
    assert "Can't start: " in ended.stderr
    assert "DATA_DIR" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert httpx.get(f"{service.url}/api/health", trust_env=False).status_code == 200


def test_start_again_at_once(data_dir: Path) -> None:
    """The same port and data folder are free again as soon as the service has stopped."""
    first = start_service(data_dir)
    assert first.stop() == 0
    second = start_service(data_dir, PORT=str(first.address[1]))
    assert second.stop() == 0

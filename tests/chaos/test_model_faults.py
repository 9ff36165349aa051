"""Models that fail: every run ends with a reason, keeps what was said, and the next turn works."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.chaos.faulty_runs import FAULTY, error_of, memory_of, shown, start, status_of
from tests.faulty_service import SECRET
from tests.openai_endpoint import openai_endpoint
from tests.service import (
    Service,
    connect_http,
    free_port,
    read_events,
    running_service,
    start_run,
    start_service,
)

#: Runs that hang are stopped after five seconds, in minutes; others take less, on a busy machine too.
RUN_TIMEOUT_MINUTES = "0.0834"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose model fails as it is told to."""
    data_dir = tmp_path_factory.mktemp("faulty") / "data"
    with running_service(data_dir, program=FAULTY, RUN_TIMEOUT_MINUTES=RUN_TIMEOUT_MINUTES) as running:
        yield running


@pytest.fixture
async def http(faulty: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that service."""
    async with connect_http(faulty) as client:
        yield client


@pytest.mark.parametrize("said", ["", "half an ans"])
async def test_model_that_raises(faulty: Service, http: httpx.AsyncClient, said: str) -> None:
    """A model that fails, before its first chunk or after some, ends the stream with an error, once."""
    steps = [{"say": said}] if said else []
    run = await start(http, *steps, {"raise": f"{SECRET} of the model"})
    events = await read_events(http, run["conversation_id"])
    assert shown(events) == said
    assert error_of(events)["code"] == "agent_failed"
    status = await status_of(http, run)
    assert (status["status"], status["response"], status["attempt"]) == ("Failed", said, 1)
    assert SECRET not in str(events) + str(status) + faulty.log


async def test_turn_after_a_failure(http: httpx.AsyncClient) -> None:
    """After a failed turn the model is shown what was said, and nothing of the failure."""
    run = await start(http, {"say": "half"}, {"raise": "no"})
    await read_events(http, run["conversation_id"])
    question, answer = await memory_of(http, run["conversation_id"])
    assert "half" in question
    assert answer == "half"


async def test_model_that_stalls(http: httpx.AsyncClient) -> None:
    """A model that says no more is given up after the run timeout; what it said stays, also in its memory."""
    run = await start(http, {"say": "and then "}, {"stall": 3600})
    events = await read_events(http, run["conversation_id"])
    assert shown(events) == "and then "
    assert error_of(events)["code"] == "run_timeout"
    status = await status_of(http, run)
    assert (status["status"], status["code"]) == ("Failed", "run_timeout")
    assert (await memory_of(http, run["conversation_id"]))[-1] == "and then "


async def test_tool_that_never_ends(http: httpx.AsyncClient) -> None:
    """A tool that waits for ever is given up with its run."""
    run = await start(http, {"call": "wait", "seconds": 3600}, {"say": "never"})
    events = await read_events(http, run["conversation_id"])
    assert (shown(events), error_of(events)["code"]) == ("", "run_timeout")


async def read_failure(service: Service) -> dict[str, str]:
    async with connect_http(service) as client:
        run = await start_run(client, "Tell me a joke", agent="CallbackAgent")
        return error_of(await read_events(client, run["conversation_id"]))


async def test_model_that_refuses_connections(faulty: Service) -> None:
    """A model endpoint where nobody listens ends the run, within the client library's own retries."""
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    data_dir = faulty.log_path.with_name("refused")
    with running_service(data_dir, OPENAI_BASE_URL=nobody, OPENAI_MODEL="m") as service:
        assert (await read_failure(service))["code"] == "agent_failed"
        assert nobody.removesuffix("/v1") not in service.log


@pytest.mark.parametrize("fault", ["status 500", "garbage", "cut"])
async def test_model_endpoint_that_fails(faulty: Service, fault: str) -> None:
    """An endpoint that answers with an error, with nonsense, or breaks off in mid-answer, fails the run."""
    async with openai_endpoint(fault=fault) as endpoint:
        data_dir = faulty.log_path.with_name(fault)
        settings = {"OPENAI_BASE_URL": f"{endpoint.url}/v1", "OPENAI_MODEL": "m"}
        service = await asyncio.to_thread(start_service, data_dir, **settings)
        try:
            assert (await read_failure(service))["code"] == "agent_failed"
            assert "the model's own words" not in service.log
        finally:
            await asyncio.to_thread(service.stop, signal.SIGKILL)


def test_the_closed_port_is_closed() -> None:
    """The port of the refusal test refuses, so that the test means what it says."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port()), timeout=5)

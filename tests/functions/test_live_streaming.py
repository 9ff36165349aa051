"""Chunks reach the client when the agent says them; without the extension the app answers all at once."""

from __future__ import annotations

import json

import pytest

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.connections import connect
from streaming.sse import ServerSentEventDecoder
from tests.functions.conftest import Deploy
from tests.functions_host.worker_process import AppRefused
from tests.service import SLOW, eventually, finished_run, open_events, read_plain, start_run, text_of

EXTENSION = "azurefunctions.extensions.http.fastapi"


async def test_each_chunk_arrives_when_it_is_said(deploy: Deploy, redis_url: str) -> None:
    """Every chunk has reached the client before the next one is written."""
    async with deploy() as app, RedisStreamResponseHandler(connect(redis_url)) as writer:
        await writer.write_chunk("live", "0", 0)
        async with open_events(app.http, "live") as stream:
            for sequence in range(1, 100):
                assert (await stream.next()).data == str(sequence - 1)
                await writer.write_chunk("live", str(sequence), sequence)
            await writer.write_completion("live", 100)
            assert [event.data for event in await stream.rest()] == ["99", "[DONE]"]


async def test_an_agent_is_read_while_it_speaks(deploy: Deploy) -> None:
    """A reader has words of an answer whose run goes on; the run of a reader who leaves goes on too."""
    async with deploy(DEMO_MODEL_WORDS_PER_SECOND=SLOW) as app:
        run = await start_run(app.http, "Plan a 3-day trip to Rome")
        async with open_events(app.http, run["conversation_id"]) as stream:
            assert (await stream.next()).event == "message"
            status = (await app.http.get(run["links"]["status"])).json()
            assert status["status"] == "Running"
        seen = status["entries"]

        async def goes_on() -> bool:
            now = (await app.http.get(run["links"]["status"])).json()
            return bool(now["status"] == "Running" and now["entries"] > seen)

        await eventually(goes_on, "the run goes on")


async def test_a_reader_that_leaves_frees_its_place(deploy: Deploy, redis_url: str) -> None:
    """When a client goes away, in silence too, what was sending to it ends: its place is free for another."""
    async with deploy(MAX_STREAMS="1") as app, RedisStreamResponseHandler(connect(redis_url)) as writer:
        await writer.write_chunk("left", "so far", 0)
        for _ in range(3):

            async def is_free() -> bool:
                try:
                    async with open_events(app.http, "left") as stream:
                        return (await stream.next()).data == "so far"
                except AssertionError:
                    return False

            await eventually(is_free, "there is a place")


async def test_without_the_extension(deploy: Deploy) -> None:
    """The app loads and answers in the classic way: a stream in one piece, with the same bytes."""
    async with deploy() as app:
        run = await finished_run(app.http, "Plan a 1-day trip to Rome")
        path, headers = run["links"]["stream"], {"accept": "text/event-stream"}
        live = await app.http.get(path, headers=headers)
    async with deploy(hide=(EXTENSION,)) as app:
        assert app.host.http_uri is None
        classic = await app.http.get(path, headers=headers)
        assert classic.content == live.content
        assert classic.headers["content-type"] == live.headers["content-type"]
        again = await finished_run(app.http, "Plan a 1-day trip to Rome")
        assert again["response"] == run["response"]
        started = await start_run(app.http, "Plan a 1-day trip to Rome")
        assert await read_plain(app.http, started["conversation_id"]) == run["response"]


@pytest.mark.parametrize("hide", [(), (EXTENSION,)], ids=["live", "classic"])
async def test_an_agent_that_fails(deploy: Deploy, hide: tuple[str, ...]) -> None:
    """Who waits gets an honest status, who reads an error event; the model is asked once, not again."""
    nowhere = "http://127.0.0.1:1/v1"
    async with deploy(hide=hide, OPENAI_BASE_URL=nowhere, OPENAI_API_KEY="k", OPENAI_MODEL="m") as app:
        body = {"message": "Hello", "wait_for_response": True}
        answer = await app.http.post("/api/agents/TravelPlanner/run", json=body)
        assert (answer.status_code, answer.json()["code"]) == (502, "agent_failed")
        stream = await app.http.get(answer.json()["links"]["stream"], headers={"accept": "text/event-stream"})
        assert app.log.count("run ended") == 1
    events = ServerSentEventDecoder().feed(stream.content)
    assert [event.event for event in events] == ["error"]
    assert json.loads(events[0].data)["code"] == "agent_failed"
    assert text_of(events) == ""


async def test_a_setting_that_is_wrong(deploy: Deploy) -> None:
    """An app that can't be meant does not load, and the platform is told which setting it is."""
    with pytest.raises(AppRefused, match="SettingsError: REDIS_CONNECTION_STRING: expected redis://"):
        async with deploy(REDIS_CONNECTION_STRING="http://localhost:6379"):
            pass

"""Runs of the agent that fails as it is told to, and how they end."""

from __future__ import annotations

import json
from typing import Any, Final

import httpx

from streaming.sse import ServerSentEvent
from tests.faulty_service import AGENT
from tests.service import start_run

#: The program that hosts the agent.
FAULTY: Final = "tests.faulty_service"

Step = dict[str, Any]
Run = dict[str, Any]


async def start(http: httpx.AsyncClient, *steps: Step, **more: Any) -> Run:
    """Start a run whose model takes these steps."""
    return await start_run(http, json.dumps(steps), agent=AGENT, **more)


async def status_of(http: httpx.AsyncClient, run: Run) -> dict[str, Any]:
    """Where a run stands."""
    answer = await http.get(run["links"]["status"])
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def cancel(http: httpx.AsyncClient, run: Run) -> httpx.Response:
    """Ask for a run to be stopped."""
    return await http.delete(
        f"/api/agents/{AGENT}/run/{run['conversation_id']}", params={"run": run["correlation_id"]}
    )


async def memory_of(http: httpx.AsyncClient, conversation_id: str) -> list[str]:
    """The texts of the earlier messages that the model of a conversation's next turn is shown."""
    body = {
        "message": json.dumps([{"history": True}]),
        "conversation_id": conversation_id,
        "wait_for_response": True,
    }
    answer = await http.post(f"/api/agents/{AGENT}/run", json=body)
    assert answer.status_code == 200, answer.text
    return list(json.loads(answer.json()["response"]))


def shown(events: list[ServerSentEvent]) -> str:
    """The text that a reader shows in the end."""
    texts: list[str] = []
    for event in events:
        if event.event == "reset":
            texts.clear()
        texts += [event.data] if event.event == "message" else []
    return "".join(texts)


def error_of(events: list[ServerSentEvent]) -> dict[str, Any]:
    """What the last event, an error, says."""
    assert events[-1].event == "error", events[-1]
    return dict(json.loads(events[-1].data))

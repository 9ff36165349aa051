"""The JSON that the run and status routes answer with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from streaming.entries import RunStatus
from streaming.http.answers import Answer
from streaming.store.run_states import RunState

#: Words of the durable task world, which clients of the framework know.
_STATUS_WORDS: Final = {
    RunStatus.PENDING: "Pending",
    RunStatus.RUNNING: "Running",
    RunStatus.COMPLETED: "Completed",
    RunStatus.FAILED: "Failed",
    RunStatus.CANCELLED: "Canceled",
    RunStatus.INTERRUPTED: "Failed",
}
_FAILURE_STATUS: Final = {RunStatus.CANCELLED: 409, RunStatus.INTERRUPTED: 503}


def identity(conversation_id: str, run: str) -> dict[str, Any]:
    """The ids of a run, under all their names."""
    return {
        "conversation_id": conversation_id,
        "session_id": conversation_id,
        "thread_id": conversation_id,
        "correlation_id": run,
    }


def accepted(state: RunState, message: str) -> dict[str, Any]:
    """The run goes on in the background."""
    return {
        "status": "accepted",
        "response": "Agent request accepted",
        "message": message,
        **identity(state.conversation_id, state.run),
        "links": _links(state),
    }


def answered(state: RunState, message: str, answer: Answer) -> dict[str, Any]:
    """The run has its answer."""
    return {
        "status": "success",
        "response": answer.text,
        "message": message,
        **identity(state.conversation_id, state.run),
        "links": _links(state),
    }


def failed(state: RunState, answer: Answer) -> tuple[int, dict[str, Any]]:
    """The run has no answer: an honest status, and how far it came."""
    return _FAILURE_STATUS.get(answer.status, 502), {
        "status": _STATUS_WORDS[answer.status],
        "error": answer.error,
        "code": answer.code,
        "response": answer.text,
        **identity(state.conversation_id, state.run),
        "links": _links(state),
    }


def run_report(run: RunState | dict[str, Any], answer: Answer | None) -> dict[str, Any]:
    """Where a run stands. A ``dict`` holds the ids of one that only the durable state remembers."""
    if isinstance(run, RunState):
        report = {
            "status": _STATUS_WORDS[run.status],
            "agent": run.agent,
            **identity(run.conversation_id, run.run),
            "attempt": run.attempt,
            "entries": run.entries,
            "created_at": _time(run.created),
            "started_at": _time(run.started),
            "ended_at": _time(run.ended),
            "links": _links(run),
        }
    else:
        failed_run = answer is not None and answer.error is not None
        cancelled = answer is not None and answer.code == RunStatus.CANCELLED.value
        word = "Canceled" if cancelled else "Failed" if failed_run else "Completed"
        report = {"status": word, **run}
    if answer is not None:
        report["response"] = answer.text
        if answer.error is not None:
            report |= {"error": answer.error, "code": answer.code}
    return report


def _links(state: RunState) -> dict[str, str]:
    return {
        "stream": f"/api/agent/stream/{state.conversation_id}",
        "status": f"/api/agents/{state.agent}/run/{state.conversation_id}?run={state.run}",
    }


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")

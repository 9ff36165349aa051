"""Reads the request of the ``run`` route: a text or JSON body, query and headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from streaming.errors import InvalidInput
from streaming.http.messages import HttpRequest, parse_flag
from streaming.identifiers import check_conversation_id
from streaming.text_joiner import storable

#: The names of a conversation's id, the framework's among them.
ID_NAMES: Final = ("conversation_id", "session_id", "thread_id")
ID_HEADERS: Final = ("x-ms-conversation-id", "x-ms-session-id", "x-ms-thread-id")
WAIT_HEADER: Final = "x-ms-wait-for-response"
ROLES: Final = ("user", "system", "assistant")


@dataclass(frozen=True, slots=True)
class RunInput:
    """What a client asked for."""

    message: str
    is_json: bool
    #: ``None``: a new conversation.
    conversation_id: str | None
    #: ``None``: as the agent does by default.
    wait: bool | None
    role: str
    enable_tool_calls: bool
    options: dict[str, Any]


def parse_run_input(request: HttpRequest) -> RunInput:
    """Read a run request.

    Raises:
        InvalidInput: something in it can't be used.
    """
    is_json = "json" in request.headers.get("content-type", "").lower()
    text = _decoded(request.body)
    body = _json_object(text) if is_json else {"message": text}
    message = body.get("message")
    if not isinstance(message, str) or not message.strip():
        where = 'a JSON string in "message"' if is_json else "the message as the request's body"
        raise InvalidInput("message", message, where)
    return RunInput(
        message=storable(message),
        is_json=is_json,
        conversation_id=_conversation_id(request, body),
        wait=_wait(request, body),
        role=_role(body.get("role")),
        enable_tool_calls=parse_flag("enable_tool_calls", body.get("enable_tool_calls", True)),
        options=_options(body.get("response_format")),
    )


def _decoded(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput("body", body[:20], "UTF-8 text") from None


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("body", text, "a JSON object, or a text/plain message") from None
    if not isinstance(body, dict):
        raise InvalidInput("body", text, 'a JSON object such as {"message": "…"}')
    return body


def _conversation_id(request: HttpRequest, body: Mapping[str, Any]) -> str | None:
    given: dict[str, Any] = {name: body[name] for name in ID_NAMES if body.get(name) is not None}
    given |= {f"{name} (query)": request.query[name] for name in ID_NAMES if request.query.get(name)}
    given |= {name: request.headers[name] for name in ID_HEADERS if request.headers.get(name)}
    found: str | None = None
    for name, value in given.items():
        if not isinstance(value, str):
            raise InvalidInput(name, value, "a string")
        if found is not None and value != found:
            raise InvalidInput(name, value, f"the same conversation as elsewhere in the request, {found!r}")
        found = value
    return None if found is None else check_conversation_id(found)


def _wait(request: HttpRequest, body: Mapping[str, Any]) -> bool | None:
    for source, name in ((request.headers, WAIT_HEADER), (request.query, "wait_for_response")):
        value = source.get(name)
        if value:
            return parse_flag(name, value)
    value = body.get("wait_for_response")
    return None if value is None else parse_flag("wait_for_response", value)


def _role(value: object) -> str:
    if value is None:
        return "user"
    if isinstance(value, str) and value.strip().lower() in ROLES:
        return value.strip().lower()
    raise InvalidInput("role", value, f"one of {', '.join(ROLES)}")


def _options(response_format: object) -> dict[str, Any]:
    if response_format is None or response_format in ("text", "json"):
        return {}
    # The framework's own form names a Python class to import, which is nothing to take from a client.
    if not isinstance(response_format, dict) or "__response_schema_type__" in response_format:
        raise InvalidInput("response_format", response_format, "a JSON schema object")
    return {"response_format": response_format}

"""The OpenAPI document is true: of the routes, of the contract, and of what a running service answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from streaming.http.access import Needs
from streaming.http.openapi import _WRITTEN, NEEDS
from streaming.http.routes import ROUTES, Route
from streaming.sse import ServerSentEventDecoder
from tests.all_routes import ALL_ROUTES
from tests.service import PATIENCE, ROOT, Service, running_service

#: Requests for each operation and mode: together about 15 seconds.
EXAMPLES: Final = 60
#: For those of a bridge, whose parts are simpler: together about 5 seconds.
BRIDGE_EXAMPLES: Final = 25
STREAM: Final = next(route for route in ALL_ROUTES if route.name == "stream")
KEY: Final = "a-key-that-opens-everything"
WITH_KEY: Final = {"x-functions-key": KEY}
#: Requests are made up anew in each release of the libraries, but not in each run.
SETTINGS: Final = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose every response ends soon, with keys and tokens."""
    short = {"STREAM_MAX_MINUTES": "0.002", "STREAM_APPEAR_TIMEOUT_SECONDS": "0.01"}
    secrets = {"API_KEYS": KEY, "STREAM_TOKEN_SECRETS": "s" * 64}
    with running_service(tmp_path_factory.mktemp("brief") / "data", **short, **secrets) as running:
        yield running


@pytest.fixture(scope="module")
def user(brief: Service) -> dict[str, str]:
    """Who joins conversations: without a user only a connection could, and there is none."""
    answer = httpx.post(f"{brief.url}/api/agent/negotiate", headers=WITH_KEY, trust_env=False).json()
    return {"x-user-token": str(answer["userToken"])}


@pytest.fixture(scope="module")
def known(brief: Service) -> list[str]:
    """Conversations that there are, so that not all that is asked for is unknown."""
    with httpx.Client(base_url=brief.url, headers=WITH_KEY, timeout=PATIENCE, trust_env=False) as client:
        body = {"message": "Tell me a joke", "wait_for_response": True}
        return [
            str(client.post("/api/agents/TravelPlanner/run", json=body).json()["conversation_id"])
            for _ in range(2)
        ]


def operation_of(route: Route) -> dict[str, Any]:
    return dict(_WRITTEN["paths"][route.path][route.method.lower()])


@pytest.mark.parametrize(
    ("route", "mode"),
    [
        pytest.param(route, mode, id=f"{route.name}-{mode.value}")
        for route in ALL_ROUTES
        for mode in GenerationMode
        # Those without parameters can't be asked wrongly.
        if mode is GenerationMode.POSITIVE or "{" in route.path
    ],
)
def test_a_running_service_answers_as_documented(
    brief: Service, known: list[str], user: dict[str, str], route: Route, mode: GenerationMode
) -> None:
    """Whatever is asked, rightly or not: no fault, only documented statuses, headers, types and bodies."""
    schema = schemathesis.openapi.from_url(f"{brief.url}/api/openapi.json")
    operation = schema[route.path][route.method]
    left_out = {
        # A cursor of the right form may still be one that no stream has given out.
        "stream": [positive_data_acceptance],
        # Of several places that say whether to wait, only the first is looked at.
        "run": [negative_data_rejection],
    }.get(route.name, [])
    statuses: list[int] = []

    @settings(SETTINGS, max_examples=EXAMPLES if route in ROUTES else BRIDGE_EXAMPLES)
    @given(case=operation.as_strategy(generation_mode=mode), conversation=st.sampled_from([None, *known]))
    def ask(case: Any, conversation: str | None) -> None:
        without = list(left_out)
        if conversation is not None and "conversation_id" in (case.path_parameters or {}):
            case.path_parameters["conversation_id"] = conversation
            # What was to be wrong may have been this.
            without.append(negative_data_rejection)
        headers = WITH_KEY | (user if route.name == "join_group" else {})
        response = case.call(headers=headers, timeout=PATIENCE)
        statuses.append(response.status_code)
        case.validate_response(response, headers=headers, excluded_checks=without)

    ask()
    if mode is GenerationMode.POSITIVE:
        assert min(statuses) < 300


def test_the_document_is_a_valid_one(brief: Service) -> None:
    """It is an OpenAPI 3.1 document by that standard's own schema."""
    schemathesis.openapi.from_url(f"{brief.url}/api/openapi.json").validate()


def test_every_route_is_documented() -> None:
    """The document has exactly the contract's routes, each by its name and with what it needs."""
    documented = {
        (method.upper(), path): (operation["operationId"], Needs(operation[NEEDS]))
        for path, operations in _WRITTEN["paths"].items()
        for method, operation in operations.items()
        if method != "parameters"
    }
    assert documented == {(route.method, route.path): (route.name, route.needs) for route in ALL_ROUTES}


def documented_errors() -> set[tuple[str, str]]:
    """Status and code of each error of the document."""
    found = set()
    for route in ALL_ROUTES:
        for status, response in operation_of(route)["responses"].items():
            name = response.get("$ref", "").rpartition("/")[2]
            written = str(_WRITTEN["components"]["responses"][name]) if name else ""
            for codes in re.findall(r"'code': \{'enum': \[([^\]]*)\]", written):
                found |= {(status, code) for code in re.findall(r"\w+", codes)}
    return found


def test_every_error_is_documented() -> None:
    """The document has the errors of the contract's table and those of failed runs, and no others."""
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = protocol.partition("### 5.7 Errors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+(?:, \d+)*) \| (`\w+`(?:, `\w+`)*) \|", section, re.MULTILINE)
    table = {
        (status, code)
        for statuses, codes in rows
        for status, code in zip_longest(statuses.split(", "), re.findall(r"\w+", codes))
    }
    runs = {
        ("409", "cancelled"),
        ("502", "agent_failed"),
        ("502", "run_timeout"),
        ("503", "interrupted"),
        ("503", "not_started"),
        ("503", "stream_lost"),
    }
    # Not of a route, but of there being none.
    no_route = {("405", "method_not_allowed")}
    assert documented_errors() | no_route == table | runs


def zip_longest(statuses: list[str], codes: list[str]) -> list[tuple[str, str]]:
    """``404, 405`` with two codes is one each; one status has all its codes, one code all its statuses."""
    if len(statuses) == len(codes):
        return list(zip(statuses, codes, strict=True))
    return [(status, code) for status in statuses for code in codes]


def test_security_is_listed_where_it_is_on(service: Service, brief: Service) -> None:
    """A service without keys and tokens documents none; one with them says which operation takes which."""
    bare = httpx.get(f"{service.url}/api/openapi.json", trust_env=False).json()
    assert "securitySchemes" not in bare["components"]
    assert all(
        operation["security"] == []
        for path in bare["paths"].values()
        for name, operation in path.items()
        if name != "parameters"
    )
    guarded = httpx.get(f"{brief.url}/api/openapi.json", trust_env=False).json()
    stream = guarded["paths"]["/api/agent/stream/{conversation_id}"]["get"]["security"]
    health = guarded["paths"]["/api/health"]["get"]["security"]
    assert [[*way] for way in stream] == [
        ["key"],
        ["keyInQuery"],
        ["token"],
        ["tokenAsBearer"],
        ["tokenInQuery"],
    ]
    assert health == []
    assert KEY not in str(guarded)


def test_the_example_of_a_stream_is_one() -> None:
    """The document's example of server-sent events is read as a browser would."""
    content = operation_of(STREAM)["responses"]["200"]["content"]["text/event-stream"]
    events = ServerSentEventDecoder().feed(content["example"].encode())
    assert [event.event for event in events] == ["message", "done"]

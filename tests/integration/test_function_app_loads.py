"""The function app loads the way the platform's indexer loads it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

from hosting.functions_app import ROUTE_PREFIX
from streaming.http.access import Needs
from streaming.http.routes import Route
from tests.all_routes import ALL_ROUTES
from tests.service import ROOT

EXTENSION: Final = "azurefunctions.extensions.http.fastapi"
AGENTS: Final = ("TravelPlanner", "CallbackAgent")
#: Of the tester's environment; everything else is as on a machine that has no settings.
_INHERITED: Final = ("HOME", "PATH", "SYSTEMROOT", "TEMP")
#: What the platform's worker does with an app, and then tells the Functions host.
_INDEX: Final = """
import importlib, json, sys, time

if "--without-extension" in sys.argv:
    sys.modules["azurefunctions.extensions.http.fastapi"] = None
began = time.perf_counter()
module = importlib.import_module("function_app")
seconds = time.perf_counter() - began

from azure.functions import FunctionRegister

[app] = [value for value in vars(module).values() if isinstance(value, FunctionRegister)]
base = sys.modules.get("azurefunctions.extensions.base")
print(json.dumps({
    "seconds": seconds,
    "streams": base is not None and base.HttpV2FeatureChecker.http_v2_enabled(),
    "functions": {
        function.get_function_name(): {
            "bindings": [json.loads(binding) for binding in function.get_raw_bindings()],
            "annotations": {
                name: f"{hint.__module__}.{hint.__qualname__}"
                for name, hint in function.get_user_function().__annotations__.items()
            },
        }
        for function in app.get_functions()
    },
}))
"""


def run_indexer(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", _INDEX, *arguments],
        cwd=ROOT,
        env={**inherited, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module", params=["with extension", "without extension"])
def indexed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the indexer finds, with the extension that makes streams live and without it."""
    arguments = () if request.param == "with extension" else ("--without-extension",)
    finished = run_indexer(*arguments)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    assert found["streams"] is (request.param == "with extension")
    print(f"function_app, {request.param}: imported in {found['seconds']:.2f} s")  # noqa: T201 - told with -s, not judged
    return found


def binding(function: dict[str, Any], kind: str) -> dict[str, Any]:
    [found] = [each for each in function["bindings"] if each["type"] == kind]
    return dict(found)


@pytest.mark.parametrize("route", ALL_ROUTES, ids=lambda route: route.name)
def test_every_route_is_a_function(indexed: dict[str, Any], route: Route) -> None:
    """Each route is an HTTP function with a durable client; what needs a key has it asked for."""
    function = indexed["functions"][route.name]
    assert binding(function, "httpTrigger") == {
        "direction": "IN",
        "type": "httpTrigger",
        "name": "req",
        "methods": [route.method],
        "authLevel": "ANONYMOUS" if route.needs is Needs.NOTHING else "FUNCTION",
        "route": route.path.removeprefix("/api/"),
    }
    assert binding(function, "durableClient") == {
        "direction": "IN",
        "type": "durableClient",
        "name": "client",
    }
    assert binding(function, "http") == {"direction": "OUT", "type": "http", "name": "$return"}


#: Of the routes of the push, those that a stream token opens.
PUSH_WITH_TOKENS = ("negotiate", "negotiate_by_get", "join_group")


def test_with_tokens_browsers_reach_their_routes() -> None:
    """With stream tokens on, the app decides who reads; starting a run still takes a platform key."""
    finished = run_indexer(STREAM_TOKEN_SECRETS="s" * 32, HEALTH_ANONYMOUS="true")
    assert finished.returncode == 0, finished.stderr
    functions = json.loads(finished.stdout)["functions"]
    levels = {route.name: binding(functions[route.name], "httpTrigger")["authLevel"] for route in ALL_ROUTES}
    without_key = {name for name, level in levels.items() if level == "ANONYMOUS"}
    trail = {"callbacks", "delete_callbacks", "callbacks_timeline"}
    opened = {"stream", "status", "cancel", "health", "live", "ready", "openapi", "chat_page", "chat_file"}
    assert without_key == {*opened, *PUSH_WITH_TOKENS, *trail}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_is_an_entity(indexed: dict[str, Any], agent: str) -> None:
    """Each agent is a durable entity of the framework's name for it."""
    function = indexed["functions"][f"dafx-{agent}"]
    assert binding(function, "entityTrigger") == {
        "direction": "IN",
        "type": "entityTrigger",
        "name": "context",
        "entityName": f"dafx-{agent}",
    }


def test_there_is_nothing_else(indexed: dict[str, Any]) -> None:
    """The framework's own routes are not there: ours answer in their place."""
    wanted = {route.name for route in ALL_ROUTES} | {f"dafx-{agent}" for agent in AGENTS}
    assert indexed["functions"].keys() == wanted


def test_all_functions_speak_http_alike(indexed: dict[str, Any]) -> None:
    """With the extension every HTTP function takes Starlette's requests, without it the classic ones."""
    request, response = (
        ("starlette.requests.Request", "starlette.responses.Response")
        if indexed["streams"]
        else ("azure.functions._http.HttpRequest", "azure.functions._http.HttpResponse")
    )
    for route in ALL_ROUTES:
        annotations = indexed["functions"][route.name]["annotations"]
        assert annotations == {"req": request, "client": "builtins.str", "return": response}


def test_a_wrong_setting_is_named() -> None:
    """A setting that can't be used stops the app from loading, with a sentence that names it."""
    finished = run_indexer(REDIS_CONNECTION_STRING="http://localhost:6379")
    assert finished.returncode != 0
    last_line = finished.stderr.strip().splitlines()[-1]
    assert "SettingsError: REDIS_CONNECTION_STRING: expected redis://" in last_line


def test_an_agent_to_observe_that_there_is_not() -> None:
    """The name of an agent that is not hosted stops the app from loading, with a sentence about it."""
    finished = run_indexer(AUDIT_TRAIL_AGENTS="Nobody")
    assert finished.returncode != 0
    assert "SettingsError: AUDIT_TRAIL_AGENTS: got 'Nobody', expected" in finished.stderr


def test_the_route_prefix_is_that_of_the_host_settings() -> None:
    """The platform puts in front of the routes what the app leaves out of them."""
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    assert f"/{host['extensions']['http']['routePrefix']}/" == ROUTE_PREFIX
    assert all(route.path.startswith(ROUTE_PREFIX) for route in ALL_ROUTES)


@pytest.mark.parametrize("text", ["from fastapi import", "FastAPI()"])
def test_the_app_is_not_taken_for_another_kind(text: str) -> None:
    """Tools that guess a project's kind by its text find no web framework's application here."""
    assert text not in (ROOT / "function_app.py").read_text(encoding="utf-8")

"""What the adapter relies on without a public promise: each moves loudly here before it moves in Azure."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any

import azure.functions as func
from azure.functions import FunctionApp

from hosting import functions_app
from tests.service import ROOT

#: Whose private names or undocumented ways the adapter and the tests' host touch.
EXACT = (
    "azure-functions-durable",
    "azurefunctions-extensions-base",
    "azurefunctions-extensions-http-fastapi",
    "agent-framework-azurefunctions",
)


def registered() -> func.Function:
    """A function as a function app has it."""
    app = FunctionApp()

    @app.route(route="r")
    def handler(req: func.HttpRequest) -> func.HttpResponse:
        raise NotImplementedError

    [function] = app.get_functions()
    return function


def test_a_handler_can_be_replaced() -> None:
    """The one private name that the adapter touches still holds the handler that the platform calls."""
    function, other = registered(), lambda: None
    assert function._func is function.get_user_function()
    functions_app._replace_handler(function, other)
    assert function.get_user_function() is other


def test_only_one_place_touches_it() -> None:
    """No other line of the project touches that name."""
    places = [
        path.name
        for folder in ("hosting", "streaming")
        for path in (ROOT / folder).rglob("*.py")
        if "._func" in path.read_text(encoding="utf-8")
    ]
    assert places == ["functions_app.py"]


def test_the_trigger_names_the_request() -> None:
    """The adapter finds the request's parameter by the trigger's name."""
    trigger = registered().get_trigger()
    assert trigger is not None
    assert trigger.name == "req"


def test_the_platforms_code_asks_what_it_is_given() -> None:
    """The worker code still has the functions that the tests' host drives, each with one request."""
    runtime: Any = importlib.import_module("azure_functions_runtime")
    for name in (
        "worker_init_request",
        "functions_metadata_request",
        "function_load_request",
        "invocation_request",
    ):
        assert list(inspect.signature(getattr(runtime, name)).parameters) == ["request"]


def test_versions_are_exact() -> None:
    """What can move is pinned, and what is installed is what is pinned."""
    pinned = dict(
        line.split(";")[0].strip().split("==")
        for file in ("requirements.txt", "tests/functions_host/requirements.txt")
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    for name in (*EXACT, "azure-functions-runtime"):
        assert importlib.metadata.version(name) == pinned[name]

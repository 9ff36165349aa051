"""Imports run one way, towards the ground. The rooms and their arrows are those of CONTRIBUTING.md."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.source_tree import Module, SourceTree


@dataclass(frozen=True)
class Room:
    """What a top-level module or package may import besides the standard library."""

    #: Rooms or single modules of ours; its own room is always allowed.
    ours: tuple[str, ...]
    #: Packages of others; ``None``: any.
    others: tuple[str, ...] | None = None


#: Everything that a composition root puts together.
_PARTS: Final = (
    "agents",
    "bridges",
    "chat",
    "hosting",
    "inspector",
    "redis_callback",
    "redis_stream_response_handler",
    "streaming",
    "tools",
)

ROOMS: Final = {
    # Azure's packages only to sign in to a Redis there; hiredis and msgspec for what is on the wire.
    "streaming": Room(
        ours=(), others=("azure", "hiredis", "jwt", "msgspec", "redis", "redis_entraid", "yaml")
    ),
    "redis_stream_response_handler": Room(ours=("streaming",), others=("redis",)),
    "redis_callback": Room(
        ours=("redis_stream_response_handler", "streaming"),
        others=("agent_framework", "agent_framework_durabletask"),
    ),
    "tools": Room(ours=()),
    "agents": Room(ours=("hosting.models", "streaming.settings", "tools")),
    "hosting": Room(ours=("redis_callback", "redis_stream_response_handler", "streaming")),
    "bridges": Room(ours=("redis_callback", "redis_stream_response_handler", "streaming")),
    "inspector": Room(ours=("hosting.embedded", "streaming"), others=("redis", "rich")),
    "chat": Room(ours=("streaming",), others=()),
    "function_app": Room(ours=(*_PARTS, "composition")),
    "composition": Room(ours=_PARTS),
    "standalone": Room(ours=(*_PARTS, "composition", "signalr_emulator")),
    "signalr_emulator": Room(ours=(), others=("jwt", "starlette", "uvicorn")),
    "clients": Room(ours=("streaming.sse",), others=("httpx", "rich")),
    # Its contestants are servers and writers of their own.
    "benchmarks": Room(
        ours=(*_PARTS, "clients", "function_app", "standalone"),
        others=("agent_framework", "agent_framework_durabletask", "redis", "starlette", "uvicorn", "uvloop"),
    ),
    "soak": Room(
        ours=("clients", "hosting.embedded", "streaming.identifiers", "streaming.sse"),
        others=("httpx", "redis"),
    ),
    "tests": Room(
        ours=(
            *_PARTS,
            "benchmarks",
            "clients",
            "composition",
            "function_app",
            "signalr_emulator",
            "soak",
            "standalone",
        )
    ),
}

#: Packages that one package of ours alone may import, and the tests: nothing else needs what is optional.
OPTIONAL: Final = {
    "azure.ai": "bridges.azure_ai_agents",
    "azure.monitor": "bridges.telemetry",
    "opentelemetry": "bridges.telemetry",
    "prometheus_client": "bridges.telemetry",
}

#: The floors of ``streaming``, from the ground up: a package imports what lies below it.
FLOORS: Final = (
    ("streaming",),
    ("streaming.store",),
    ("streaming.reading", "streaming.writing"),
    ("streaming.http",),
)

#: The only module that builds Redis clients; tests and benchmarks may build their own.
CLIENT_BUILDER: Final = "streaming.connections"
_MAY_BUILD_CLIENTS: Final = ("tests", "benchmarks", "soak")
_CLIENT_CLASSES: Final = (
    "BlockingConnectionPool",
    "Connection",
    "ConnectionPool",
    "Redis",
    "RedisCluster",
    "Sentinel",
    "StrictRedis",
)
_CLIENT_METHODS: Final = ("from_pool", "from_url")


def unknown_rooms(tree: SourceTree) -> list[str]:
    """Top-level modules without a rule."""
    return sorted(tree.rooms - ROOMS.keys())


def forbidden_imports(tree: SourceTree) -> list[str]:
    """Imports against the arrows."""
    return [
        f"{module.path} imports {name}"
        for module in tree.modules.values()
        if module.room in ROOMS
        for name in sorted(tree.imports(module))
        if not _is_allowed(tree, module.room, name)
    ]


def _is_allowed(tree: SourceTree, room: str, name: str) -> bool:
    top = name.split(".", 1)[0]
    if top == room or top in sys.stdlib_module_names:
        return True
    if top in tree.rooms or top in ROOMS:
        return any(name == ours or name.startswith(f"{ours}.") for ours in ROOMS[room].ours)
    others = ROOMS[room].others
    return others is None or top in others


def stray_imports(tree: SourceTree) -> list[str]:
    """Imports of optional packages outside the one place that may need them."""
    return [
        f"{module.path} imports {name}"
        for module in tree.modules.values()
        for name in sorted(tree.imports(module))
        for package, place in OPTIONAL.items()
        if f"{name}.".startswith(f"{package}.")
        and not f"{module.name}.".startswith(f"{place}.")
        and module.room != "tests"
    ]


def climbing_imports(tree: SourceTree) -> list[str]:
    """Imports inside a room that run up, or across, its floors."""
    return [
        f"{module.path} imports {name}"
        for module in tree.modules.values()
        for name in sorted(tree.own_imports(module))
        if _package(name) != _package(module.name) and _floor(name) >= _floor(module.name) >= 0
    ]


def _package(name: str) -> str:
    packages = [package for floor in FLOORS for package in floor if f"{name}.".startswith(f"{package}.")]
    return max(packages, key=len, default="")


def _floor(name: str) -> int:
    return next((level for level, floor in enumerate(FLOORS) if _package(name) in floor), -1)


def import_cycles(tree: SourceTree) -> list[str]:
    """A circle of modules that import each other."""
    graph = {name: tree.own_imports(module) - {name} for name, module in tree.modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" → ".join(reversed(error.args[1]))]
    return []


def redis_behind_clients(tree: SourceTree) -> list[str]:
    """Ways by which a client reaches redis through what it imports."""
    found, seen = [], set()
    waiting = [module for module in tree.modules.values() if module.room == "clients"]
    while waiting:
        module = waiting.pop()
        seen.add(module.name)
        imports = tree.imports(module)
        found += [f"{module.path} imports {name}" for name in imports if name.split(".", 1)[0] == "redis"]
        waiting += [tree.modules[name] for name in imports - seen if name in tree.modules]
    return found


def built_clients(tree: SourceTree) -> list[str]:
    """Places outside the one module that build Redis clients."""
    return [
        f"{module.path}:{node.lineno} builds a Redis client"
        for module in tree.modules.values()
        if module.name != CLIENT_BUILDER
        and module.room not in _MAY_BUILD_CLIENTS
        and _knows_redis(tree, module)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _called(node) in (*_CLIENT_CLASSES, *_CLIENT_METHODS)
    ]


def _knows_redis(tree: SourceTree, module: Module) -> bool:
    return any(name.split(".", 1)[0] == "redis" for name in tree.imports(module))


def _called(call: ast.Call) -> str | None:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return None


@pytest.fixture(scope="module")
def project() -> SourceTree:
    return SourceTree()


def test_every_room_is_known(project: SourceTree) -> None:
    """Every top-level module has a rule that says what it may import."""
    assert unknown_rooms(project) == [], "give it a rule in ROOMS and a line in CONTRIBUTING.md"


def test_imports_follow_the_arrows(project: SourceTree) -> None:
    """Each room imports what its rule allows and nothing else."""
    assert forbidden_imports(project) == []


def test_optional_packages_are_imported_in_one_place(project: SourceTree) -> None:
    """What is installed by itself is imported by itself."""
    assert stray_imports(project) == []


def test_imports_run_down_the_floors(project: SourceTree) -> None:
    """Inside ``streaming`` HTTP stands on reading and writing, these on the store, that on the ground."""
    assert climbing_imports(project) == []


def test_no_import_cycles(project: SourceTree) -> None:
    """No modules import each other in a circle, not even for types."""
    assert import_cycles(project) == []


def test_clients_never_reach_redis(project: SourceTree) -> None:
    """A client needs no redis installed, not even through what it imports."""
    assert redis_behind_clients(project) == []


def test_one_module_builds_redis_clients(project: SourceTree) -> None:
    """Redis clients are built in ``streaming.connections`` alone."""
    assert built_clients(project) == []


@pytest.mark.parametrize(
    ("rule", "files", "finding"),
    [
        (unknown_rooms, {"misc.py": ""}, "misc"),
        (forbidden_imports, {"streaming/a.py": "import hosting.b", "hosting/b.py": ""}, "hosting.b"),
        (forbidden_imports, {"streaming/a.py": "def f():\n    from openai import x"}, "openai"),
        (forbidden_imports, {"tools.py": "from streaming import errors"}, "streaming"),
        (forbidden_imports, {"agents.py": "from hosting import durable_agents"}, "hosting"),
        (forbidden_imports, {"agents.py": "from hosting.models_two import x"}, "hosting.models_two"),
        (forbidden_imports, {"hosting/a.py": "import standalone"}, "standalone"),
        (forbidden_imports, {"hosting/a.py": "from bridges.signalr import x"}, "bridges.signalr"),
        (forbidden_imports, {"redis_callback.py": "import starlette"}, "starlette"),
        (forbidden_imports, {"standalone.py": "import clients.sse"}, "clients.sse"),
        (forbidden_imports, {"benchmarks/a.py": "from tests import doubles"}, "tests"),
        (forbidden_imports, {"clients/a.py": "import redis"}, "redis"),
        (stray_imports, {"bridges/a.py": "from azure.ai.agents import models"}, "azure.ai.agents"),
        (forbidden_imports, {"clients/a.py": "import streaming.errors"}, "streaming.errors"),
        (
            climbing_imports,
            {"streaming/store/a.py": "import streaming.reading.b", "streaming/reading/b.py": ""},
            "streaming.reading.b",
        ),
        (
            climbing_imports,
            {"streaming/writing/a.py": "import streaming.reading.b", "streaming/reading/b.py": ""},
            "streaming.reading.b",
        ),
        (
            climbing_imports,
            {"streaming/a.py": "import streaming.http.b", "streaming/http/b.py": ""},
            "http.b",
        ),
        (
            import_cycles,
            {"streaming/a.py": "from streaming import b", "streaming/b.py": "import streaming.a"},
            "streaming.a → streaming.b",
        ),
        (
            redis_behind_clients,
            {"clients/a.py": "from streaming.sse import x", "streaming/sse.py": "import redis"},
            "redis",
        ),
        (built_clients, {"hosting/a.py": "from redis.asyncio import Redis\nr = Redis()"}, "a.py:2"),
        (built_clients, {"hosting/a.py": "import redis.asyncio as r\nr.from_url('x')"}, "a.py:2"),
    ],
)
def test_each_rule_can_fail(
    rule: Callable[[SourceTree], list[str]], files: dict[str, str], finding: str, tmp_path: Path
) -> None:
    """A planted violation is found and named."""
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    findings = rule(SourceTree(tmp_path))
    assert len(findings) == 1
    assert finding in findings[0]

"""How long a start takes: the service's second one, and importing the function app."""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Final

from benchmarks.cases.case import Case, Figures, Variant
from benchmarks.contestants.contestant import Kind
from benchmarks.plan import Plan
from benchmarks.plant import Plant, free_port
from benchmarks.programs import Command

_IMPORT: Final = """
import json, time
began = time.perf_counter()
import function_app
print(json.dumps({"took": time.perf_counter() - began}))
"""


def cases(plan: Plan) -> list[Case]:
    """The cases of starting."""
    return [
        Case(
            "start",
            "a second start, with all that was built and written by the first",
            {
                "service": Variant(
                    "the service with its own Redis, until its ready line",
                    Kind.OURS,
                    lambda plant: _start(plant, plan.starts),
                ),
                "function_app": Variant("importing function_app", Kind.OURS, _import),
            },
        )
    ]


def _start(plant: Plant, starts: int) -> Figures:
    with tempfile.TemporaryDirectory(dir=plant.folder) as folder:
        settings = {"HOST": "127.0.0.1", "PORT": str(free_port()), "DATA_DIR": folder}
        # The first one is not measured.
        took = [_ready_after(plant, settings) for _ in range(1 + starts)]
    return {"ready_s": min(took[1:])}


def _ready_after(plant: Plant, settings: dict[str, str]) -> float:
    began = time.monotonic()
    command = Command([sys.executable, "-m", "standalone"], {**settings, "LOG_LEVEL": "WARNING"})
    with plant.program(command, cores=plant.cores.measured | plant.cores.load) as service:
        service.wait_for("ready")
        took = time.monotonic() - began
        service.end()
    return took


def _import(plant: Plant) -> Figures:
    command = Command([sys.executable, "-c", _IMPORT])
    with plant.program(command, cores=plant.cores.measured | plant.cores.load) as program:
        return {"ready_s": float(program.outcome()["took"])}

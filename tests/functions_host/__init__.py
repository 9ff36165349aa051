"""A small Azure Functions host for tests: the platform's own worker code, with a stand-in around it.

What is genuine: ``azure-functions-runtime``, the code that the platform runs in a Python worker, in a process
of its own, with the function app's folder as the platform has it. It indexes the app, checks its bindings,
decodes and encodes what passes, calls the functions on its threads, and serves live HTTP.

What stands in: the host process (``host``), which starts the worker and starts it again; its HTTP front
(``front``) with keys, route prefix and both ways to speak HTTP; the durable extension (``durable``), which
answers the durable client's HTTP calls and gives operations to entities, one batch at a time, at least once;
and gRPC between host and worker, for which there are lines of JSON (``worker_process`` and ``worker``). What
a test can break: kill the worker, lose a batch's outcome, take the durable extension away, shorten
``functionTimeout``, load the app without its HTTP extension.
"""

from __future__ import annotations

import importlib.util
from typing import Final

#: What ``python -m`` runs.
PROGRAM: Final = "tests.functions_host"


def is_installed() -> bool:
    """Whether the platform's worker code is here; it can't be a plain requirement (see requirements.txt)."""
    return importlib.util.find_spec("azure_functions_runtime") is not None

"""The client without the service: what it needs to be installed, and what it never loads."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from tests.service import ROOT

#: Loads a module while packages can't be found, and prints which packages of others it has loaded.
LOAD: Final = """
import importlib, sys
module, *missing = sys.argv[1:]
for name in missing:
    sys.modules[name] = None
importlib.import_module(module)
print(*sorted({name.split(".")[0] for name, found in sys.modules.items() if found}))
"""


async def load(module: str, *missing: str) -> set[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOAD, module, *missing, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return set(out.decode().split())


async def test_client_loads_nothing_of_the_service() -> None:
    """The client and the chat load where neither redis nor anything else of the service is installed."""
    absent = ("redis", "hiredis", "msgspec", "jwt", "yaml", "starlette", "agent_framework", "durabletask")
    loaded = await load("clients.__main__", *absent)
    assert {"clients", "httpx", "rich"} <= loaded


async def test_library_needs_no_rich() -> None:
    """Who imports the client alone needs nothing of the chat's."""
    assert "rich" not in await load("clients", "rich", "redis")

"""``python -m signalr_emulator``: the emulator by itself, for hosts that don't bring one."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from signalr_emulator.server import SignalREmulator, SignalREmulatorError, kept_access_key

#: The port of the vendor's own emulator.
DEFAULT_PORT: Final = 8888


async def _serve(key_file: Path, port: int) -> None:
    async with SignalREmulator(kept_access_key(key_file), port=port) as emulator:
        print(f"AZURE_SIGNALR_CONNECTION_STRING='{emulator.connection_string}'", flush=True)
        await asyncio.Event().wait()


def main() -> int:
    """Run it until it is interrupted. Returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m signalr_emulator",
        description="Azure SignalR Service's serverless mode on this machine, for development.",
    )
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0: any free port (default: %(default)s)"
    )
    parser.add_argument(
        "--key-file", type=Path, default=Path(".data/signalr-emulator.key"), help="default: %(default)s"
    )
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options.key_file, options.port))
    except KeyboardInterrupt:
        return 0
    except (SignalREmulatorError, OSError) as error:
        print(f"Can't start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

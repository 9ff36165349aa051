"""The worker: loads a function app with the platform's own code and does what the host's lines ask of it.

Run as a script, by its path, in a process of its own: the code under it keeps its state in globals, and the
app's folder has to come first where modules are looked for. Reads and writes one JSON object a line.

    python worker.py HOST PORT APP_FOLDER [MODULE_TO_HIDE ...]
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import sys
from typing import Any, Final

#: Of one line: a request's body comes in it.
LINE_LIMIT: Final = 64 * 1024 * 1024
#: Bodies that answer all at once and messages of gRPC are bytes; JSON has none.
BYTES: Final = "bytes"


class Message:
    """Stands for a protobuf message: has the fields that it was made with, of which a ``oneof`` has one."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - protobuf's name
        """The field that is set."""
        return next(iter(self.__dict__), None)


class BindingInfo(Message):
    """Directions of bindings."""

    undefined, out, inout = 0, 1, 2


class StatusResult(Message):
    """How something went."""

    Failure, Success = 0, 1


class SameSite:
    """Of cookies; ``None`` is set below, being a keyword."""

    Lax, Strict, ExplicitNone = 1, 2, 3


setattr(SameSite, "None", 0)


class RpcHttpCookie(Message):
    """A cookie of a response."""

    SameSite = SameSite


class Messages:
    """Stands for the module of protobuf messages that the worker's code is given."""

    BindingInfo = BindingInfo
    StatusResult = StatusResult
    RpcHttpCookie = RpcHttpCookie
    FunctionLoadResponse = FunctionMetadataResponse = InvocationResponse = WorkerInitResponse = Message
    NullableBool = NullableDouble = NullableString = NullableTimestamp = Message
    ParameterBinding = RpcException = RpcFunctionMetadata = RpcHttp = RpcRetryOptions = Message
    TypedData = WorkerMetadata = Message


def _typed_data(value: dict[str, Any]) -> Message:
    """What a binding gets: ``{"string": …}``, ``{"bytes": …}`` or ``{"http": …}``."""
    [(kind, content)] = value.items()
    if kind == BYTES:
        return Message(bytes=base64.b64decode(content))
    if kind != "http":
        return Message(**{kind: content})
    return Message(http=Message(**{**content, "body": _typed_data(content["body"])}))


def _plain(data: Message | None) -> dict[str, Any] | None:
    """The reverse of ``_typed_data``, for what a function returns."""
    kind = data.WhichOneof("data") if data is not None else None
    if data is None or kind is None:
        return None
    content = getattr(data, kind)
    if kind == BYTES:
        return {BYTES: base64.b64encode(content).decode()}
    if kind != "http":
        return {kind: content}
    return {
        "http": {
            "status": int(content.status_code),
            "headers": content.headers,
            "cookies": [(cookie.name, cookie.value) for cookie in content.cookies or ()],
            "body": _plain(content.body),
        }
    }


def _envelope(kind: str, request: Message) -> Message:
    return Message(request=Message(**{kind: request}), properties={"host": "127.0.0.1", "protos": Messages})


class Worker:
    """Answers the host's lines."""

    def __init__(self, runtime: Any, folder: str) -> None:
        self._runtime = runtime
        self._folder = folder

    async def answer(self, line: dict[str, Any]) -> dict[str, Any]:
        """Do what a line asks for."""
        return await (self._init() if line["ask"] == "init" else self._invoke(line))

    async def _init(self) -> dict[str, Any]:
        """Load the app, as the host's first three requests do."""
        wanted = Message(capabilities={}, function_app_directory=self._folder)
        loaded = await self._runtime.worker_init_request(_envelope("worker_init_request", wanted))
        if loaded.result.status != StatusResult.Success:
            return {"error": loaded.result.exception.message}
        found = await self._runtime.functions_metadata_request(
            _envelope("functions_metadata_request", Message())
        )
        functions = []
        for function in found.function_metadata_results or ():
            wanted = Message(function_id=function.function_id)
            await self._runtime.function_load_request(_envelope("function_load_request", wanted))
            bindings = [json.loads(binding) for binding in function.raw_bindings]
            functions.append({"id": function.function_id, "name": function.name, "bindings": bindings})
        return {"functions": functions, "http_uri": loaded.capabilities.get("HttpUri")}

    async def _invoke(self, line: dict[str, Any]) -> dict[str, Any]:
        inputs = [Message(data=_typed_data(value), name=name) for name, value in line["inputs"].items()]
        wanted = Message(
            invocation_id=line["invocation"],
            function_id=line["function"],
            input_data=inputs,
            trigger_metadata={},
            trace_context=Message(trace_parent="", trace_state="", attributes={}),
            retry_context=Message(retry_count=0, max_retry_count=0, exception=None),
        )
        done = await self._runtime.invocation_request(_envelope("invocation_request", wanted))
        if done.result.status != StatusResult.Success:
            return {"error": done.result.exception.message}
        return {"returned": _plain(done.return_value)}


async def serve(host: str, port: int, folder: str) -> None:
    """Answer lines until the host is gone."""
    import azure_functions_runtime as runtime  # type: ignore[import-untyped]  # noqa: PLC0415 - after the paths

    runtime.start_threadpool_executor()
    worker = Worker(runtime, folder)
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_LIMIT)
    answering: set[asyncio.Task[None]] = set()

    async def answer(line: dict[str, Any]) -> None:
        outcome = await worker.answer(line)
        writer.write(json.dumps({"number": line["number"], **outcome}).encode() + b"\n")
        await writer.drain()

    while raw := await reader.readline():
        task = asyncio.create_task(answer(json.loads(raw)))
        answering.add(task)
        task.add_done_callback(answering.discard)
    # As the platform ends a worker whose host is gone: at once, whatever its threads are at.
    os._exit(0)


def main() -> None:
    """Prepare the process as the platform does, and serve."""
    host, port, folder, *hidden = sys.argv[1:]
    # The script's own folder, which the platform's workers have elsewhere.
    sys.path[0] = folder
    os.chdir(folder)
    for module in hidden:
        sys.modules[module] = None  # type: ignore[assignment]  # how an import is made to fail
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(host, int(port), folder))


if __name__ == "__main__":
    main()

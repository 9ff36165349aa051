"""The programs of docs/azure-ai-agents.md and docs/openai-responses.md, run as they are shown."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from typing import Final

from redis_stream_response_handler import RedisStreamResponseHandler
from streaming.entries import RunStatus
from tests.redis_server import RedisServer
from tests.service import ROOT
from tests.vendor_streams import agents_service, responses_service
from tests.vendor_streams.endpoint import Answer, Endpoint, Request, events, json_answer, local_endpoint
from tests.vendor_streams.recorded import BOUND, recorded, text_of

_PROGRAM: Final = re.compile(r"^\.venv/bin/python - (.+?) <<'EOF'\n(.*?)^EOF$", re.MULTILINE | re.DOTALL)
#: The only lines that a local endpoint can't do with: signing in, which the SDK refuses without TLS.
_SIGN_IN: Final = ("DefaultAzureCredential()", '["PROJECT_ENDPOINT"], credential)')
_NO_SIGN_IN: Final = (
    "_AsyncCredential()",
    '["PROJECT_ENDPOINT"], credential, authentication_policy=SansIOHTTPPolicy())',
)
_IMPORTS: Final = (
    "from azure.core.pipeline.policies import SansIOHTTPPolicy\n"
    "from tests.vendor_streams.agents_service import _AsyncCredential\n"
)


def programs(page: str) -> list[str]:
    return [program for _, program in _PROGRAM.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))]


async def run_program(program: str, *arguments: str, **environment: str) -> str:
    """What a program prints; it must end well and complain of nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(BOUND):
        out, errors = await process.communicate(program.encode())
    assert (process.returncode, errors.decode()) == (0, "")
    return out.decode()


def _agents(request: Request) -> Answer:
    """The service's answers to what comes before the run, and after it."""
    if request.path.endswith("/runs"):
        return Answer(events(*agents_service.calling_tools()))
    if request.path.endswith("/submit_tool_outputs"):
        return Answer(events(*agents_service.after_tools()))
    if request.path.endswith("/messages"):
        return json_answer(agents_service.message_event("completed")[1])
    kind = "thread" if request.path.endswith("/threads") else "assistant"
    made = {"id": agents_service.THREAD, "object": kind, "created_at": 1_760_000_000, "name": "TravelPlanner"}
    return json_answer(made)


async def test_the_programs_for_azure_ai_agents(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer
) -> None:
    """The first records a run with a function; the second shows it."""
    record, show = programs("azure-ai-agents.md")
    for line, other in zip(_SIGN_IN, _NO_SIGN_IN, strict=True):
        assert record.count(line) == 1
        record = record.replace(line, other)
    async with local_endpoint() as endpoint:
        endpoint.respond = _agents
        model = {"PROJECT_ENDPOINT": endpoint.url, "MODEL_DEPLOYMENT": "gpt-test"}
        said = await run_program(_IMPORTS + record, redis_for_vendors.url, **model)
        _is_submitted(endpoint)
    assert said == f"conversation: {agents_service.THREAD}\nended: completed\n"
    assert text_of(await recorded(handler, agents_service.THREAD)) == agents_service.ANSWER
    shown = await run_program(show, redis_for_vendors.url, agents_service.THREAD)
    assert agents_service.ANSWER.replace("\r\n", "\n") in shown.replace("\r\n", "\n")
    assert shown.count("[done]") == 2


def _is_submitted(endpoint: Endpoint) -> None:
    submitted = next(request for request in endpoint.requests if request.path.endswith("submit_tool_outputs"))
    assert submitted.body["tool_outputs"] == [{"tool_call_id": "call_1", "output": "sunny in Kyōto"}]


async def test_the_programs_for_the_responses_api(
    handler: RedisStreamResponseHandler, redis_for_vendors: RedisServer
) -> None:
    """The first records a response; the second shows it."""
    record, show = programs("openai-responses.md")
    async with local_endpoint(Answer(responses_service.body(responses_service.whole()))) as endpoint:
        model = {"OPENAI_BASE_URL": endpoint.url, "OPENAI_API_KEY": "none", "MODEL": "gpt-test"}
        said = await run_program(record, redis_for_vendors.url, **model)
    assert said.endswith(f"{responses_service.ANSWER}\nended: completed\n")
    conversation = said.split("\n")[0].removeprefix("conversation: ")
    chunks = await recorded(handler, conversation)
    assert (text_of(chunks), chunks[-1].status) == (responses_service.ANSWER, RunStatus.COMPLETED)
    shown = await run_program(show, redis_for_vendors.url, conversation)
    assert shown.startswith(f"{responses_service.ANSWER}\ncursor: ")

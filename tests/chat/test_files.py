"""The page's files by themselves: docs/chat.md."""

from __future__ import annotations

import gzip

import pytest

from chat.routes import chat_routes
from hosting.functions_app import ClassicHttp
from streaming.http.messages import HttpRequest, HttpResponse
from tests.service import ROOT
from tests.signalr.helpers import vendors_client

ASSETS = ROOT / "chat" / "assets"


async def answer_of(name: str, encoding: str) -> HttpResponse:
    [route] = [route for route in chat_routes() if route.path == "/api/chat/{file}"]
    request = HttpRequest(path={"file": name}, query={}, headers={"accept-encoding": encoding}, body=b"")
    # It asks the service for nothing.
    return await route.endpoint(None, request)  # type: ignore[arg-type]


def test_the_vendors_client_is_unchanged() -> None:
    """What is served as SignalR's client is the file of the package that the tests of the push use."""
    package = vendors_client() / "node_modules" / "@microsoft" / "signalr"
    assert (ASSETS / "signalr.js").read_bytes() == (package / "dist/browser/signalr.min.js").read_bytes()
    version = (package / "package.json").read_text(encoding="utf-8").split('"version": "')[1].split('"')[0]
    assert f"@microsoft/signalr {version}," in (ASSETS / "signalr.LICENSE.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in ASSETS.iterdir() if path.name != "index.html"))
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_every_file_over_classic_http(name: str, encoding: str) -> None:
    """A function app without live streams gives each file byte for byte, with all that its headers say."""
    response = await answer_of(name, encoding)
    answer = await ClassicHttp(1_024).answer(response)
    body = answer.get_body()
    assert (gzip.decompress(body) if encoding == "gzip" else body) == (ASSETS / name).read_bytes()
    assert {each: answer.headers[each] for each in response.headers} == dict(response.headers)


async def test_a_browser_that_has_another_policy_gets_the_page_anew() -> None:
    """A file that was kept under another content security policy is not taken for the same."""
    tags = set()
    for connect_to in ((), ("https://push.example.com",)):
        route = chat_routes(connect_to)[0]
        request = HttpRequest(path={}, query={}, headers={}, body=b"")
        tags.add((await route.endpoint(None, request)).headers["etag"])  # type: ignore[arg-type]
    assert len(tags) == 2

"""The chat page's files on every host: docs/protocol.md, 5.11."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from chat.routes import content_security_policy
from tests.service import connect_http, running_service

#: How a page is told of a push service, and what it may then reach.
PUSH_SERVICES = {
    "Endpoint=https://name.service.signalr.net;AccessKey={key};Version=1.0;": (
        "https://name.service.signalr.net",
        "wss://name.service.signalr.net",
    ),
    "Endpoint=http://127.0.0.1:8888;ClientEndpoint=https://push.example.com:8443;AccessKey={key};": (
        "https://push.example.com:8443",
        "wss://push.example.com:8443",
    ),
}


async def test_the_page_and_all_that_it_names_are_there(http: httpx.AsyncClient) -> None:
    """Page, scripts and styles come from the service itself, under a policy that allows no others."""
    page = await http.get("/api/index")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == content_security_policy(await push_service(http))
    assert not re.search(r"<script(?! type=\"module\" src=)|<style|\son\w+=|style=", page.text)
    named = set(re.findall(r"/api/chat/[\w.-]+", page.text))
    for path in sorted(named):
        file = await http.get(path)
        assert file.status_code == 200, path
        assert file.headers["x-content-type-options"] == "nosniff"
        imports = re.findall(r'^(?:import|\} from) .*?"\./([\w.-]+)";$', file.text, re.MULTILINE)
        assert {f"/api/chat/{name}" for name in imports} <= named, (
            f"{path} is slow: what it imports comes late"
        )


async def push_service(http: httpx.AsyncClient) -> tuple[str, ...]:
    """The origins that the service's pages connect to for pushes."""
    negotiated = await http.post("/api/agent/negotiate")
    if negotiated.status_code == 503:
        return ()
    url = httpx.URL(negotiated.json()["url"])
    return (f"{url.scheme}://{url.netloc.decode()}", f"ws://{url.netloc.decode()}")


@pytest.mark.parametrize("said", PUSH_SERVICES)
async def test_the_page_may_reach_the_push_service(program: str, tmp_path: Path, said: str) -> None:
    """The policy has the configured push service's own origin, by HTTP and by WebSocket, and no other."""
    settings = {"AZURE_SIGNALR_CONNECTION_STRING": said.format(key="k" * 32)}
    with running_service(tmp_path / "data", program=program, **settings) as service:
        async with connect_http(service) as http:
            policy = (await http.get("/api/index")).headers["content-security-policy"]
            assert policy == content_security_policy(PUSH_SERVICES[said])
            assert f"connect-src 'self' {' '.join(PUSH_SERVICES[said])};" in policy
            assert (await http.get("/api/chat/chat.js")).headers["content-security-policy"] == policy


async def test_the_vendors_client_is_there_with_its_licence(http: httpx.AsyncClient) -> None:
    """What is loaded only when push is chosen comes from the service too, and its licence beside it."""
    assert "signalr.js" not in (await http.get("/api/index")).text
    script = await http.get("/api/chat/signalr.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "HubConnectionBuilder" in script.text
    assert "MIT License" in (await http.get("/api/chat/signalr.LICENSE.txt")).text


@pytest.mark.parametrize("path", ["/api/index", "/api/chat/chat.js"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_file_that_is_kept_is_not_sent_again(
    http: httpx.AsyncClient, path: str, encoding: str
) -> None:
    """A browser that has a file is told so in a few bytes, whichever form it has."""
    first = await http.get(path, headers={"accept-encoding": encoding})
    assert first.headers.get("content-encoding", "identity") == encoding
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}'):
        again = await http.get(path, headers={"accept-encoding": encoding, "if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert (await http.get(path, headers={"if-none-match": '"other"'})).content == first.content


@pytest.mark.parametrize(
    "name", ["index.html", "routes.py", "..%2froutes.py", "%2e%2e%2f__init__.py", "none"]
)
async def test_nothing_else_is_served(http: httpx.AsyncClient, name: str) -> None:
    """Only the page's own files are served, whatever path is asked for."""
    assert (await http.get(f"/api/chat/{name}")).status_code == 404


@pytest.mark.standalone
async def test_the_page_at_the_root(http: httpx.AsyncClient) -> None:
    """The standalone service shows the page at its root too."""
    assert (await http.get("/")).content == (await http.get("/api/index")).content

"""The inspector's page and its data: off unless it is set, behind a key, and silent about what was said."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.service import Service, connect_http, finished_run, running_service

KEY = "a-key-that-opens-everything"
WITH_KEY = {"x-functions-key": KEY}
CITY = "Barcelona"


@pytest.fixture(scope="module")
def inspected(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of each host that may be looked into, with a key."""
    data_dir = tmp_path_factory.mktemp("inspected") / "data"
    with running_service(data_dir, program=program, INSPECT_PAGE="true", API_KEYS=KEY) as running:
        yield running


async def test_it_is_off(http: httpx.AsyncClient) -> None:
    """Without the setting there is no such route."""
    for path in ("", "/conversations", "/conversations/c"):
        assert (await http.get(f"/api/inspect{path}")).status_code == 404


async def test_it_needs_a_key(inspected: Service) -> None:
    """The page and what it shows need a key."""
    async with connect_http(inspected) as http:
        for path in ("", "/conversations", "/conversations/c"):
            assert (await http.get(f"/api/inspect{path}")).status_code == 401


async def test_the_page_runs_nothing_but_itself(inspected: Service) -> None:
    """Its policy names its own script and style, lets it reach its own service, and allows no markup."""
    async with connect_http(inspected) as http:
        page = await http.get("/api/inspect", params={"code": KEY})
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    for element in ("script", "style"):
        found = re.search(f"<{element}>(.*)</{element}>", page.text, re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}';" in policy
    rules = ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'")
    for rule in rules:
        assert rule in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"


async def test_what_it_shows(inspected: Service) -> None:
    """The list has each conversation's latest run, and one conversation its timeline; text if asked for."""
    async with connect_http(inspected) as http:
        http.headers.update(WITH_KEY)
        run = await finished_run(http, f"Plan a 1-day trip to {CITY}")
        listed = await http.get("/api/inspect/conversations")
        path = f"/api/inspect/conversations/{run['conversation_id']}"
        shown, with_text = await http.get(path), await http.get(path, params={"text": "true"})
    row = listed.json()["conversations"][0]
    assert (row["conversation_id"], row["status"], row["producer"]) == (
        run["conversation_id"],
        "completed",
        "-",
    )
    conversation = shown.json()
    assert (conversation["is_whole"], conversation["findings"]) == (True, [])
    (timeline,) = conversation["runs"]
    assert timeline["run"] == run["correlation_id"]
    assert [step["kind"] for step in timeline["steps"]][-1] == "end"
    assert CITY not in listed.text + shown.text
    assert run["response"] in "".join(step["text"] for step in with_text.json()["runs"][0]["steps"])


async def test_what_is_not_there(inspected: Service) -> None:
    """What is not there or can't be is told by a status and a sentence."""
    async with connect_http(inspected) as http:
        http.headers.update(WITH_KEY)
        unknown = await http.get("/api/inspect/conversations/unknown")
        invalid = await http.get("/api/inspect/conversations/@")
        flag = await http.get("/api/inspect/conversations/unknown", params={"text": "perhaps"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "conversation_not_found")
    assert (invalid.status_code, flag.status_code) == (400, 400)
    assert "text is 'perhaps'" in flag.json()["error"]

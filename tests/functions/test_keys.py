"""Who may do what on the platform: its keys, and how browsers, which have none, read their conversations."""

from __future__ import annotations

import pytest

from tests.functions.conftest import Deploy
from tests.service import finished_run, read_events, start_run, stream_path

KEY = "the-master-key"
WITH_KEY = {"x-functions-key": KEY}
SECRET = "signs-and-verifies-" * 4
RUN = "/api/agents/TravelPlanner/run"


async def test_everything_wants_a_key(deploy: Deploy) -> None:
    """With no settings all routes but the OpenAPI document want a key of the platform, in either place."""
    # Nobody waits here for the conversation to appear.
    async with deploy(key=KEY, STREAM_APPEAR_TIMEOUT_SECONDS="0.1") as app:
        routes = [
            ("POST", RUN),
            ("GET", f"{RUN}/c"),
            ("DELETE", f"{RUN}/c"),
            ("GET", stream_path("c")),
            ("GET", "/api/health"),
        ]
        for method, path in routes:
            assert (await app.http.request(method, path)).status_code == 401
            wrong = await app.http.request(method, path, headers={"x-functions-key": "another"})
            assert wrong.status_code == 401
            assert (await app.http.request(method, path, headers=WITH_KEY)).status_code != 401
            assert (await app.http.request(method, path, params={"code": KEY})).status_code != 401
        assert (await app.http.get("/api/openapi.json")).status_code == 200


async def test_a_browser_reads_with_its_token(deploy: Deploy) -> None:
    """With stream tokens on, a page that has no key reads, asks and stops its own conversation, no other."""
    async with deploy(key=KEY, STREAM_TOKEN_SECRETS=SECRET) as app:
        assert (await app.http.post(RUN, content="Hello")).status_code == 401
        app.http.headers.update(WITH_KEY)
        run = await finished_run(app.http, "Tell me a joke")
        other = await start_run(app.http, "Tell me a joke")
        del app.http.headers["x-functions-key"]
        token = {"token": run["stream_token"]}
        assert (await read_events(app.http, run["conversation_id"], token))[-1].event == "done"
        status = await app.http.get(run["links"]["status"], headers={"x-stream-token": run["stream_token"]})
        assert status.json()["status"] == "Completed"
        for path in (other["links"]["stream"], other["links"]["status"]):
            assert (await app.http.get(path)).status_code == 401
            forged = await app.http.get(path, headers={"x-stream-token": run["stream_token"]})
            assert (forged.status_code, forged.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(("setting", "status"), [("true", 200), ("false", 401), ("", 401)])
async def test_health_by_setting(deploy: Deploy, setting: str, status: int) -> None:
    """Health is open where HEALTH_ANONYMOUS says so: load balancers and probes have no key."""
    async with deploy(key=KEY, HEALTH_ANONYMOUS=setting) as app:
        assert (await app.http.get("/api/health")).status_code == status


async def test_the_route_prefix(deploy: Deploy) -> None:
    """Routes are where host.json puts them, and nothing is elsewhere."""
    async with deploy() as app:
        assert (await app.http.get("/api/health")).status_code == 200
        assert (await app.http.get("/health")).status_code == 404
        assert (await app.http.post("/api/health")).status_code == 404

"""What is deployed: the folder without what .funcignore names, and nothing else of the project near."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pathspec
import pytest

from tests.functions.conftest import Deploy
from tests.service import ROOT, finished_run, read_plain

#: What an app on the platform has no use for, or must not be given.
LEFT_OUT = (
    *(".git", ".ci", ".venv", "tests", "docs", "soak", "infra", "README.md", "Makefile", "Dockerfile"),
    *("local.settings.json", "local.settings.template.json", "requirements-dev.txt", "standalone.py", ".env"),
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployed folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    lines = (ROOT / ".funcignore").read_text(encoding="utf-8").splitlines()
    ignored = pathspec.PathSpec.from_lines("gitignore", lines)
    folder = tmp_path_factory.mktemp("package")
    for name in [*names, ".env", "local.settings.json"]:
        if ignored.match_file(name):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder


def test_what_is_left_out(package: Path) -> None:
    """Tests, documents, tools and local settings stay at home; what the platform reads is there."""
    assert [name for name in LEFT_OUT if (package / name).exists()] == []
    assert all((package / name).is_file() for name in ("function_app.py", "host.json", "requirements.txt"))


async def test_the_package_runs(deploy: Deploy, package: Path) -> None:
    """The deployed folder is all that the app needs: it loads, runs an agent and streams."""
    async with deploy(folder=package) as app:
        assert (await app.http.get("/api/health")).json()["status"] == "healthy"
        assert (await app.http.get("/api/openapi.json")).status_code == 200
        run = await finished_run(app.http, "Plan a 1-day trip to Rome")
        assert await read_plain(app.http, run["conversation_id"]) == run["response"]


def test_the_settings_template_is_explained() -> None:
    """Every setting of the template for a local run is explained, and none holds a secret."""
    template = json.loads((ROOT / "local.settings.template.json").read_text(encoding="utf-8"))
    explained = (ROOT / "docs" / "azure-functions.md").read_text(encoding="utf-8")
    assert [name for name in template["Values"] if f"`{name}`" not in explained] == []
    assert template["Values"]["AZURE_OPENAI_API_KEY"] == ""

"""The fault table of docs/reliability.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = ROOT / "docs" / "reliability.md"
#: Where a test without a folder is.
FOLDER: Final = "tests/chaos/"
_CITED: Final = re.compile(r"`((?:tests/\w+/)?\w+\.py)?::(test_\w+)`")


def cited_tests(text: str) -> list[tuple[str, str]]:
    """File and name of every test that is cited. One without a file is in that of the one before it."""
    cited: list[tuple[str, str]] = []
    for file, name in _CITED.findall(text):
        path = (file if "/" in file else FOLDER + file) if file else cited[-1][0]
        cited.append((path, name))
    return cited


def names_in(path: Path) -> set[str]:
    """The names of a file's tests."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []
    return {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_test_of_the_fault_table_exists() -> None:
    """No row of the fault table cites a test that is not there."""
    cited = cited_tests(TABLE.read_text(encoding="utf-8"))
    assert len(cited) > 50
    assert [f"{path}::{name}" for path, name in cited if name not in names_in(ROOT / path)] == []


def test_a_test_that_is_gone_is_noticed() -> None:
    """A cited name that no file has, or a file that is not there, counts as missing."""
    cited = cited_tests("`test_clocks.py::test_nothing`, `::test_more`, `tests/unit/none.py::test_x`")
    assert cited == [
        ("tests/chaos/test_clocks.py", "test_nothing"),
        ("tests/chaos/test_clocks.py", "test_more"),
        ("tests/unit/none.py", "test_x"),
    ]
    assert not any(name in names_in(ROOT / path) for path, name in cited)

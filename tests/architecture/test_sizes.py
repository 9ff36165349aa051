"""Functions and files stay small enough to be read in one go."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.source_tree import SourceTree

#: Lines of a function, from its ``def`` to its end: two screens. Most are under 40.
MAX_FUNCTION_LINES: Final = 70
#: Lines of a file.
MAX_FILE_LINES: Final = 399


def long_functions(tree: SourceTree) -> list[str]:
    """Functions over the limit."""
    return [
        f"{module.path}:{function.lineno} {function.name} has {lines} lines"
        for module in tree.modules.values()
        for function in module.functions
        if (lines := (function.end_lineno or function.lineno) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]


def long_files(tree: SourceTree) -> list[str]:
    """Files over the limit."""
    return [
        f"{module.path} has {lines} lines"
        for module in tree.modules.values()
        if (lines := len(module.source.splitlines())) > MAX_FILE_LINES
    ]


def unexplained_tests(tree: SourceTree) -> list[str]:
    """Tests without a docstring."""
    return [
        f"{module.path}:{function.lineno} {function.name} has no docstring"
        for module in tree.modules.values()
        if module.room == "tests"
        for function in module.functions
        if function.name.startswith("test_") and ast.get_docstring(function) is None
    ]


@pytest.fixture(scope="module")
def project() -> SourceTree:
    return SourceTree()


def test_functions_are_short(project: SourceTree) -> None:
    """No function has more than 70 lines."""
    assert long_functions(project) == []


def test_files_are_short(project: SourceTree) -> None:
    """No file has 400 lines or more."""
    assert long_files(project) == []


def test_tests_say_what_they_hold(project: SourceTree) -> None:
    """Each test's docstring is the behaviour that it holds."""
    assert unexplained_tests(project) == []


@pytest.mark.parametrize(
    ("rule", "allowed", "refused"),
    [
        (long_functions, "def f():\n" + "    x = 1\n" * 69, "def f():\n" + "    x = 1\n" * 70),
        (long_files, "x = 1\n" * 399, "x = 1\n" * 400),
        (unexplained_tests, "def test_it():\n    'It holds.'\n", "class T:\n    def test_it(self): ...\n"),
    ],
)
def test_each_rule_can_fail(
    rule: Callable[[SourceTree], list[str]], allowed: str, refused: str, tmp_path: Path
) -> None:
    """What is just within a limit passes, what is just over it is found."""
    (tmp_path / "tests").mkdir()
    for source, count in ((allowed, 0), (refused, 1)):
        (tmp_path / "tests" / "planted.py").write_text(source, encoding="utf-8")
        assert len(rule(SourceTree(tmp_path))) == count

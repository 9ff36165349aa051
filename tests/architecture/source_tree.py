"""Reads the project's Python files without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
#: Folders that hold no source of ours, besides hidden ones (.venv, .data …).
_NOT_OURS: Final = ("node_modules", "__pycache__")


@dataclass(frozen=True)
class Module:
    """One Python file."""

    #: As it is imported: ``streaming.entries``.
    name: str
    path: Path
    source: str

    @property
    def room(self) -> str:
        """The top-level module or package that it belongs to."""
        return self.name.split(".", 1)[0]

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.source, filename=str(self.path))

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method, nested ones included."""
        return (
            node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )


class SourceTree:
    """All Python files below a folder."""

    def __init__(self, root: Path = ROOT) -> None:
        self.modules = {module.name: module for module in _read(root)}

    @cached_property
    def rooms(self) -> set[str]:
        """The top-level modules and packages."""
        return {module.room for module in self.modules.values()}

    def imports(self, module: Module) -> set[str]:
        """What a module imports, anywhere in it and for type checking too, as full module names."""
        found: set[str] = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                # Relative imports are ruff's matter (TID252): there are none.
                base = node.module or ""
                found.update(self._target(base, alias.name) for alias in node.names)
        return found

    def _target(self, base: str, name: str) -> str:
        """What ``from base import name`` depends on: the module of that name, if it is one, else base."""
        return f"{base}.{name}" if f"{base}.{name}" in self.modules else base

    def own_imports(self, module: Module) -> set[str]:
        """Those of a module's imports that are ours."""
        return {name for name in self.imports(module) if name.split(".", 1)[0] in self.rooms}


def _read(root: Path) -> Iterator[Module]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") or part in _NOT_OURS for part in parts):
            continue
        name = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
        yield Module(name=name, path=path.relative_to(root), source=path.read_text(encoding="utf-8"))

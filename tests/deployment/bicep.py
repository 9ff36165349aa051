"""Reads Bicep files as far as tests ask: what a file declares, and what an object says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tree_sitter_bicep
from tree_sitter import Language, Node, Parser


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_bicep.language()))


def text(node: Node) -> str:
    """What a node is written as."""
    return (node.text or b"").decode()


def unquoted(node: Node) -> str:
    """A string's content, its interpolations as written."""
    return text(node).strip("'")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a file."""

    name: str
    has_default: bool
    decorators: str

    @property
    def is_secure(self) -> bool:
        """Whether its value is kept out of logs and the deployment's history."""
        return "@secure()" in self.decorators


class BicepFile:
    """One parsed file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = _parser().parse(path.read_bytes()).root_node

    def faults(self) -> list[str]:
        """Where it is no Bicep."""
        return [
            f"{self.path.name}:{node.start_point.row + 1}: {text(node)[:80]}"
            for node in self.nodes()
            if node.type == "ERROR" or node.is_missing
        ]

    def nodes(self) -> Iterator[Node]:
        """All of its nodes."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.children

    def declarations(self, kind: str) -> Iterator[tuple[str, Node]]:
        """Names and nodes of its declarations of a kind: ``resource``, ``module``, ``output``."""
        for node in self.root.children:
            if node.type == f"{kind}_declaration":
                yield text(_first(node, "identifier")), node

    def parameters(self) -> dict[str, Parameter]:
        """Its parameters."""
        found, decorators = {}, ""
        for node in self.root.children:
            if node.type == "decorators":
                decorators += text(node)
            elif node.type == "parameter_declaration":
                name = text(_first(node, "identifier"))
                found[name] = Parameter(name, has_default=b"=" in (node.text or b""), decorators=decorators)
                decorators = ""
            elif node.type != "comment":
                decorators = ""
        return found

    def outputs(self) -> set[str]:
        """Names of its outputs."""
        return {name for name, _ in self.declarations("output")}

    def variable(self, name: str) -> Node:
        """The value of a variable."""
        return next(node for found, node in self.declarations("variable") if found == name)

    def strings(self) -> Iterator[str]:
        """Every string in it."""
        return (unquoted(node) for node in self.nodes() if node.type == "string")


def properties(node: Node) -> Mapping[str, Node]:
    """Names and values of the first object in a node."""
    found = _first(node, "object")
    pairs = (child for child in found.named_children if child.type == "object_property")
    return {unquoted(pair.named_children[0]): pair.named_children[-1] for pair in pairs}


def _first(node: Node, kind: str) -> Node:
    waiting = [node]
    while waiting:
        each = waiting.pop(0)
        if each.type == kind:
            return each
        waiting += each.named_children
    raise LookupError(f"no {kind} in {text(node)[:80]}")

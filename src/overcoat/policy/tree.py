"""A document as a tree whose every value knows where it was written, whatever the language of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from overcoat.policy.problems import Origin, Path, Problem, written

NONE = "none"
"""What a file writes for "not at all", to be rid of what it would inherit."""

MAX_DEPTH = 32
"""How deep values may be nested; a policy needs 6."""

MAX_DIGITS = 40
"""How long a number may be; Python itself refuses those of more than 4300 digits."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value, and where it is from.

    Attributes:
        value: A mapping or a sequence of nodes, or a scalar.
        path: Where it is in the document that it was written in.
        origin: Where it was written.
        key: Where its key was written; the same as `origin` for items of a list.
    """

    value: Any
    path: Path
    origin: Origin
    key: Origin

    @property
    def entries(self) -> Mapping[str, Node]:
        """The values by their keys; none where it is no mapping."""
        value: object = self.value
        return cast("Mapping[str, Node]", value) if isinstance(value, Mapping) else {}

    @property
    def items(self) -> Sequence[Node]:
        """The values of a list; none where it is no list."""
        value: object = self.value
        return cast("Sequence[Node]", value) if isinstance(value, list) else ()

    @property
    def text(self) -> str | None:
        """The value where it is text that names something; else None."""
        return self.value if isinstance(self.value, str) and self.value != NONE else None

    def plain(self) -> Any:
        """Return the value as Python has it, without places."""
        if isinstance(self.value, Mapping):
            return {key: node.plain() for key, node in self.entries.items()}
        return [node.plain() for node in self.items] if isinstance(self.value, list) else self.value

    def get(self, *path: str | int) -> Node | None:
        """Return the node at *path* below this one, or None where there is none."""
        found, rest = self.nearest(path)
        return None if rest else found

    def nearest(self, path: Path) -> tuple[Node, Path]:
        """Return the deepest node on the way along *path*, and the rest of the way."""
        node = self
        for index, step in enumerate(path):
            if isinstance(step, int):
                child = node.items[step] if step < len(node.items) else None
            else:
                child = node.entries.get(step)
            if child is None:
                return node, path[index:]
            node = child
        return node, ()

    def having(self, **entries: Node | None) -> Node:
        """Return a copy with *entries* added or replaced; None takes one away."""
        merged = {**self.entries, **entries}
        return replace(self, value={key: node for key, node in merged.items() if node is not None})

    def problem(self, message: str, *, at_key: bool = False) -> Problem:
        """Return a mistake in this value, or in its key."""
        return Problem(self.key if at_key else self.origin, written(self.path), message)


def merge(base: Node, over: Node) -> Node:
    """Return *base* with what *over* says in its place: mappings key by key, all else as a whole."""
    if not (_is_mapping(base) and _is_mapping(over)):
        return over
    merged = dict(base.entries)
    for key, node in over.entries.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(over, value=merged)


def put(tree: Node, path: Path, node: Node) -> Node:
    """Return *tree* with *node* merged in at *path*; what is in the way, and no mapping, stays as it is."""
    if not path:
        return merge(tree, node)
    step = str(path[0])
    child = tree.entries.get(step)
    if child is None or child.value == NONE:
        child = Node({}, (*tree.path, step), node.origin, node.origin) if path[1:] else node
    return replace(tree, value={**tree.entries, step: put(child, path[1:], node)}) if _is_mapping(tree) else tree


def _is_mapping(node: Node) -> bool:
    return isinstance(node.value, Mapping)

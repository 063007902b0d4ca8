"""Which tests carry which promise, read from their source: collecting them all takes longer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def by_promise() -> dict[str, list[str]]:
    """Return ``tests/FILE::test`` by the id that its marks name."""
    found: dict[str, list[str]] = {}
    for name, marks in marked_tests():
        for mark in marks:
            found.setdefault(mark, []).append(name)
    return found


def marked_tests() -> Iterator[tuple[str, list[str]]]:
    """Yield every test with the ids of its promises."""
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        whole = [mark for node in tree.body if _is_pytestmark(node) for mark in _marks(node)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                own = [mark for part in node.decorator_list for mark in _marks(part)]
                name = f"{path.relative_to(TESTS.parent)}::{node.name}"
                yield name, list(dict.fromkeys([*whole, *own]))


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
    )


def _marks(node: ast.AST) -> list[str]:
    return [
        str(call.args[0].value)
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "promise"
        and isinstance(call.args[0], ast.Constant)
    ]

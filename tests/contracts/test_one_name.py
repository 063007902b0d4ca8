"""One type has one name, and one name is one type."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import classifier_training

SOURCE = Path(classifier_training.__file__).parent


def public_classes() -> dict[str, list[str]]:
    found = defaultdict(list)
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(path.relative_to(SOURCE).as_posix())
    return found


def test_public_class_is_defined_once() -> None:
    assert {name: homes for name, homes in public_classes().items() if len(homes) > 1} == {}

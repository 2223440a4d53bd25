"""Everything public says what it takes, gives and raises."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "flux").rglob("*.py"))
CORE = sorted((ROOT / "cext").rglob("*.pyx"))
# What a reader knows from the name and the signature alone.
PLAIN = re.compile(r"__\w+__|main|on_\w+|close|start|cancel|fileno|kill|reconfigure|register|unregister")


def public(tree: ast.Module) -> list[tuple[str, ast.AST]]:
    """Public functions and classes of a module, and the public methods of its public classes."""
    found: list[tuple[str, ast.AST]] = []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            found.append((node.name, node))
            if isinstance(node, ast.ClassDef):
                found += [
                    (f"{node.name}.{one.name}", one)
                    for one in node.body
                    if isinstance(one, kinds[:2]) and not one.name.startswith("_")
                ]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_face_is_explained(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path} does not say what it is for"
    bare = [
        name
        for name, node in public(tree)
        if not PLAIN.fullmatch(name.rpartition(".")[2]) and not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert not bare, bare


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_is_explained(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0].startswith('"""'), f"{path} does not say what it is for"
    bare = []
    for number, line in enumerate(lines):
        match = re.match(r"(?:    )?(?:def|cdef class|class) (\w+)", line)
        if match is None or match[1].startswith("_") or PLAIN.fullmatch(match[1]):
            continue
        if ".setter" in lines[number - 1]:
            continue
        end = number
        while not lines[end].rstrip().endswith(":"):
            end += 1
        if not lines[end + 1].strip().startswith(('"""', "#")):
            bare.append(match[1])
    assert not bare, bare

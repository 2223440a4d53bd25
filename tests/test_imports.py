"""Imports run one way, and the core knows nothing of the Python face."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A room may import those below it, and `bottom` from anywhere; never one beside or above.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("supervisor",),
    ("worker", "packager", "admin"),
    ("srt", "http", "rtsp", "rtmp", "webrtc", "gb28181", "onvif", "demo"),
    ("streams",),
    ("config", "observe", "control", "security"),
    ("errors", "address", "process", "_version"),
    ("cext",),
)
HEIGHT = {room: len(LAYERS) - number for number, rooms in enumerate(LAYERS) for room in rooms}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports_of(tree: ast.AST) -> set[str]:
    """The modules of flux that a module imports, those for type checking included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            found |= {f"flux.{alias.name}" for alias in node.names} if module == "flux" else {module}
    return {name for name in found if name.startswith("flux.") and name != "flux.__version__"}


MODULES = sorted(path for path in (ROOT / "flux").rglob("*.py") if path != ROOT / "flux" / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    room = path.relative_to(ROOT / "flux").with_suffix("").parts[0]
    assert room in HEIGHT, f"flux/{room} has no place in LAYERS"
    for module in imports_of(ast.parse(path.read_text())):
        other = room_of(module)
        assert other == room or HEIGHT[other] < HEIGHT[room], f"{path} imports {module}"


@pytest.mark.parametrize(
    "path",
    sorted(path for path in (ROOT / "cext").rglob("*.p*") if path.suffix in (".pyx", ".pxd", ".py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_core_imports_nothing_of_the_face(path: Path) -> None:
    modules = re.findall(r"^\s*(?:from|c?import)\s+(flux[\w.]*)", path.read_text(), re.MULTILINE)
    assert all(module.startswith("flux.cext.") for module in modules), modules


SANS_IO = ("cext/srt", "cext/media")
IO_WORDS = re.compile(
    r"\b(socket|clock_gettime|reactor_clock_us|sendmsg|recvmsg|epoll_wait|time\.(?:time|monotonic))\b\s*\("
)


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in SANS_IO for path in (ROOT / folder).rglob("*.pyx")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_protocol_cores_do_no_io_and_read_no_clock(path: Path) -> None:
    assert not IO_WORDS.findall(path.read_text())

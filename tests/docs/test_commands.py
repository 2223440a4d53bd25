"""The commands in the documents do what the documents say.

Every ```sh block in docs/ is run by bash, in the order in which they stand, in a folder with clip.ts,
clip.mp4 and flux.yaml, with a server that publishes live/demo; its addresses replace the default ones.
A comment before the block says what is expected; without one, that it ends with exit code 0.

    <!-- test: exit 2 -->                  this exit code
    <!-- test: prints TEXT -->             TEXT on its output; after "exit 2," as well
    <!-- test: until it publishes -->      it goes on by itself, and the stream that it names becomes live
    <!-- test: until it plays -->          it goes on by itself, and a player gets media
    <!-- test: in the background, … -->    ... and it is left running for those that follow
    <!-- test: serve -->                   it is a server: it gets addresses of its own, and tells of its page
    <!-- test: not run, … -->              for the reason given
    <!-- test: file NAME -->               before a block of another language: it is that file
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import flux
from tests.interop.clients import need
from tests.interop.server import Server

ROOT = Path(__file__).parent.parent.parent
TOOLS = ("ffmpeg", "ffplay", "ffprobe", "srt-live-transmit", "curl")
BLOCK = re.compile(
    r"(?:<!-- test: (?P<marker>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)\n```", re.DOTALL
)
DEADLINE_S = 30.0
MARKERS = re.compile(
    r"exit \d+(, prints .+)?|prints .+|serve|(in the background, )?until it (publishes|plays)|not run, .+"
    r"|file [\w.]+"
)


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    marker: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        text = path.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            marker = match["marker"] or "exit 0"
            document = str(path.relative_to(ROOT / "docs"))
            found.append(Block(document, line, marker, match["language"], match["text"]))
    return found


BLOCKS = blocks()
RUN = [block for block in BLOCKS if block.language == "sh"]


class Place:
    """Where commands run: a folder, a server, and what was left running."""

    def __init__(self, folder: Path, server: Server, stack: ExitStack) -> None:
        self.folder = folder
        self.server = server
        self._stack = stack
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLUX_SOCKET": str(server.control_path),
            "SDL_VIDEODRIVER": "dummy",
            "SDL_AUDIODRIVER": "dummy",
        }

    def command(self, text: str) -> str:
        """The command with the server's addresses."""
        ports = {8890: self.server.srt_port, 8080: self.server.http_port, 8081: self.server.admin_port}
        for default, port in ports.items():
            text = text.replace(f"127.0.0.1:{default}", f"127.0.0.1:{port}")
        return text

    def start(self, text: str, output: Path, leave: bool = False) -> subprocess.Popen[bytes]:
        with output.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self.command(text)],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if leave:
            self._stack.callback(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> int:
        """Sends a signal to all that it started, and waits for it."""
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        return process.wait(DEADLINE_S)

    def players(self) -> set[str]:
        """The players that have got media."""
        sessions = self.server.call("sessions")["sessions"]
        return {session["id"] for session in sessions if session["role"] == "read" and session["bytes"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("commands")
    shutil.copy(Path(flux.__file__).parent / "demo" / "demo.ts", folder / "clip.ts")
    need("ffmpeg")
    copy = ["ffmpeg", "-v", "error", "-i", "clip.ts", "-c", "copy", "clip.mp4"]
    subprocess.run(copy, cwd=folder, check=True, stdin=subprocess.DEVNULL)
    for block in BLOCKS:
        if block.marker.startswith("file "):
            (folder / block.marker.removeprefix("file ")).write_text(block.text + "\n")
    with Server({"demo.enabled": True, "admin.listen": "127.0.0.1:0"}) as server, ExitStack() as stack:
        server.wait_stream("live/demo", tracks=2)
        yield Place(folder, server, stack)


def wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str, output: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        said = output.read_text(errors="replace")[-2000:]
        assert process.poll() is None, f"it ended with {process.returncode} before {what}:\n{said}"
        assert time.monotonic() < deadline, f"{what} did not come to be in {DEADLINE_S:g} s:\n{said}"
        time.sleep(0.05)


@pytest.mark.interop
@pytest.mark.parametrize("block", [block for block in RUN if not block.marker.startswith("not run")], ids=str)
def test_command(place: Place, tmp_path: Path, block: Block) -> None:
    need(*(tool for tool in TOOLS if re.search(rf"(?m)^\s*{tool} |\| *{tool} ", block.text)))
    output = tmp_path / "output"
    if block.marker == "serve":
        run_server(place, block, output)
    elif "until it" in block.marker:
        run_until(place, block, output)
    else:
        run_to_the_end(place, block, output)


def run_to_the_end(place: Place, block: Block, output: Path) -> None:
    process = place.start(block.text, output)
    try:
        code = process.wait(DEADLINE_S)
    finally:
        place.end(process)
    said = output.read_text(errors="replace")
    expected, _, wanted = block.marker.partition("prints ")
    assert code == int(re.sub(r"\D", "", expected) or 0), said
    assert wanted in said


def run_until(place: Place, block: Block, output: Path) -> None:
    before = place.players()
    process = place.start(block.text, output, leave=block.marker.startswith("in the background"))
    try:
        if block.marker.endswith("publishes"):
            match = re.search(r"publish:([\w/]+)", block.text)
            assert match is not None
            name = match[1]
            wait(
                lambda: bool((place.server.stream(name) or {}).get("tracks")), process, f"{name} live", output
            )
        else:
            wait(lambda: bool(place.players() - before), process, "a player", output)
    finally:
        if not block.marker.startswith("in the background"):
            place.end(process)


def run_server(place: Place, block: Block, output: Path) -> None:
    settings = [f"--set {part}.listen=127.0.0.1:0" for part in ("srt", "http", "admin")]
    settings.append(f"--set control.socket={shlex.quote(str(output.parent / 'control.sock'))}")
    process = place.start(f"{block.text} {' '.join(settings)}", output)
    try:
        wait(lambda: "web page" in output.read_text(errors="replace"), process, "the announcement", output)
        assert place.end(process, signal.SIGINT) == 0, output.read_text(errors="replace")
    finally:
        place.end(process)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.marker != "exit 0"], ids=str)
def test_markers_are_known(block: Block) -> None:
    assert MARKERS.fullmatch(block.marker)
    assert block.marker.startswith("file ") == (block.language != "sh")


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"(?m)^#+ (.*)$", text)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        assert not file or (path.parent / file).exists(), target
        assert file or anchor in anchors, target


def test_every_setting_that_is_named_is_there() -> None:
    from flux.config.load import keys

    known = set(keys())
    sections = {key.partition(".")[0] for key in known if "." in key}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for key in re.findall(r"`([a-z]+\.[a-z_]+)(?:: [^`]*)?`", path.read_text()):
            if key.partition(".")[0] in sections:
                assert key in known, f"{path.name}: {key}"

"""Real clients as tests run them: each with a deadline, its own process group, and what it said kept."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import pytest

# A hash of each frame, none doubled or dropped for timing, with its time as the source has it.
HASHES = ("-fps_mode", "passthrough", "-enc_time_base", -1, "-f", "framemd5")
PACKAGES = {
    "ffmpeg": "ffmpeg",
    "ffplay": "ffmpeg",
    "ffprobe": "ffmpeg",
    "srt-live-transmit": "srt-tools",
    "curl": "curl",
    "chromium": "chromium",
}


def need(*tools: str) -> None:
    """Skips the test when a tool is missing; fails it where CI=true."""
    for tool in tools:
        if shutil.which(tool) is None:
            text = f"{tool} is missing; install the package {PACKAGES.get(tool, tool)}"
            if os.environ.get("CI") == "true":
                pytest.fail(text)
            pytest.skip(text)


class Client:
    """A running client. Its standard output goes to `output`, its standard error to a file beside it.

    command: a list, or a line for the shell. It is over when its `with` block is.
    """

    def __init__(
        self, name: str, command: list[object] | str, folder: Path, output: Path | None = None
    ) -> None:
        self.name = name
        self.output = output or folder / f"{name}.out"
        self._error = folder / f"{name}.err"
        self._shown = command if isinstance(command, str) else shlex.join(map(str, command))
        with self.output.open("wb") as out, self._error.open("wb") as error:
            self._process = subprocess.Popen(
                command if isinstance(command, str) else list(map(str, command)),
                shell=isinstance(command, str),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def text(self) -> str:
        """What it was and what it said, for a failure's message."""
        said = self._error.read_text(errors="replace")[-2000:]
        return f"{self._shown}\nexit code {self._process.poll()}\n{said}"

    def wait(self, deadline_s: float) -> int:
        """Its exit code; the test fails when it is not over within `deadline_s` of now."""
        try:
            return self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self.stop()
            pytest.fail(f"{self.name} was not over after {deadline_s:g} s: {self.text()}")

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.stop()


def run(command: list[object], deadline_s: float = 60.0) -> bytes:
    """The standard output of a client that must do its work well, and in time."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, timeout=deadline_s, stdin=subprocess.DEVNULL
    )
    shown = shlex.join(map(str, command))
    assert done.returncode == 0, f"{shown}\n{done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout


def ffmpeg_publisher(clip: Path, url: str) -> list[object]:
    """Sends `clip` at its own pace. url: srt://….

    pkt_size: seven TS packets; linger: what is sent last is not thrown away at the end.
    """
    source = ["ffmpeg", "-nostdin", "-loglevel", "warning", "-re", "-i", clip, "-map", "0", "-c", "copy"]
    return [*source, "-f", "mpegts", f"{url}&pkt_size=1316&linger=3"]


def null_packets() -> Path:
    """A file of one SRT payload of null packets (ISO/IEC 13818-1, 2.4.1)."""
    path = Path(tempfile.gettempdir()) / "flux-null-packets.ts"
    path.write_bytes((b"\x47\x1f\xff\x10" + b"\xff" * 184) * 7)
    return path


def srt_live_transmit_publisher(clip: Path, url: str) -> str:
    """The same by srt-live-transmit, fed by ffmpeg at the clip's pace. It never ends by itself.

    It sends whole payloads only, so null packets follow the clip.
    """
    source = shlex.join(["ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-i", str(clip), "-map", "0"])
    feed = f"{{ {source} -c copy -f mpegts - && cat {shlex.quote(str(null_packets()))}; }} >$pipe"
    send = f"srt-live-transmit -q -a:no file://con {shlex.quote(url)} <$pipe"
    both = f"{send} & {feed}; sent=$?; sleep 1; kill $!; wait"
    return f"pipe=$(mktemp -u); mkfifo $pipe; {both}; rm $pipe; exit $sent"


PUBLISHERS = {"ffmpeg": ffmpeg_publisher, "srt-live-transmit": srt_live_transmit_publisher}


def ffmpeg_player(url: str, framemd5: Path, *options: object) -> list[object]:
    """Decodes what it gets and writes a hash of each frame."""
    source = ["ffmpeg", "-nostdin", "-loglevel", "warning", "-y", "-threads", 1, *options, "-i", url]
    return [*source, "-map", "0:v", "-map", "0:a", *HASHES, framemd5]


def curl_player(url: str) -> list[object]:
    return ["curl", "--silent", "--show-error", "--no-buffer", "--fail", url]


def srt_live_transmit_player(url: str) -> list[object]:
    """Writes what it gets to its standard output until the server hangs up."""
    return ["srt-live-transmit", "-q", "-a:no", url, "file://con"]


def hls_by_curl(url: str, target: Path, deadline_s: float) -> list[str]:
    """Follows a live playlist with curl, as it says, and joins its segments in `target`; gives their names.

    It is over when the playlist has an end or is no more.
    """
    base = url.rpartition("/")[0]
    seen: list[str] = []
    deadline = time.monotonic() + deadline_s
    with target.open("wb") as out:
        while time.monotonic() < deadline:
            got = subprocess.run(["curl", "--silent", "--fail", "--max-time", "15", url], capture_output=True)
            if got.returncode:
                if seen:
                    break
                time.sleep(0.2)
                continue
            lines = got.stdout.decode().splitlines()
            for name in (line for line in lines if line and not line.startswith("#")):
                if name not in seen:
                    out.write(run(["curl", "--silent", "--show-error", "--fail", f"{base}/{name}"]))
                    seen.append(name)
            if "#EXT-X-ENDLIST" in lines:
                break
            time.sleep(0.5)
    return seen

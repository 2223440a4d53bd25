"""`flux publish`, `flux play` and `flux probe`."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import setproctitle

from flux.cli import tables
from flux.cli.tables import as_json, table
from flux.errors import PeerError, UserError
from flux.srt.url import hide_secrets

K_READ_BYTES = 1 << 20
K_PROBE_BYTES = 256 << 20  # of a file
K_LOOK_BYTES = 64 << 10  # between two looks at how much media there is by now
K_HTTP = ("http", "https")


class _Enough(Exception):
    """As much was taken as was wanted."""


class _Limited:
    """Passes what is played on to `out`, until `duration` seconds after its first bytes; counts bytes."""

    def __init__(self, out: Any, duration: float | None) -> None:
        self._out = out
        self._duration = duration
        self.bytes = 0
        self.began = 0.0

    def write(self, data: bytes) -> int:
        now = time.monotonic()
        if not self.bytes:
            self.began = now
        elif self._duration is not None and now - self.began >= self._duration:
            raise _Enough
        self._out.write(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._out.flush()

    def seconds(self) -> float:
        return time.monotonic() - self.began if self.bytes else 0.0


def _scheme(url: str, *known: str) -> str:
    scheme = urllib.parse.urlsplit(url).scheme.lower()
    if scheme not in known:
        raise UserError(
            f"{hide_secrets(url)}: {scheme + ':// is not known here' if scheme else 'this is no URL'}",
            f"write it as {', '.join(f'{name}://…' for name in known)}",
        )
    return scheme


def _hide_arguments() -> None:
    """From who lists the processes of this machine: a passphrase may be among them."""
    shown = [hide_secrets(argument) for argument in sys.argv[1:]]
    if shown != sys.argv[1:]:
        setproctitle.setproctitle(shlex.join(["flux", *shown]))


def publish(args: argparse.Namespace) -> int:
    """`flux publish`: a file to an srt:// URL at the pace at which it plays."""
    _hide_arguments()
    _scheme(args.url, "srt")
    path = Path(args.file)
    if not path.is_file():
        raise UserError(f"{path}: no such file", "give an MPEG-TS file")
    from flux.srt.client import publish_file

    try:
        figures = publish_file(path, args.url, loop=args.loop, duration_s=args.duration)
    except KeyboardInterrupt:  # how an endless one ends
        return 0
    print(f"{tables.size(figures['sent_bytes'])} sent", file=sys.stderr)
    return 0


def play(args: argparse.Namespace) -> int:
    """`flux play`: a stream's bytes to a file or to standard output."""
    _hide_arguments()
    _scheme(args.url, "srt", *K_HTTP)
    with _output(args.output) as out:
        limited = _Limited(out, args.duration)
        try:
            _take(args.url, limited, args.duration)
        except (_Enough, KeyboardInterrupt):
            pass
        out.flush()
    if not limited.bytes:
        raise PeerError(
            f"{hide_secrets(args.url)}: nothing came", "look whether the stream is live, with `flux streams`"
        )
    seconds = limited.seconds()
    rate = tables.bitrate(limited.bytes * 8 / seconds if seconds else None)
    print(f"{tables.size(limited.bytes)} in {seconds:.1f} s, {rate}", file=sys.stderr)
    return 0


@contextlib.contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdout.isatty():
            raise UserError("media would go to the terminal", "give -o FILE, or pipe it to a player")
        yield sys.stdout.buffer
        return
    try:
        file = open(name, "wb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{name}: {(error.strerror or str(error)).lower()}", "give -o another file") from None
    with file:
        yield file


def _take(url: str, out: _Limited, duration: float | None) -> None:
    """Writes the stream's bytes to `out` until its end; at most for `duration` seconds where it is silent."""
    if _scheme(url, "srt", *K_HTTP) == "srt":
        from flux.srt.client import play as play_srt

        play_srt(url, cast(BinaryIO, out), duration_s=duration)
        return
    from flux.cli.fetch import chunks

    for data in chunks(url):
        out.write(data)


def probe(args: argparse.Namespace) -> int:
    """`flux probe`: what tracks a file or stream has."""
    from flux.cli.analysis import Analysis

    _hide_arguments()
    analysis = Analysis()
    try:
        if "://" in args.source:
            _probe_url(args.source, analysis, args.duration)
        else:
            _probe_file(Path(args.source), analysis)
        facts = {"source": hide_secrets(args.source), **analysis.result()}
    finally:
        analysis.close()
    print(as_json(facts) if args.json else _facts_text(facts))
    return 0


def _probe_file(path: Path, analysis: Any) -> None:
    try:
        with path.open("rb") as file:
            while file.tell() < K_PROBE_BYTES and (data := file.read(K_READ_BYTES)):
                analysis.feed(data)
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or str(error)).lower()}", "give a file that can be read"
        ) from None


class _Look:
    """Takes a live stream in until it holds so many seconds of media: those before now may come at once."""

    def __init__(self, analysis: Any, media_s: float) -> None:
        self._analysis = analysis
        self._media_s = media_s
        self._unseen = 0

    def write(self, data: bytes) -> int:
        self._analysis.feed(data)
        self._unseen += len(data)
        if self._unseen >= K_LOOK_BYTES:
            self._unseen = 0
            if self._analysis.seconds() >= self._media_s:
                raise _Enough
        return len(data)

    def flush(self) -> None:
        pass


def _probe_url(url: str, analysis: Any, duration: float) -> None:
    _scheme(url, "srt", *K_HTTP)
    with contextlib.suppress(_Enough, KeyboardInterrupt):
        # A stream with gaps in its media ends by the clock instead.
        _take(url, _Limited(_Look(analysis, duration), duration + 1.0), duration + 1.0)


def _facts_text(facts: dict[str, Any]) -> str:
    head = (
        f"{facts['source']}: {facts['format']}, {tables.size(facts['bytes'])}, "
        f"{facts['duration_s']:.1f} s, {tables.bitrate(facts['bitrate_bps'])}"
    )
    if not facts["tracks"]:
        return f"{head}\nno tracks were found"
    return f"{head}\n" + table(
        ("TRACK", "CODEC", "RESOLUTION", "FPS", "SAMPLE RATE", "CHANNELS", "FRAMES"),
        [
            (
                track["kind"],
                track["codec"],
                f"{track['width']}x{track['height']}" if track.get("width") else "-",
                tables.rate(track.get("fps")),
                f"{track['sample_rate']} Hz" if track.get("sample_rate") else "-",
                str(track.get("channels") or "-"),
                str(track["frames"]),
            )
            for track in facts["tracks"]
        ],
        right=("FPS", "SAMPLE RATE", "CHANNELS", "FRAMES"),
    )

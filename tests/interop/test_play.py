"""SRT in, and FLV, TS, HLS and SRT out, by real clients: every frame of the source, by its hash."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from perf.server import until
from tests.interop.clients import (
    PUBLISHERS,
    Client,
    curl_player,
    ffmpeg_player,
    hls_by_curl,
    need,
    srt_live_transmit_player,
)
from tests.interop.media import (
    LONG_SECONDS,
    Clip,
    Decoded,
    decode,
    decode_flv,
    differences,
    read_framemd5,
)
from tests.interop.server import Server

K_AFTER_S = 60.0  # for players to notice the end, and for decoders on a busy machine


class Play:
    """One stream: its players, which are there before their publisher and are let wait, and its publisher."""

    def __init__(self, server: Server, publisher: str, clip: Clip, folder: Path, stack: ExitStack) -> None:
        self.title = f"{publisher} {clip.codec}"
        self._server = server
        self._publisher = publisher
        self._clip = clip
        self._folder = folder
        self._stack = stack
        self._name = f"live/{publisher}-{clip.codec}-{clip.seconds}"
        folder.mkdir()
        self._joined_hls = folder / "curl hls.out"
        playlist = server.http_url(f"{self._name}/index.m3u8")
        following = stack.enter_context(ThreadPoolExecutor(1))
        self._hls = following.submit(hls_by_curl, playlist, self._joined_hls, clip.seconds + 2 * K_AFTER_S)
        self._players = {name: self._client(name, command) for name, command in self._commands(playlist)}
        self.count = len(self._players) + 1

    def _client(self, name: str, command: list[object] | str) -> Client:
        return self._stack.enter_context(Client(name, command, self._folder))

    def _commands(self, playlist: str) -> list[tuple[str, list[object]]]:
        flv, ts = self._server.http_url(f"{self._name}.flv"), self._server.http_url(f"{self._name}.ts")
        srt = self._server.srt_url("read", self._name)
        commands = [
            ("ffmpeg ts", ffmpeg_player(ts, self._hashes("ffmpeg ts"))),
            ("ffmpeg hls", ffmpeg_player(playlist, self._hashes("ffmpeg hls"), "-live_start_index", 0)),
            ("ffmpeg srt", ffmpeg_player(f"{srt}&connect_timeout=15000", self._hashes("ffmpeg srt"))),
            ("srt-live-transmit srt", srt_live_transmit_player(f"{srt}&conntimeo=15000")),
            ("curl flv", curl_player(flv)),
            ("curl ts", curl_player(ts)),
        ]
        if self._clip.codec == "h264":  # ffmpeg reads Enhanced FLV from version 6 on
            commands.append(("ffmpeg flv", ffmpeg_player(flv, self._hashes("ffmpeg flv"))))
        return commands

    def _hashes(self, name: str) -> Path:
        return self._folder / f"{name}.md5"

    def publish(self) -> None:
        url = self._server.srt_url("publish", self._name)
        self._publishing = self._client("publisher", PUBLISHERS[self._publisher](self._clip.path, url))

    def check(self) -> list[str]:
        """Waits for the end; gives what is wrong."""
        found = []
        if self._publishing.wait(self._clip.seconds + K_AFTER_S) != 0:
            found.append(f"{self.title}: the publisher failed: {self._publishing.text()}")
        for name in self._players:
            if name != "ffmpeg hls":
                found += self.check_player(name)
        names = self._hls.result()
        wrong = self._differences("curl hls") if names else ["no segment came"]
        return found + [f"{self.title}, curl hls, {len(names)} segments: {one}" for one in wrong]

    def check_player(self, name: str) -> list[str]:
        player = self._players[name]
        player.wait(K_AFTER_S)
        wrong = [f"{self.title}, {name}: {one}" for one in self._differences(name)]
        return [*wrong, player.text()] if wrong else []

    def _differences(self, name: str) -> list[str]:
        try:
            return differences(self._clip.decoded, self._decoded(name))
        except (AssertionError, OSError, ValueError, StopIteration) as error:
            return [f"can't be decoded: {error!r}"]

    def _decoded(self, name: str) -> Decoded:
        """What a client got: decoded by itself, or from the bytes that it kept."""
        if name.startswith("ffmpeg"):
            return read_framemd5(self._hashes(name).read_text())
        output = self._folder / f"{name}.out"
        if name == "curl flv" and self._clip.codec == "h265":
            return decode_flv(output.read_bytes(), self._folder)
        return decode(output)


def play_all(server: Server, pairs: list[tuple[str, Clip]], folder: Path) -> None:
    """Several streams at once, each with all players; stops the server at the end.

    By then ffmpeg has all segments of HLS and asks for a playlist that is no more; it ends with the server.
    """

    def waits() -> int:
        return int(server.call("stats")["counters"]["flux_worker_waits_total"])

    before = waits()
    with ExitStack() as stack:
        plays = [
            Play(server, publisher, clip, folder / f"{publisher}-{clip.codec}", stack)
            for publisher, clip in pairs
        ]
        count = sum(play.count for play in plays)
        until(lambda: waits() - before >= count, f"{count} players to wait for their publishers")
        for play in plays:
            play.publish()
        with ThreadPoolExecutor(len(plays)) as threads:
            found = list(itertools.chain(*threads.map(Play.check, plays)))
        server.stop()
        for play in plays:
            found += play.check_player("ffmpeg hls")
        assert not found, "\n".join(found)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_every_frame_of_30_s_arrives_by_every_protocol(start_server, media, tmp_path, codec):
    need("ffmpeg", "srt-live-transmit", "curl")
    play_all(start_server(), [(publisher, media(codec, LONG_SECONDS)) for publisher in PUBLISHERS], tmp_path)

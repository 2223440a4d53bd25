"""Blocking SRT callers for the command line: publish a file, play a stream."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from flux.cext.counters import NAMES
from flux.cext.media.ts_pacer import TsPacer
from flux.cext.reactor import Reactor, Timer
from flux.cext.sink import Sink
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_client import CollectingSink, SendingSink
from flux.cext.udp.srt_driver import SrtDriver
from flux.errors import FluxError, PeerError, UserError
from flux.srt.rejection import explain
from flux.srt.url import SrtUrl, parse_url

K_CONNECT_TIMEOUT_MS = 3000
K_LATENCY_MS = 120
K_SOCKET_BUFFER_BYTES = 8 << 20
K_REFUSALS = 3  # ICMP "port unreachable" while connecting, after which nobody is thought to listen
K_FEED_US = 1000  # a file's packets are handed over at most this often, several at once
K_DRAIN_S = 5.0  # the last packets of a file are acknowledged in this time, or given up
K_SLICE_US = 100_000  # between two looks at the clock
K_PROPER_ENDS = ("", "peer_shutdown")  # of a player: still connected, or told by the server
C_SOCKET_ERRORS = {name: number for number, (name, _) in NAMES.items()}["flux_udp_socket_errors_total"]


class SrtRefusedError(PeerError):
    """The server rejected the connection. code: SRT's rejection code."""

    def __init__(self, code: int, url: SrtUrl) -> None:
        what, cure = explain(code)
        super().__init__(f"{url}: {what}", cure)
        self.code = code


class SrtConnectError(PeerError):
    """Nobody answered."""


class SrtClosedError(PeerError):
    """The connection ended before its time."""


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class _Caller:
    """One connection with its own reactor. To be used with `with`."""

    def __init__(self, url: SrtUrl, latency_ms: int | None) -> None:
        self._url = url
        chosen = latency_ms if latency_ms is not None else url.latency_ms
        self._latency_ms = K_LATENCY_MS if chosen is None else chosen
        self._timeout_ms = url.connect_timeout_ms or K_CONNECT_TIMEOUT_MS
        self.reactor = Reactor()
        self.endpoint: Any = None
        self.driver: Any = None
        self.id = 0
        self.ended = ""
        self._connected = False
        self._socket: socket.socket | None = None
        self._counters = np.zeros(512, np.uint64)

    def __enter__(self) -> _Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connected and not self.ended:
            self.endpoint.close(self.id, _now_us())
            self.driver.turn()
        self._drop()
        self.reactor.close()

    def _drop(self) -> None:
        if self.driver is not None:
            self.driver.close()
            self.driver = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def connect(self, sink: Sink | None = None) -> None:
        """Tries the addresses in turn. What is received goes to `sink`. Raises PeerErrors."""
        failure: FluxError | None = None
        for address in self._url.addresses():
            try:
                self._connect_to(address, sink)
                return
            except SrtConnectError as error:
                failure = failure or error
                self._drop()
        assert failure is not None
        raise failure

    def _connect_to(self, address: tuple[str, int], sink: Sink | None) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._counters[:] = 0
        self.ended = ""
        try:
            # Connected, so that the kernel tells when nobody listens there.
            self._socket.connect(address)
        except OSError as error:
            raise SrtConnectError(
                f"{self._url}: {error.strerror}", "look whether the network is up"
            ) from None
        try:
            self.endpoint = Endpoint(
                0,
                self._counters,
                latency_ms=self._latency_ms,
                handshake_timeout_ms=self._timeout_ms,
                **self._url.encryption.settings(),
            )
        except RuntimeError as error:
            raise UserError(str(error)) from None
        self.driver = SrtDriver(
            self._socket,
            self.reactor,
            self.endpoint,
            self._on_events,
            self._counters,
            buffer_bytes=K_SOCKET_BUFFER_BYTES,
        )
        self.id = self.endpoint.connect(address, self._url.stream_id, _now_us(), latency_ms=self._latency_ms)
        if sink is not None:
            self.endpoint.attach_sink(self.id, sink)
        self.driver.turn()
        deadline = time.monotonic() + self._timeout_ms / 1000
        while not self._connected:
            self.reactor.run_once(K_SLICE_US)
            if self.ended and not self._connected:
                raise self._refusal()
            if self._counters[C_SOCKET_ERRORS] >= K_REFUSALS:
                raise SrtConnectError(
                    f"{self._url}: connection refused",
                    "look whether the server runs and listens on that UDP port",
                )
            if time.monotonic() > deadline + 1:
                raise self._no_answer()

    def _refusal(self) -> FluxError:
        code = re.search(r"\b[1-9][0-9]{3}\b", self.ended)
        if code is not None:
            return SrtRefusedError(int(code.group()), self._url)
        return self._no_answer()

    def _no_answer(self) -> SrtConnectError:
        return SrtConnectError(
            f"{self._url}: no answer within {self._timeout_ms} ms",
            "look whether the server runs, and whether a firewall lets UDP through",
        )

    def _on_events(self) -> None:
        while (event := self.endpoint.next_event()) is not None:
            if event[0] == "connected":
                self._connected = True
            elif event[0] == "closed":
                self.ended = event[2]
        self.driver.turn()

    def stats(self) -> dict[str, Any]:
        """The connection's figures, as Endpoint.stats."""
        return dict(self.endpoint.stats(self.id))


def publish_file(
    path: str | Path,
    url: str,
    *,
    loop: bool = False,
    latency_ms: int | None = None,
    duration_s: float | None = None,
) -> dict[str, Any]:
    """Sends an MPEG-TS file at the pace at which it plays; gives the connection's figures at the end.

    loop: begin again at the file's end, as one endless stream, until `duration_s` or an interrupt.
    latency_ms: in place of the URL's. Raises UserError for a file or URL that can't be used, PeerError when
    the server can't be reached, rejects, or ends the connection.
    """
    parsed = parse_url(url, "publish")
    pacer = _open_file(path, loop)
    end = None if duration_s is None else time.monotonic() + duration_s
    with _Caller(parsed, latency_ms) as caller:
        caller.connect()
        feeder = _Feeder(caller, pacer)
        while not feeder.done and (end is None or time.monotonic() < end):
            caller.reactor.run_once(K_SLICE_US)
            if caller.ended:
                raise SrtClosedError(f"{parsed}: the server ended the connection: {caller.ended}")
        feeder.close()
        _drain(caller)
        return caller.stats()


def _open_file(path: str | Path, loop: bool) -> TsPacer:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", "name an MPEG-TS file") from None
    try:
        return TsPacer(data, loop=loop)
    except ValueError as error:
        raise UserError(f"{path}: {error}", "name an MPEG-TS file, as ffmpeg makes with -f mpegts") from None


class _Feeder:
    """Hands a file's packets over when they are due."""

    def __init__(self, caller: _Caller, pacer: TsPacer) -> None:
        self._caller = caller
        self._pacer = pacer
        self._sink = SendingSink(caller.endpoint, caller.id)
        self._timer = Timer(caller.reactor, self._feed)
        self.done = False
        self._feed()

    def _feed(self) -> None:
        if self._caller.ended:
            return
        now_us = _now_us()
        due_us = self._pacer.read(now_us, self._sink)
        if due_us is None:
            self.done = True
        else:
            self._timer.set(max(due_us, now_us + K_FEED_US))
        self._caller.driver.turn()

    def close(self) -> None:
        self._timer.close()


def _drain(caller: _Caller) -> None:
    """Until the last packets are acknowledged."""
    end = time.monotonic() + K_DRAIN_S
    while not caller.ended and caller.stats()["send_buffer_pkts"] and time.monotonic() < end:
        caller.reactor.run_once(K_SLICE_US)


def play(
    url: str, out: BinaryIO, *, duration_s: float | None = None, latency_ms: int | None = None
) -> dict[str, Any]:
    """Writes a stream's bytes to `out`, a binary file, as they come; gives the connection's figures.

    Ends after `duration_s`, when the stream ends, or when nobody reads `out` any more. Raises UserError for a
    URL that can't be used, PeerError when the server can't be reached or rejects.
    """
    parsed = parse_url(url, "read")
    sink = CollectingSink()
    end = None if duration_s is None else time.monotonic() + duration_s
    with _Caller(parsed, latency_ms) as caller:
        caller.connect(sink)
        with contextlib.suppress(BrokenPipeError):
            while not caller.ended and (end is None or time.monotonic() < end):
                caller.reactor.run_once(K_SLICE_US)
                if len(sink):
                    out.write(sink.take())
                    out.flush()
        if caller.ended not in K_PROPER_ENDS:
            raise SrtClosedError(f"{parsed}: the connection broke: {caller.ended}")
        return caller.stats()

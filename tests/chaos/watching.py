"""Players that keep what they get, and tell whether it is the published file without a gap."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field

from tests.interop.clients import run
from tests.interop.media import FOLDER

K_PACKET = 188
K_HEADER_PACKETS = 4  # of PAT and PMT at most, which the server puts before a joining player's first byte


def long_clip(seconds: int) -> bytes:
    """A small picture with sound as MPEG-TS, `seconds` long."""
    path = FOLDER / f"small-{seconds}s.ts"
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".new")
        picture = ["-f", "lavfi", "-i", f"testsrc2=s=320x180:r=25:d={seconds}"]
        tone = ["-f", "lavfi", "-i", "sine=f=440:r=48000", "-t", seconds]
        video = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-keyint_min", "25", "-b:v", "300k"]
        coding = [*video, "-c:a", "aac", "-b:a", "64k", "-f", "mpegts"]
        run(["ffmpeg", "-y", "-loglevel", "error", *picture, *tone, *coding, unfinished], 300)
        unfinished.rename(path)
    return path.read_bytes()


def beginnings(received: bytes, file: bytes) -> int:
    """How often `received` goes back to the beginning of `file`; between these it is the file without a gap.

    Before the first byte the server may have put PAT and PMT. Raises AssertionError where there is a gap.
    """
    packets = [received[at : at + K_PACKET] for at in range(0, len(received) - K_PACKET + 1, K_PACKET)]
    number = 0
    while number < len(packets) and (number < K_HEADER_PACKETS or file.find(packets[number]) < 0):
        number += 1
        assert number <= 2 * K_HEADER_PACKETS, "the first bytes are at no place of the file"
    if number >= len(packets):
        return 0
    at = file.find(b"".join(packets[number : number + 2]))
    found = 0
    for packet in packets[number:]:
        if packet != file[at : at + K_PACKET]:
            assert packet == file[:K_PACKET], f"a gap after byte {at} of the file"
            at = 0
            found += 1
        at += K_PACKET
    return found


@dataclass(slots=True, eq=False)
class Watch:
    """One player of /NAME.ts. ended: the server closed it. restarts: how many publishers came before it."""

    name: str
    restarts: int
    sock: socket.socket
    local_port: int
    head: bytes | None = b""
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False


class Watches:
    """Players of the server's streams, read by one thread. A context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._stop = False
        self._thread = threading.Thread(target=self._loop)

    def __enter__(self) -> Watches:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._wake.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake.close()
        self._selector.close()

    def add(self, name: str, restarts: int) -> Watch:
        sock = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        watch = Watch(name, restarts, sock, sock.getsockname()[1])
        sock.sendall(f"GET /{name}.ts HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        sock.setblocking(False)
        with self._lock:
            self._selector.register(sock, selectors.EVENT_READ, watch)
            self._wake.send(b"x")
        return watch

    def remove(self, watch: Watch) -> bytes:
        """Ends the player; gives what it got."""
        with self._lock:
            if not watch.ended:
                self._selector.unregister(watch.sock)
                watch.sock.close()
                watch.ended = True
        return bytes(watch.received)

    def _loop(self) -> None:
        while not self._stop:
            events = self._selector.select()
            with self._lock:
                for key, _ in events:
                    if key.data is None:
                        self._woken.recv(64)
                    elif not key.data.ended:
                        self._read(key.data)

    def _read(self, watch: Watch) -> None:
        data = b""
        with contextlib.suppress(ConnectionError):
            data = watch.sock.recv(1 << 16)
        if not data:
            watch.ended = True
            self._selector.unregister(watch.sock)
            watch.sock.close()
        elif watch.head is None:
            watch.received += data
        else:
            head, end, body = (watch.head + data).partition(b"\r\n\r\n")
            watch.head = None if end else head
            watch.received += body if end else b""

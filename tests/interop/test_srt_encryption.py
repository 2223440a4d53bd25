"""Encryption against libsrt: who calls, who sends, how long the key is, and whether it changes on the way.

srt-live-transmit of Debian has AES-CTR only, without GCM.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flux.cext.udp.srt_client import CollectingSink

from tests.cext.srt.peer import count
from tests.interop.test_srt_core import K_STDOUT_BYTES, PAYLOAD, Loop, now_us, payloads, transmit

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("srt-live-transmit") is None and os.environ.get("CI") != "true", reason="needs srt-tools"
    ),
]

PASSPHRASE = "correct-horse-battery"
PACKETS = 800
RATE = {"km_refresh_rate_pkts": 150, "km_preannounce_pkts": 50}
# libsrt looks whether a key is due when an ACK comes, and aborts if the time to announce it has passed by
# then: so its keys are to live for many ACKs.
THEIR_RATE = "&kmrefreshrate=1000&kmpreannounce=450"
THEIR_PACKETS = 2490  # nearly whole blocks of ten of its own packets, as it reads its input


@contextlib.contextmanager
def a_loop(**settings: Any) -> Iterator[Loop]:
    loop = Loop(latency_ms=500, **settings)
    try:
        yield loop
    finally:
        loop.sock.close()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def feed(loop: Loop, program: subprocess.Popen[bytes], sent: list[bytes]) -> None:
    """Gives libsrt what it is to send, once it has our answer: what its tool reads before, it throws away."""
    assert program.stdin is not None
    loop.assert_quiet()
    for start in range(0, len(sent), 20):
        program.stdin.write(b"".join(sent[start : start + 20]))
        program.stdin.flush()
        until_us = now_us() + 5_000
        loop.until(lambda at=until_us: now_us() >= at)


def push(loop: Loop, id: int, sent: list[bytes]) -> None:
    """Sends it ourselves."""
    for start in range(0, len(sent), 20):
        for payload in sent[start : start + 20]:
            assert loop.endpoint.send(id, payload, now_us())
        until_us = now_us() + 5_000
        loop.until(lambda at=until_us: now_us() >= at)


def assert_received_by_us(loop: Loop, id: int, sink: CollectingSink, sent: list[bytes]) -> None:
    # A rest that fills no block stays with libsrt's tool.
    loop.until(lambda: len(sink) > PAYLOAD * (len(sent) - 4))
    assert b"".join(sent).startswith(sink.take())
    stats = loop.endpoint.stats(id)
    assert stats["skipped_pkts"] == stats["undecrypted_pkts"] == 0
    assert stats["receive_km_state"] == "secured"


def assert_received_by_them(loop: Loop, program: subprocess.Popen[bytes], sent: list[bytes]) -> None:
    assert program.stdout is not None
    os.set_blocking(program.stdout.fileno(), False)
    got = b""
    end = time.monotonic() + 15
    # What it writes it keeps in a buffer until that is full.
    while len(got) < PAYLOAD * len(sent) - K_STDOUT_BYTES and time.monotonic() < end:
        loop.turn()
        got += program.stdout.read() or b""
    assert len(got) >= PAYLOAD * len(sent) - K_STDOUT_BYTES
    assert b"".join(sent).startswith(got)


keys = pytest.mark.parametrize("key_bytes", [16, 24, 32])
changing = pytest.mark.parametrize("changes", [False, True], ids=["one key", "keys change"])


@keys
@changing
def test_libsrt_publishes(key_bytes: int, changes: bool) -> None:
    sent = payloads(THEIR_PACKETS if changes else PACKETS)
    sink = CollectingSink()
    with a_loop(passphrase=PASSPHRASE) as loop:
        url = f"srt://127.0.0.1:{loop.port}?passphrase={PASSPHRASE}&pbkeylen={key_bytes}"
        url += THEIR_RATE if changes else ""
        with transmit("file://con", url, stdin=subprocess.PIPE) as program:
            _, id, _, _, facts = loop.event("request")
            assert facts["encrypted"]
            loop.endpoint.attach_sink(id, sink)
            assert loop.endpoint.accept(id, now_us())
            feed(loop, program, sent)
            assert_received_by_us(loop, id, sink, sent)
            stats = loop.endpoint.stats(id)
            assert stats["cipher"] == f"aes-{8 * key_bytes}-ctr"
            assert stats["peer_key_refreshes"] == (2 if changes else 0)


@keys
@changing
def test_libsrt_plays(key_bytes: int, changes: bool) -> None:
    sent = payloads(PACKETS)
    with a_loop(passphrase=PASSPHRASE, pbkeylen=key_bytes, **(RATE if changes else {})) as loop:
        # It has no key length of its own, so it takes the one that the listener tells.
        url = f"srt://127.0.0.1:{loop.port}?passphrase={PASSPHRASE}"
        with transmit(url, "file://con", stdout=subprocess.PIPE) as program:
            id = loop.event("request")[1]
            assert loop.endpoint.accept(id, now_us())
            push(loop, id, sent)
            assert_received_by_them(loop, program, sent)
            stats = loop.endpoint.stats(id)
            assert stats["cipher"] == f"aes-{8 * key_bytes}-ctr"
            assert stats["key_refreshes"] == (5 if changes else 0)
            assert count(loop.endpoint, "refused_key_material") == 0


@keys
@changing
def test_we_publish_to_libsrt(key_bytes: int, changes: bool) -> None:
    sent = payloads(PACKETS)
    port = free_port()
    url = f"srt://127.0.0.1:{port}?mode=listener&passphrase={PASSPHRASE}&latency=500"
    with (
        a_loop(**(RATE if changes else {})) as loop,
        transmit(url, "file://con", stdout=subprocess.PIPE) as program,
    ):
        id = call(loop, port, passphrase=PASSPHRASE, pbkeylen=key_bytes)
        push(loop, id, sent)
        assert_received_by_them(loop, program, sent)
        stats = loop.endpoint.stats(id)
        assert stats["cipher"] == f"aes-{8 * key_bytes}-ctr"
        assert stats["key_refreshes"] == (5 if changes else 0)


@keys
@changing
def test_we_play_from_libsrt(key_bytes: int, changes: bool) -> None:
    sent = payloads(THEIR_PACKETS if changes else PACKETS)
    port = free_port()
    url = f"srt://127.0.0.1:{port}?mode=listener&passphrase={PASSPHRASE}&pbkeylen={key_bytes}"
    url += THEIR_RATE if changes else ""
    sink = CollectingSink()
    with a_loop() as loop, transmit("file://con", url, stdin=subprocess.PIPE) as program:
        id = call(loop, port, sink, passphrase=PASSPHRASE)
        # We take the key length that it tells.
        assert loop.endpoint.stats(id)["cipher"] == f"aes-{8 * key_bytes}-ctr"
        feed(loop, program, sent)
        assert_received_by_us(loop, id, sink, sent)
        assert loop.endpoint.stats(id)["peer_key_refreshes"] == (2 if changes else 0)


def call(loop: Loop, port: int, sink: CollectingSink | None = None, **settings: Any) -> int:
    """Calls until libsrt listens, and is taken in."""
    deadline = time.monotonic() + 10
    while True:
        id = loop.endpoint.connect(("127.0.0.1", port), "", now_us(), **settings)
        loop.until(lambda: bool(loop.events))
        event = loop.events.pop(0)
        if event[0] == "connected":
            if sink is not None:
                loop.endpoint.attach_sink(id, sink)
            return int(id)
        assert event == ("closed", id, "handshake_timeout")
        assert time.monotonic() < deadline


# our passphrase, theirs, the code with which a listener refuses, our counter of it
REFUSALS = {
    "another": (PASSPHRASE, "another-horse-battery", 1010, "rejected_secret"),
    "we have none": (None, PASSPHRASE, 1011, "rejected_encrypted"),
    "they have none": (PASSPHRASE, "", 1011, "rejected_unencrypted"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_we_refuse_libsrt(name: str) -> None:
    ours, theirs, code, counter = REFUSALS[name]
    with a_loop(passphrase=ours) as loop:
        url = f"srt://127.0.0.1:{loop.port}?passphrase={theirs}" if theirs else f"srt://127.0.0.1:{loop.port}"
        with transmit("file://con", url, stdin=subprocess.PIPE):
            id = loop.event("request")[1]
            assert loop.endpoint.secure(id, now_us()) == code
            loop.assert_quiet()
        assert count(loop.endpoint, counter) == 1
        assert loop.endpoint.handshakes == 0


@pytest.mark.parametrize("name", REFUSALS)
def test_libsrt_refuses_us(name: str) -> None:
    ours, theirs, code, _ = REFUSALS[name]
    port = free_port()
    url = f"srt://127.0.0.1:{port}?mode=listener" + (f"&passphrase={theirs}" if theirs else "")
    with a_loop(handshake_timeout_ms=1000) as loop, transmit(url, "file://con", stdout=subprocess.PIPE):
        deadline = time.monotonic() + 10
        event: tuple[Any, ...] = ()
        while event[2:] in ((), ("handshake_timeout",)):
            loop.endpoint.connect(("127.0.0.1", port), "", now_us(), passphrase=ours)
            event = loop.event("closed")
            assert time.monotonic() < deadline
        assert event[2] == f"rejected:{code}"


@pytest.mark.parametrize("name", REFUSALS)
def test_without_enforcement_libsrt_connects_and_reads_what_it_can(name: str) -> None:
    ours, theirs, _, _ = REFUSALS[name]
    with a_loop(passphrase=ours, enforced_encryption=False) as loop:
        url = f"srt://127.0.0.1:{loop.port}?enforcedencryption=no"
        url += f"&passphrase={theirs}" if theirs else ""
        sink = CollectingSink()
        with transmit("file://con", url, stdin=subprocess.PIPE) as program:
            id = loop.event("request")[1]
            loop.endpoint.attach_sink(id, sink)
            assert loop.endpoint.accept(id, now_us())
            sent = payloads(100)
            feed(loop, program, sent)
            if theirs:
                loop.until(lambda: loop.endpoint.stats(id)["undecrypted_pkts"] > 80)
                assert len(sink) == 0
            else:
                loop.until(lambda: len(sink) > PAYLOAD * 80)
                assert b"".join(sent).startswith(sink.take())
        assert [event[0] for event in loop.events] in ([], ["closed"])

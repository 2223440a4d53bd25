"""The load generator of fan-out sees every byte that a player did not get as others did."""

import contextlib
import socket
import struct
import threading

import pytest

from perf.programs import LoadError, Program
from perf.server import until

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
HEADER = b"FLV\1\1\0\0\0\x09\0\0\0\0" + b"\x12\0\0\x03" + bytes(7) + b"xyz" + struct.pack(">I", 14)


def tag(number):
    body = bytes([0x17, 1, 0, 0, 0]) + bytes([number % 256]) * 1000
    head = bytes([9]) + len(body).to_bytes(3, "big") + number.to_bytes(3, "big") + bytes(4)
    return head + body + (len(body) + 11).to_bytes(4, "big")


@contextlib.contextmanager
def serving(spoil):
    """Sends every player the same tags, the newest ten first; spoil(player, number, tag) may change one."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.02)
    over = threading.Event()
    players = []

    def serve():
        number = 0
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                accepted, _ = listener.accept()
                first = number // 10 * 10
                players.append(accepted)
                backlog = b"".join(tag(n) for n in range(first, number))
                accepted.sendall(HEAD + HEADER + backlog)
            for place, player in enumerate(players):
                with contextlib.suppress(OSError):
                    player.sendall(spoil(place, number, tag(number)))
            number += 1

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        thread.join()
        for player in players:
            player.close()
        listener.close()


def mark_after(players, tags):
    """Its figures once its log has so many tags."""

    def there():
        figures = players.mark()
        return figures if figures["tags"] >= tags else None

    return until(there, f"{tags} tags")


@pytest.mark.parametrize(
    ("what", "spoil"),
    [
        ("nothing", lambda data: data),
        ("a flipped bit", lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:]),
        ("a lost tag", lambda data: b""),
        ("a tag sent twice", lambda data: data * 2),
    ],
)
def test_what_a_player_got_is_compared(what, spoil):
    def spoil_one(place, number, data):
        return spoil(data) if (place, number) == (2, 70) else data

    with (
        serving(spoil_one) as port,
        Program("players", "--port", port, "--path", "/x", "--players", 4) as players,
    ):
        assert players.read()["ready"] == 4
        figures = mark_after(players, 80)
        assert (figures["mismatched"] > 0) == (what != "nothing")
        assert figures["gone"] == 0


def test_bytes_that_are_left_in_the_kernel_are_counted():
    with (
        serving(lambda place, number, data: data) as port,
        Program("players", "--port", port, "--path", "/x", "--players", 4) as players,
    ):
        assert players.read()["ready"] == 4
        players.tell("discard")
        before = players.mark()
        after = mark_after(players, before["tags"] + 20)
        players.tell("verify")
        last = mark_after(players, after["tags"] + 20)
        assert last["mismatched"] == 0
        assert after["verified"] - before["verified"] < (after["bytes"] - before["bytes"]) / 2
        assert last["verified"] - after["verified"] > (last["bytes"] - after["bytes"]) / 2


def test_the_raw_sender_replays_what_a_player_got(tmp_path):
    trace = tmp_path / "trace"
    with (
        serving(lambda place, number, data: data) as port,
        Program("players", "--port", port, "--path", "/x", "--trace", trace, "--trace-s", 0.5) as player,
    ):
        player.read()
        said = player.read()
        assert said["chunks"] > 5
    with Program("raw_send", "--trace", trace) as sender:
        port = sender.read()["port"]
        with Program("players", "--port", port, "--path", "/", "--players", 20) as players:
            assert players.read()["ready"] == 20
            figures = players.mark()
            assert (figures["mismatched"], figures["gone"], figures["behind"]) == (0, 0, 0)


def test_a_refusal_is_told():
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        accepted, _ = listener.accept()
        accepted.recv(1000)
        accepted.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
        accepted.close()

    thread = threading.Thread(target=refuse)
    thread.start()
    port = listener.getsockname()[1]
    with (
        Program("players", "--port", port, "--path", "/none") as players,
        pytest.raises(LoadError, match=r"/none: HTTP/1\.1 404"),
    ):
        players.read()
    thread.join()
    listener.close()

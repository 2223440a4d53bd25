"""A writer in another process that does not wait for anybody: nobody may be given torn bytes."""

import multiprocessing
import time
import zlib

import pytest

from tests.cext.fanout.rig import HEAD, KEY, flv_tag, rig


def tag(number, length):
    body = number.to_bytes(4, "big") * (length // 4 + 1)
    return flv_tag(zlib.crc32(body).to_bytes(4, "big") + body)


def write(ring, seconds):
    """As fast as it goes, with a pause now and then in which readers catch up."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for _ in range(1 + number % 40):
            number += 1
            ring.append(tag(number, number * 7919 % 9000), flags=KEY if number % 10 == 0 else 0)
        ring.notify()
        if number % 3 == 0:
            time.sleep(0.001)


def check(data, torn_end):
    """Whole tags are what was written and in order; gives how many there are.

    torn_end: the player was closed as lapped, so what it was sent last may be torn.
    """
    at = count = 0
    last = -1
    while at + 15 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 4], "big")
        if at + length + 15 > len(data):
            break
        body = data[at + 11 : at + 11 + length]
        if torn_end and int.from_bytes(body[:4], "big") != zlib.crc32(body[4:]):
            break
        assert int.from_bytes(body[:4], "big") == zlib.crc32(body[4:])
        number = int.from_bytes(body[4:8], "big")
        assert number > last
        last = number
        count += 1
        at += length + 15
    return count


@pytest.mark.parametrize(
    ("seconds", "interval_us"),
    [
        (1, 0),
        (1, 5000),
        pytest.param(30, 0, marks=pytest.mark.slow),
        pytest.param(30, 5000, marks=pytest.mark.slow),
    ],
)
def test_a_writer_at_full_speed_tears_nothing(seconds, interval_us):
    with rig(ring_bytes=1 << 18, write_interval_us=interval_us) as r:
        r.append(tag(0, 10), KEY)
        writer = multiprocessing.get_context("fork").Process(target=write, args=(r.ring, seconds))
        writer.start()
        old = []
        players = [r.join() for _ in range(6)]
        deadline = time.monotonic() + seconds + 20
        turn = 0
        while writer.is_alive():
            assert time.monotonic() < deadline
            r.reactor.run_once(1000)
            turn += 1
            for place, (serial, client) in enumerate(players):
                # Some read all at once, some in drops.
                if turn % (1 + place) == 0:
                    client.read(1 << 20 if place < 3 else 20_000)
                if serial in r.closed:
                    client.read()
                    old.append((serial, client))
                    players[place] = r.join()
        writer.join()
        assert writer.exitcode == 0
        r.read_all(*players)
        assert {reason for reason, _ in r.closed.values()} <= {"lapped"}
        counts = [check(client.data[len(HEAD) :], serial in r.closed) for serial, client in old + players]
        assert max(counts) > 100
        assert r.counters.get("flux_fanout_moved_on_total") + len(old) > 0

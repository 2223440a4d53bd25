"""Players over real sockets; what they get is compared with what was written to the ring."""

import itertools
import random
import socket

import pytest
from flux.cext.fanout.fanout import RING_TS, StreamGone
from flux.cext.reactor import monotonic_us
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from flux.http.websocket import accept_key
from tests.cext.fanout.rig import CONFIG, FLV_HEAD, HEAD, KEY, flv_tag, flv_tags, rig
from tests.cext.fanout.test_websocket import client_frame


def payload(number, length):
    return b"#" + number.to_bytes(4, "big") + random.Random(number).randbytes(length)


def test_a_player_gets_head_and_header_and_all_from_the_newest_keyframe():
    with rig() as r:
        r.ring.set_header(FLV_HEAD + flv_tag(b"meta", 18))
        r.append(flv_tag(b"old"), KEY)
        r.append(flv_tag(b"key"), KEY)
        r.append(flv_tag(b"next"))
        serial, client = r.join()
        first = FLV_HEAD + flv_tag(b"meta", 18) + flv_tag(b"key") + flv_tag(b"next")
        assert client.read() == HEAD + first
        r.append(flv_tag(b"more"))
        r.turn()
        assert client.read() == flv_tag(b"more")
        media = len(flv_tag(b"key") + flv_tag(b"next") + flv_tag(b"more"))
        assert r.fanout.figures(serial) == (media, 0)
        assert r.fanout.players == 1
        assert r.arena.slot(r.slot)["viewers"] == 1


def test_the_header_of_the_keyframe_is_sent_not_a_newer_one():
    with rig() as r:
        r.ring.set_header(FLV_HEAD + flv_tag(b"one", 18))
        r.append(flv_tag(b"key"), KEY)
        r.ring.set_header(FLV_HEAD + flv_tag(b"two", 18))
        r.append(flv_tag(b"config"), CONFIG)
        _, client = r.join()
        tags = flv_tags(client.read()[len(HEAD + FLV_HEAD) :])
        assert tags == [b"one", b"key", b"config"]


def test_a_player_that_comes_first_waits_for_the_pump_and_a_keyframe():
    with rig() as r:
        r.append(flv_tag(b"of an hour ago"), KEY)
        r.ring.active = False
        _, client = r.join()
        assert client.read() == HEAD
        assert r.arena.slot(r.slot)["rings"]["flv"]["wanted"] == 1 << 3
        r.ring.restart()
        r.ring.active = True
        r.append(flv_tag(b"no keyframe"))
        r.turn()
        assert client.read() == b""
        r.ring.set_header(FLV_HEAD)
        r.append(flv_tag(b"key"), KEY)
        r.turn()
        assert client.read() == FLV_HEAD + flv_tag(b"key")
        assert r.counters.get("flux_fanout_waited_total") == 1


def test_the_ring_is_wanted_from_the_first_player_to_the_last():
    def marks():
        facts = r.arena.slot(r.slot)["rings"]["flv"]
        return facts["wanted"]

    with rig() as r:
        assert marks() == 0
        first, _ = r.join()
        second, _ = r.join()
        assert marks() == 1 << 3
        assert r.fanout.kick(first)
        assert marks() == 1 << 3
        assert r.fanout.kick(second)
        assert marks() == 0
        assert not r.fanout.kick(second)
        r.turn()
        assert {serial: reason for serial, (reason, _) in r.closed.items()} == {
            first: "kicked",
            second: "kicked",
        }
        assert r.arena.slot(r.slot)["viewers"] == 0
        assert r.counters.get("flux_fanout_channels") == 0


@pytest.mark.parametrize("unsent_bytes", [0, 2048])
def test_every_byte_reaches_200_players_across_wraps_and_partial_sends(unsent_bytes):
    with rig(ring_bytes=1 << 18, unsent_bytes=unsent_bytes) as r:
        sent = bytearray(HEAD)

        def append(number, length):
            data = payload(number, length)
            r.append(data, KEY if number % 10 == 0 else 0)
            sent.extend(data)

        append(0, 100)
        clients = [r.join(receive_bytes=4096, send_bytes=4608)[1] for _ in range(200)]
        for number in range(1, 150):
            append(number, random.Random(number).randrange(1, 24000))
            # As fast as the slowest takes it, so that nobody is moved on.
            r.until(lambda: min(client.has(len(sent) - 60_000) for client in clients))
        r.until(lambda: min(client.has(len(sent)) for client in clients))
        assert all(client.data == sent for client in clients)
        assert len(sent) > 4 * (1 << 18)
        assert r.counters.get("flux_fanout_blocked_total") > 1000
        assert r.counters.get("flux_fanout_moved_on_total") == 0


def numbers_of(tags):
    """The numbers of payloads; other bodies as they are."""
    return [int.from_bytes(tag[1:5], "big") if tag[:1] == b"#" else tag for tag in tags]


def jumps_in(numbers):
    return [b for a, b in itertools.pairwise(numbers) if b != a + 1]


def test_a_slow_player_is_moved_on_to_a_keyframe_between_tags():
    """Each seventeenth tag has new parameters before it: they must be in force when it comes."""
    with rig(ring_bytes=1 << 18) as r:
        r.ring.set_header(FLV_HEAD + flv_tag(b"0", 18))
        r.append(flv_tag(payload(0, 3000)), KEY)
        serial, client = r.join(receive_bytes=4096, send_bytes=4608)
        for number in range(1, 400):
            if number % 17 == 0:
                r.ring.set_header(FLV_HEAD + flv_tag(b"%d" % (number // 17), 18))
                r.append(flv_tag(b"%d" % (number // 17), 18), CONFIG)
            r.append(flv_tag(payload(number, 3000)), KEY if number % 20 == 0 else 0)
            r.turn(1)
            if number % 4 == 0:
                client.read(1 << 12)
        r.read_all((serial, client))
        numbers = []
        config = None
        for tag in flv_tags(client.data[len(HEAD + FLV_HEAD) :]):
            if tag[:1] != b"#":
                config = int(tag)
                continue
            numbers.append(int.from_bytes(tag[1:5], "big"))
            assert tag == payload(numbers[-1], 3000)
            assert config == numbers[-1] // 17
        assert (numbers[0], numbers[-1]) == (0, 399)
        assert jumps_in(numbers)
        assert all(number % 20 == 0 for number in jumps_in(numbers))
        assert r.counters.get("flux_fanout_moved_on_total") == len(jumps_in(numbers))
        assert r.counters.get("flux_fanout_skipped_bytes_total") > 0


def test_a_player_that_is_late_by_the_clock_is_moved_on():
    with rig(ring_bytes=1 << 20, max_lag_us=1_000_000) as r:
        now = monotonic_us()
        r.append(flv_tag(payload(0, 200_000)), KEY, arrival_us=now)
        serial, client = r.join(receive_bytes=4096, send_bytes=4608)
        r.append(flv_tag(payload(1, 3000)), arrival_us=now - 5_000_000)
        r.append(flv_tag(payload(2, 3000)), KEY, arrival_us=now)
        r.append(flv_tag(payload(3, 3000)), arrival_us=now)
        r.read_all((serial, client))
        assert 0 in numbers_of(flv_tags(client.data[len(HEAD) :]))
        assert r.counters.get("flux_fanout_closed_lapped_total") == 0


def test_a_player_that_takes_nothing_is_closed():
    with rig(ring_bytes=1 << 18, slow_player_us=300_000) as r:
        r.append(flv_tag(payload(0, 100_000)), KEY)
        serial, _ = r.join(receive_bytes=4096, send_bytes=4608)
        _, quick = r.join()
        r.until(lambda: quick.read() is not None and serial in r.closed)
        assert r.closed == {serial: ("too_slow", r.closed[serial][1])}
        assert 0 < r.closed[serial][1] < 100_000
        assert r.counters.get("flux_fanout_closed_too_slow_total") == 1


def test_a_player_that_is_overtaken_inside_a_tag_is_closed_not_continued():
    with rig(ring_bytes=1 << 16) as r:
        r.append(flv_tag(payload(0, 30_000)), KEY)
        serial, client = r.join(receive_bytes=4096, send_bytes=4608)
        for number in range(1, 10):
            r.ring.append(flv_tag(payload(number, 30_000)), flags=KEY)
        r.until(lambda: client.is_over() and serial in r.closed)
        assert r.closed[serial][0] == "lapped"
        assert flv_tag(payload(0, 30_000)).startswith(client.data[len(HEAD) :])


def test_a_player_that_is_overtaken_between_tags_goes_on_at_a_keyframe():
    with rig(ring_bytes=1 << 16, write_interval_us=0) as r:
        r.append(flv_tag(b"key"), KEY)
        serial, client = r.join()
        for number in range(1, 10):
            r.ring.append(flv_tag(payload(number, 30_000)), flags=KEY)
        r.ring.notify()
        r.read_all((serial, client))
        assert numbers_of(flv_tags(client.data[len(HEAD) :])) == [b"key", 9]


def test_a_ring_that_is_started_anew_by_another_owner_carries_its_players_on():
    with rig() as r:
        r.ring.set_header(FLV_HEAD)
        r.append(flv_tag(b"before"), KEY)
        serial, client = r.join()
        r.arena.go_idle(r.slot, monotonic_us())
        r.turn()
        assert r.fanout.players == 1
        r.ring.restart()
        r.ring.notify()
        r.turn()
        assert serial not in r.closed
        r.ring.set_header(FLV_HEAD + flv_tag(b"new", 18))
        r.ring.active = True
        r.append(flv_tag(b"after"), KEY)
        r.turn()
        r.read_all((serial, client))
        assert flv_tags(client.data[len(HEAD + FLV_HEAD) :]) == [b"before", b"new", b"after"]


def test_ts_is_cut_between_packets():
    def packets(number, count):
        return b"".join(b"\x47" + number.to_bytes(4, "big") + bytes(183) for _ in range(count))

    with rig(ring_bytes=1 << 18, kind=RING_TS) as r:
        r.append(packets(0, 150), KEY)
        serial, client = r.join(receive_bytes=4096, send_bytes=4608)
        for number in range(1, 60):
            r.append(packets(number, 100), KEY if number % 5 == 0 else 0)
            r.turn(1)
            client.read(1 << 12)
        r.read_all((serial, client))
        media = client.data[len(HEAD) :]
        assert len(media) % 188 == 0
        assert set(media[::188]) == {0x47}
        assert r.counters.get("flux_fanout_moved_on_total") > 0


def test_a_freed_stream_closes_its_players():
    with rig() as r:
        r.append(flv_tag(b"key"), KEY)
        serial, client = r.join()
        r.arena.go_idle(r.slot, monotonic_us())
        r.arena.retire(r.slot)
        r.until(lambda: client.is_over() and serial in r.closed)
        assert r.closed[serial] == ("stream_ended", len(flv_tag(b"key")))
        assert r.arena.slot(r.slot)["viewers"] == 0
        with pytest.raises(StreamGone):
            r.join()


def test_players_of_a_freed_stream_do_not_get_the_next_one():
    with rig() as r:
        r.append(flv_tag(b"one"), KEY)
        old, client = r.join()
        r.arena.go_idle(r.slot, monotonic_us())
        r.arena.retire(r.slot)
        r.slot, r.generation = r.arena.claim("live/b", 1)
        r.ring.active = True
        r.append(flv_tag(b"two"), KEY)
        new, other = r.join()
        r.until(lambda: client.is_over() and old in r.closed)
        assert flv_tags(client.data[len(HEAD) :]) == [b"one"]
        assert flv_tags(other.read()[len(HEAD) :]) == [b"two"]
        assert r.arena.slot(r.slot)["viewers"] == 1
        assert r.fanout.figures(new) == (len(flv_tag(b"two")), 0)


@pytest.mark.parametrize("how", ["close", "shutdown", "reset"])
def test_a_client_that_leaves_is_noticed_without_anything_to_send(how):
    with rig() as r:
        serial, client = r.join()
        if how == "shutdown":
            client.sock.shutdown(socket.SHUT_WR)
        elif how == "close":
            client.sock.close()
        else:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            client.sock.close()
        r.until(lambda: serial in r.closed)
        assert r.closed[serial] == ("left", 0)


def test_a_client_that_talks_is_heard_but_one_that_floods_is_closed():
    with rig() as r:
        serial, client = r.join()
        client.sock.send(b"x" * 5000)
        r.turn()
        assert serial not in r.closed
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.sock.send(b"x" * 300_000)
        r.until(lambda: serial in r.closed)
        assert r.closed[serial][0] == "flood"


def test_writes_are_coalesced_over_the_interval():
    with rig(write_interval_us=50_000) as r:
        r.append(b"key", KEY)
        _, client = r.join()
        r.append(b"0")
        r.until(lambda: client.has(len(HEAD) + 4))
        sends = r.counters.get("flux_fanout_sends_total")
        start = monotonic_us()
        for number in range(30):
            r.append(b"%d" % (number % 10))
            r.turn(1)
        r.until(lambda: client.has(len(HEAD) + 34))
        rounds = r.counters.get("flux_fanout_sends_total") - sends
        assert 1 <= rounds <= 1 + (monotonic_us() - start) // 50_000
        assert rounds < 30


def test_interval_zero_sends_each_batch_at_once():
    with rig(write_interval_us=0) as r:
        r.append(b"key", KEY)
        clients = [r.join()[1] for _ in range(3)]
        for client in clients:
            client.read()
        r.append(b"one")
        r.reactor.run_once(1_000_000)
        assert [client.read() for client in clients] == [b"one"] * 3


def test_reconfiguring_changes_the_interval():
    with rig(write_interval_us=60_000_000) as r:
        r.append(b"key", KEY)
        _, client = r.join()
        r.append(b"1")
        r.until(lambda: client.has(len(HEAD) + 4))
        r.append(b"2")
        r.turn()
        assert client.read() == b""
        r.fanout.configure(0, 10_000_000, 0, 0, 0)
        r.turn()
        assert client.read() == b"2"
        r.append(b"3")
        r.turn()
        assert client.read() == b"3"


def test_closing_ends_all_players_and_tells_of_them():
    with rig() as r:
        r.append(b"key", KEY)
        serials = {r.join()[0] for _ in range(5)}
        r.fanout.close()
        assert r.closed == dict.fromkeys(serials, ("stopped", 3))
        assert all(client.is_over() for client in r.clients)


def test_joining_is_refused_where_there_is_nothing_to_join():
    with rig() as r:
        server, _ = r.pair()
        with pytest.raises(StreamGone):
            r.fanout.join(server.fileno(), r.slot, r.generation + 1, r.kind, HEAD)
        with pytest.raises(StreamGone):
            r.fanout.join(server.fileno(), 2, 0, r.kind, HEAD)
        for slot, kind, head in ((99, r.kind, HEAD), (r.slot, 6, HEAD), (r.slot, r.kind, bytes(40_000))):
            with pytest.raises(ValueError, match="no player can join"):
                r.fanout.join(server.fileno(), slot, r.generation, kind, head)
        assert server.send(b"still mine") == 10
        server.close()
        assert r.fanout.players == 0
        assert r.counters.get("flux_fanout_channels") == 0


class WebSocketClient:
    """A WebSocket client by the websockets package, past its handshake."""

    def __init__(self, client):
        self.client = client
        self.protocol = ClientProtocol(parse_uri("ws://test/"))
        request = self.protocol.connect()
        self.protocol.send_request(request)
        self.protocol.data_to_send()
        key = accept_key(request.headers["Sec-WebSocket-Key"])
        self.head = (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {key}\r\n\r\n"
        ).encode()
        self.messages = []
        self.frames = []

    def read(self, limit=1 << 24):
        self.protocol.receive_data(self.client.read(limit))
        for event in self.protocol.events_received():
            if hasattr(event, "opcode"):
                self.frames.append(event)
        return [bytes(frame.data) for frame in self.frames if frame.opcode == 2]

    def send(self):
        for data in self.protocol.data_to_send():
            self.client.sock.send(data)


def join_websocket(r, **buffers):
    server, client = r.pair(**buffers)
    it = WebSocketClient(client)
    serial = r.fanout.join(server.fileno(), r.slot, r.generation, r.kind, it.head, websocket=True)
    server.detach()
    it.read()
    return serial, it


def test_websocket_messages_are_whole_records():
    with rig(ring_bytes=1 << 20) as r:
        r.ring.set_header(FLV_HEAD + flv_tag(b"meta", 18))
        r.append(flv_tag(b"key"), KEY)
        _, client = join_websocket(r)
        assert client.read() == [FLV_HEAD + flv_tag(b"meta", 18), flv_tag(b"key")]
        sizes = [1, 100, 111, 112, 200, 65_000, 70_000, 3]
        for number, size in enumerate(sizes):
            r.append(flv_tag(payload(number, size)))
            r.turn()
        assert client.read()[2:] == [flv_tag(payload(number, size)) for number, size in enumerate(sizes)]


def test_websocket_messages_are_bounded_and_end_with_a_record():
    with rig(ring_bytes=1 << 20) as r:
        r.append(flv_tag(payload(0, 20_000)), KEY)
        for number in range(1, 20):
            r.append(flv_tag(payload(number, 20_000)))
        serial, client = join_websocket(r)
        r.read_all((serial, client))
        messages = client.read()
        assert max(len(message) for message in messages) <= 65_536
        assert numbers_of([tag for message in messages for tag in flv_tags(message)]) == list(range(20))


def test_a_slow_websocket_is_moved_on_between_messages():
    with rig(ring_bytes=1 << 20) as r:
        r.append(flv_tag(payload(0, 3000)), KEY)
        serial, client = join_websocket(r, receive_bytes=4096, send_bytes=4608)
        for number in range(1, 1000):
            r.append(flv_tag(payload(number, 3000)), KEY if number % 20 == 0 else 0)
            r.turn(1)
            if number % 4 == 0:
                client.read(1 << 12)
            if number == 500:
                client.protocol.send_ping(b"are you there?")
                client.send()
        r.read_all((serial, client))
        media = numbers_of([tag for message in client.read() for tag in flv_tags(message)])
        assert jumps_in(media)
        assert all(number % 20 == 0 for number in jumps_in(media))
        assert media[-1] == 999
        pongs = [bytes(frame.data) for frame in client.frames if frame.opcode == 10]
        assert pongs == [b"are you there?"]
        assert r.counters.get("flux_fanout_pings_total") == 1


def test_a_websocket_is_closed_in_form():
    with rig() as r:
        r.append(flv_tag(b"key"), KEY)
        leaving, first = join_websocket(r)
        kicked, second = join_websocket(r)
        broken, third = join_websocket(r)
        first.protocol.send_close(1000, "bye")
        first.send()
        third.client.sock.send(client_frame(9, masked=False))
        r.fanout.kick(kicked)
        r.until(lambda: len(r.closed) == 3)
        for client in (first, second, third):
            client.read()
        assert r.closed[leaving][0] == "left"
        assert r.closed[kicked][0] == "kicked"
        assert r.closed[broken][0] == "websocket_error"
        assert [client.protocol.close_rcvd.code for client in (first, second, third)] == [1000, 1008, 1002]


APPEND, TURN, READ, LEAVE = range(4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(APPEND), st.integers(1, 9000), st.booleans()),
            st.tuples(st.just(TURN), st.integers(1, 3), st.none()),
            st.tuples(st.just(READ), st.integers(0, 3), st.integers(1, 20_000)),
            st.tuples(st.just(LEAVE), st.integers(0, 3), st.none()),
        ),
        max_size=120,
    )
)
def test_whatever_the_schedule_tags_stay_whole_and_in_order(steps):
    with rig(ring_bytes=1 << 16) as r:
        r.append(flv_tag(payload(0, 10)), KEY)
        players = [r.join(receive_bytes=4096, send_bytes=4608) for _ in range(3)] + [r.join()]
        number = 0
        for step, value, more in steps:
            if step == APPEND:
                number += 1
                r.append(flv_tag(payload(number, value)), KEY if more else 0)
            elif step == TURN:
                r.turn(value)
            elif step == READ:
                players[value][1].read(more)
            else:
                r.fanout.kick(players[value][0])
        number += 1
        r.append(flv_tag(payload(number, 10)), KEY)
        r.read_all(*players)
        for serial, client in players:
            data = bytes(client.data[len(HEAD) :])
            if serial in r.closed:
                assert r.closed[serial][0] in ("kicked", "lapped")
                data = data[: _whole_tags(data)]
            numbers = numbers_of(flv_tags(data))
            assert numbers == sorted(set(numbers))
            assert serial in r.closed or numbers[-1] == number


def _whole_tags(data):
    """How many bytes of `data` are whole tags."""
    at = 0
    while at + 15 <= len(data):
        length = int.from_bytes(data[at + 1 : at + 4], "big") + 15
        if at + length > len(data):
            break
        at += length
    return at

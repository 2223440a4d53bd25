import pytest
from flux.cext.fanout.websocket import FrameReader, frame_head
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

MASK = b"\x11\x22\x33\x44"


def client_frame(opcode, payload=b"", *, final=True, masked=True, reserved=0, length=None):
    """A frame as a client sends it, or ought not to."""
    count = len(payload)
    head = bytes(((0x80 if final else 0) | reserved | opcode,))
    bit = 0x80 if masked else 0
    if length is not None:
        head += length
    elif count < 126:
        head += bytes((bit | count,))
    elif count < 65536:
        head += bytes((bit | 126,)) + count.to_bytes(2, "big")
    else:
        head += bytes((bit | 127,)) + count.to_bytes(8, "big")
    if masked:
        head += MASK
        payload = bytes(byte ^ MASK[i & 3] for i, byte in enumerate(payload))
    return head + payload


CASES = [
    ("ping", client_frame(9, b"hello"), [("ping", b"hello")]),
    ("empty ping", client_frame(9), [("ping", b"")]),
    ("longest ping", client_frame(9, b"p" * 125), [("ping", b"p" * 125)]),
    ("pong", client_frame(10, b"x"), [("pong", b"x")]),
    ("close without a status", client_frame(8), [("close", 1000)]),
    ("close", client_frame(8, b"\x03\xe9bye"), [("close", 1001)]),
    ("text is let pass", client_frame(1, b"t" * 300) + client_frame(9, b"a"), [("ping", b"a")]),
    (
        "binary in pieces",
        client_frame(2, b"a", final=False) + client_frame(9) + client_frame(0, b"b"),
        [("ping", b"")],
    ),
    ("64 KiB are taken", client_frame(2, b"b" * 65536) + client_frame(9), [("ping", b"")]),
    ("nothing counts after a close", client_frame(8) + client_frame(9), [("close", 1000)]),
    ("no mask", client_frame(9, b"a", masked=False), [("broken", 1002)]),
    ("reserved bit", client_frame(9, reserved=0x40), [("broken", 1002)]),
    ("unknown data opcode", client_frame(3), [("broken", 1002)]),
    ("unknown control opcode", client_frame(11), [("broken", 1002)]),
    ("ping in pieces", client_frame(9, final=False), [("broken", 1002)]),
    ("ping too long", client_frame(9, b"p" * 126), [("broken", 1002)]),
    ("continuation of nothing", client_frame(0), [("broken", 1002)]),
    ("new message inside another", client_frame(2, final=False) + client_frame(2), [("broken", 1002)]),
    ("length not in its shortest form", client_frame(2, b"", length=b"\xfe\x00\x05"), [("broken", 1002)]),
    (
        "long length not in its shortest form",
        client_frame(2, b"", length=b"\xff" + (65535).to_bytes(8, "big")),
        [("broken", 1002)],
    ),
    (
        "message too long",
        client_frame(2, b"", length=b"\xff" + (1 << 63).to_bytes(8, "big")),
        [("broken", 1009)],
    ),
    (
        "message too long in pieces",
        client_frame(2, b"b" * 60000, final=False) + client_frame(0, b"b" * 6000),
        [("broken", 1009)],
    ),
    ("close with half a status", client_frame(8, b"\x03"), [("broken", 1002)]),
    ("close with a status that is never sent", client_frame(8, b"\x03\xed"), [("broken", 1002)]),
]


@pytest.mark.parametrize(("data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_client_frames(data, expected, step):
    reader = FrameReader()
    events = []
    for at in range(0, len(data), step):
        events += reader.feed(data[at : at + step])
    assert events == expected


@given(st.lists(st.sampled_from([case[1] for case in CASES])), st.lists(st.integers(1, 400), min_size=1))
def test_events_do_not_depend_on_how_the_bytes_are_cut(frames, steps):
    data = b"".join(frames)
    whole = FrameReader().feed(data) if data else []
    reader = FrameReader()
    events = []
    at = turn = 0
    while at < len(data):
        step = steps[turn % len(steps)]
        events += reader.feed(data[at : at + step])
        at += step
        turn += 1
    assert events == whole


@given(st.binary(max_size=500))
def test_any_bytes_are_taken(data):
    events = FrameReader().feed(data)
    assert all(name in ("ping", "pong", "close", "broken") for name, _ in events)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_heads_are_read_by_another_implementation(length):
    payload = bytes(length)
    stream = StreamReader()
    stream.feed_data(frame_head(2, length) + payload)
    parsing = Frame.parse(stream.read_exact, mask=False, max_size=None)
    with pytest.raises(StopIteration) as caught:
        next(parsing)
    frame = caught.value.value
    assert (frame.opcode, frame.fin, frame.data) == (Opcode.BINARY, True, payload)

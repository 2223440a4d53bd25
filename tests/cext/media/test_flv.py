"""FLV tags and AMF0 values."""

from __future__ import annotations

import struct

import pytest
from flux.cext.media import amf, flv
from hypothesis import given
from hypothesis import strategies as st

H264, H265, AAC = 1, 2, 32
HEADER = flv.file_header(audio=True, video=True)

# codec, arguments of frame_tag, bytes before the payload
HEADS = [
    (H264, {"key": True}, "17 01 000000"),
    (H264, {"composition_ms": 80}, "27 01 000050"),
    (H264, {"composition_ms": -2}, "27 01 fffffe"),
    (H264, {"config": True}, "17 00 000000"),
    (H265, {"key": True}, "93 68766331"),
    (H265, {"key": True, "composition_ms": 80}, "91 68766331 000050"),
    (H265, {"composition_ms": -2}, "a1 68766331 fffffe"),
    (H265, {}, "a3 68766331"),
    (H265, {"config": True}, "90 68766331"),
    (AAC, {}, "af 01"),
    (AAC, {"config": True}, "af 00"),
]


@pytest.mark.parametrize(("codec", "how", "head"), HEADS)
def test_frame_tags(codec, how, head):
    """Annex E.4 and Enhanced RTMP: the tag's header, the codec's, the payload, PreviousTagSize."""
    tag = flv.frame_tag(codec, b"payload", timestamp_ms=0x12345678, **how)
    data = bytes.fromhex(head) + b"payload"
    kind = b"\x08" if codec == AAC else b"\x09"
    size = len(data).to_bytes(3, "big")
    assert tag == kind + size + b"\x34\x56\x78\x12" + b"\0\0\0" + data + (11 + len(data)).to_bytes(4, "big")


@pytest.mark.parametrize(("codec", "how", "head"), HEADS)
def test_frames_are_read_back(codec, how, head):
    (tag,) = flv.read(
        flv.file_header(audio=True, video=True) + flv.frame_tag(codec, b"x", timestamp_ms=5, **how)
    )
    frame = tag.frame()
    assert frame.codec == {H264: "H264", H265: "H265", AAC: "AAC"}[codec]
    assert (frame.config, frame.key) == (how.get("config", False), how.get("key", False))
    assert (frame.dts_ms, frame.pts_ms, frame.data) == (5, 5 + how.get("composition_ms", 0), b"x")


@pytest.mark.parametrize(("audio", "video", "flags"), [(True, True, 5), (True, False, 4), (False, True, 1)])
def test_file_header(audio, video, flags):
    header = flv.file_header(audio=audio, video=video)
    assert header == b"FLV\x01" + bytes([flags]) + b"\0\0\0\x09" + b"\0\0\0\0"
    reader = flv.Reader()
    assert reader.feed(header) == []
    assert (reader.has_audio, reader.has_video) == (audio, video)


def test_metadata():
    facts = {"width": 1920, "height": 1080, "fps_millihz": 29970, "sample_rate": 48000, "channels": 2}
    tag = flv.metadata_tag(video_codec=H265, audio_codec=AAC, **facts)
    (read,) = flv.read(flv.file_header(audio=True, video=True) + tag)
    assert (read.type, read.timestamp_ms, read.frame()) == (flv.SCRIPT, 0, None)
    name, values = read.values()
    assert name == "onMetaData"
    assert values == {
        "width": 1920,
        "height": 1080,
        "framerate": 29.97,
        "videocodecid": 0x68766331,
        "audiocodecid": 10,
        "audiosamplerate": 48000,
        "audiosamplesize": 16,
        "stereo": True,
        "encoder": "Flux",
    }
    assert struct.unpack(">I", tag[11 + 13 + 1 : 11 + 13 + 5]) == (len(values),)


def test_metadata_leaves_out_what_is_unknown():
    (tag,) = flv.read(flv.file_header(audio=True, video=False) + flv.metadata_tag(audio_codec=AAC))
    assert tag.values()[1] == {"audiocodecid": 10, "encoder": "Flux"}


FRAMES = st.lists(
    st.tuples(
        st.sampled_from([H264, H265, AAC]), st.binary(max_size=300), st.booleans(), st.integers(0, 2**32 - 1)
    )
)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 4000)))
def test_any_split_is_read_alike(frames, cuts):
    """A tag's end may come at any time; offsets and contents stay."""
    data = flv.file_header(audio=True, video=True)
    offsets = []
    for codec, payload, key, timestamp in frames:
        offsets.append(len(data))
        data += flv.frame_tag(codec, payload, key=key, timestamp_ms=timestamp)
    reader = flv.Reader()
    tags = []
    before = 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        tags += reader.feed(data[before:cut])
        before = cut
    assert tags == flv.read(data)
    assert [tag.at for tag in tags] == offsets
    assert [(t.frame().data, t.timestamp_ms) for t in tags] == [
        (payload, time) for _, payload, _, time in frames
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"HTTP/1.1 404", "not FLV"),
        (b"G" * 20, "not FLV"),
        (HEADER[:5] + b"\0\0\0\x0a" + HEADER[9:], "header of 10 bytes"),
        (HEADER + b"\x07" + bytes(20), "tag of type 7 at byte 13"),
        (HEADER + flv.frame_tag(AAC, b"abc")[:-1] + b"\x55", "PreviousTagSize at byte 29"),
    ],
)
def test_what_is_no_flv(data, message):
    with pytest.raises(ValueError, match=message):
        flv.read(data)


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (flv.Tag(flv.AUDIO, 0, b"\x2f\x01abc", 0), "SoundFormat 2"),
        (flv.Tag(flv.AUDIO, 0, b"", 0), "SoundFormat"),
        (flv.Tag(flv.VIDEO, 0, b"\x22abcd", 0), "CodecID 2"),
        (flv.Tag(flv.VIDEO, 0, b"\x17\x01", 0), "cut off"),
        (flv.Tag(flv.VIDEO, 0, b"\x90av01abc", 0), "av01"),
        (flv.Tag(flv.VIDEO, 0, b"\x91hvc1\0", 0), "cut off"),
    ],
)
def test_frames_that_are_not_read(tag, message):
    with pytest.raises(ValueError, match=message):
        tag.frame()


@pytest.mark.parametrize("data", [b"\x17\x02\0\0\0", b"\x57\x00\0\0\0", b"\x92hvc1", b"\x94hvc1abc"])
def test_tags_without_media(data):
    """End of sequence, command frames and metadata frames are passed over."""
    assert flv.Tag(flv.VIDEO, 0, data, 0).frame() is None


def test_frames_beyond_a_tag():
    with pytest.raises(ValueError, match="too long"):
        flv.frame_tag(AAC, bytes((1 << 24) - 2))
    assert len(flv.frame_tag(AAC, bytes((1 << 24) - 3))) == (1 << 24) - 1 + 15
    with pytest.raises(ValueError, match="codec 33"):
        flv.frame_tag(33, b"")


VALUES = [
    ("00 3ff8000000000000", 1.5),
    ("01 01", True),
    ("01 00", False),
    ("02 0003 616263", "abc"),
    ("0c 00000003 616263", "abc"),
    ("03 0001 61 05 0001 62 06 0000 09", {"a": None, "b": None}),
    ("08 00000001 0001 61 01 01 0000 09", {"a": True}),
    ("0a 00000002 05 01 01", [None, True]),
    ("0b 4059000000000000 0000", 100.0),
    ("03 0001 61 03 0000 09 0000 09", {"a": {}}),
]


@pytest.mark.parametrize(("data", "value"), VALUES)
def test_amf_values(data, value):
    assert amf.read(bytes.fromhex(data)) == [value]


@pytest.mark.parametrize(("data", "value"), VALUES)
def test_amf_values_that_are_cut_off(data, value):
    whole = bytes.fromhex(data)
    for length in range(1, len(whole)):
        with pytest.raises(ValueError, match="cut off"):
            amf.read(whole[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("03 0001 61" * 40, "nested"),
        ("0a 00000001" * 40, "nested"),
        ("0a ffffffff", "cut off"),
        ("0d", "type 13"),
        ("11 00", "type 17"),
    ],
)
def test_amf_that_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        amf.read(bytes.fromhex(data))


@given(st.binary(max_size=200))
def test_amf_takes_any_bytes(data):
    try:
        values = amf.read(data)
    except ValueError:
        return
    assert isinstance(values, list)

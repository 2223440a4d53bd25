"""FLV tags, written by the core and read by Python."""

from typing import NamedTuple

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from flux.cext.media.amf cimport (
    amf_boolean, amf_ecma_array, amf_name, amf_number, amf_object_end, amf_string, amf_writer
)
from flux.cext.media.codec cimport CODEC_AAC, CODEC_H264, CODEC_H265

from flux.cext.media import amf
from flux.cext.media.codec import NAMES

cdef enum:
    K_AVC = 7                     # CodecID, E.4.3.1
    K_AAC = 10                    # SoundFormat, E.4.2.1
    K_AAC_HEAD = 0xAF             # AAC is always said to be 44 kHz, stereo, 16 bits
    K_ENHANCED = 0x80             # IsExHeader
    K_SEQUENCE_START = 0          # PacketType of Enhanced FLV
    K_CODED_FRAMES = 1
    K_CODED_FRAMES_X = 3          # without composition time: it is 0

cdef uint32_t FOURCC_HVC1 = 0x68766331

AUDIO, VIDEO, SCRIPT = FLV_AUDIO, FLV_VIDEO, FLV_SCRIPT
HEADER_BYTES = K_FLV_HEADER_BYTES


cdef uint8_t* put_24(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = value >> 16 & 0xFF
    out[1] = value >> 8 & 0xFF
    out[2] = value & 0xFF
    return out + 3


cdef uint8_t* put_32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = value >> 24
    return put_24(out + 1, value)


cdef uint8_t* put_tag_header(uint8_t* out, uint32_t type, uint32_t data_bytes, uint32_t timestamp_ms) noexcept nogil:
    """E.4.1: the upper eight bits of the timestamp come last."""
    out[0] = type
    out = put_24(out + 1, data_bytes)
    out = put_24(out, timestamp_ms)
    out[0] = timestamp_ms >> 24
    return put_24(out + 1, 0)


cdef void flv_put_header(uint8_t* out, bint audio, bint video) noexcept nogil:
    """E.2 and the first PreviousTagSize of E.3."""
    memcpy(out, b"FLV\x01", 4)
    out[4] = (4 if audio else 0) | (1 if video else 0)
    put_32(put_32(out + 5, 9), 0)


cdef uint32_t head_bytes(const flv_frame* f) noexcept nogil:
    if f.codec == CODEC_AAC:
        return 2
    if f.codec == CODEC_H265 and not f.config and f.composition_ms:
        return 8
    return 5


cdef uint32_t flv_frame_bytes(const flv_frame* f) noexcept nogil:
    if f.length > K_FLV_DATA_BYTES - head_bytes(f):
        return 0
    return K_FLV_TAG_BYTES + head_bytes(f) + f.length


cdef void flv_put_frame(const flv_frame* f, const uint8_t* payload, uint8_t* out) noexcept nogil:
    """Write the tag of an access unit, an AAC frame or their configuration record."""
    cdef uint32_t data_bytes = head_bytes(f) + f.length
    cdef uint32_t type = 1 if f.key or f.config else 2   # FrameType: key frame, inter frame
    out = put_tag_header(out, FLV_AUDIO if f.codec == CODEC_AAC else FLV_VIDEO, data_bytes, f.timestamp_ms)
    if f.codec == CODEC_AAC:
        out[0] = K_AAC_HEAD
        out[1] = not f.config
        out += 2
    elif f.codec == CODEC_H264:
        out[0] = type << 4 | K_AVC
        out[1] = not f.config
        out = put_24(out + 2, 0 if f.config else <uint32_t>f.composition_ms)
    else:
        out[0] = K_ENHANCED | type << 4 | (
            K_SEQUENCE_START if f.config else K_CODED_FRAMES if f.composition_ms else K_CODED_FRAMES_X)
        out = put_32(out + 1, FOURCC_HVC1)
        if not f.config and f.composition_ms:
            out = put_24(out, <uint32_t>f.composition_ms)
    if f.length:
        memcpy(out, payload, f.length)
    put_32(out + f.length, K_FLV_TAG_HEADER_BYTES + data_bytes)


cdef uint32_t put_property(amf_writer* w, const char* name, double value) noexcept nogil:
    amf_name(w, name)
    amf_number(w, value)
    return 1


cdef uint32_t put_properties(amf_writer* w, const flv_facts* m) noexcept nogil:
    """E.5; gives how many."""
    cdef uint32_t count = 1
    if m.video_codec:
        if m.width:
            count += put_property(w, b"width", m.width)
            count += put_property(w, b"height", m.height)
        if m.fps_millihz:
            count += put_property(w, b"framerate", m.fps_millihz / 1000.0)
        count += put_property(w, b"videocodecid", K_AVC if m.video_codec == CODEC_H264 else FOURCC_HVC1)
    if m.audio_codec:
        count += put_property(w, b"audiocodecid", K_AAC)
        if m.sample_rate:
            count += put_property(w, b"audiosamplerate", m.sample_rate)
            count += put_property(w, b"audiosamplesize", 16)
            amf_name(w, b"stereo")
            amf_boolean(w, m.channels != 1)
            count += 1
    amf_name(w, b"encoder")
    amf_string(w, b"Flux")
    amf_object_end(w)
    return count


cdef uint32_t flv_put_metadata(const flv_facts* m, uint8_t* out) noexcept nogil:
    """The script tag onMetaData at timestamp 0, at most K_FLV_METADATA_BYTES."""
    cdef uint8_t properties[K_FLV_METADATA_BYTES]
    cdef amf_writer w
    cdef uint32_t count, length, data_bytes
    w.at = properties
    w.end = properties + K_FLV_METADATA_BYTES
    w.overrun = False
    count = put_properties(&w, m)
    length = <uint32_t>(w.at - properties)
    w.at = out + K_FLV_TAG_HEADER_BYTES
    w.end = out + K_FLV_METADATA_BYTES
    amf_string(&w, b"onMetaData")
    amf_ecma_array(&w, count)
    memcpy(w.at, properties, length)
    w.at += length
    data_bytes = <uint32_t>(w.at - out) - K_FLV_TAG_HEADER_BYTES
    put_tag_header(out, FLV_SCRIPT, data_bytes, 0)
    put_32(w.at, K_FLV_TAG_HEADER_BYTES + data_bytes)
    return K_FLV_TAG_BYTES + data_bytes


def file_header(*, bint audio, bint video):
    """The file header and PreviousTagSize0, 13 bytes."""
    cdef uint8_t out[K_FLV_HEADER_BYTES]
    flv_put_header(out, audio, video)
    return out[:K_FLV_HEADER_BYTES]


def frame_tag(uint32_t codec, const uint8_t[::1] payload not None, *, bint config=False, bint key=False,
              uint32_t timestamp_ms=0, int composition_ms=0):
    """One tag with its PreviousTagSize; codec: media_codec number of H.264, H.265 or AAC. ValueError over 16 MiB."""
    cdef flv_frame f
    f.codec, f.config, f.key = codec, config, key
    f.timestamp_ms, f.composition_ms = timestamp_ms, composition_ms
    f.length = <uint32_t>payload.shape[0]
    if codec not in (CODEC_H264, CODEC_H265, CODEC_AAC):
        raise ValueError(f"codec {codec} has no FLV tag here")
    if not flv_frame_bytes(&f):
        raise ValueError(f"a frame of {payload.shape[0]} bytes is too long for an FLV tag")
    out = bytearray(flv_frame_bytes(&f))
    cdef uint8_t[::1] view = out
    flv_put_frame(&f, &payload[0] if f.length else NULL, &view[0])
    return bytes(out)


def metadata_tag(*, uint32_t video_codec=0, uint32_t width=0, uint32_t height=0, uint32_t fps_millihz=0,
                 uint32_t audio_codec=0, uint32_t sample_rate=0, uint32_t channels=0):
    """The script tag onMetaData with its PreviousTagSize; what is 0 is left out."""
    cdef flv_facts m
    cdef uint8_t out[K_FLV_METADATA_BYTES]
    m.video_codec, m.width, m.height, m.fps_millihz = video_codec, width, height, fps_millihz
    m.audio_codec, m.sample_rate, m.channels = audio_codec, sample_rate, channels
    return out[:flv_put_metadata(&m, out)]


class Tag(NamedTuple):
    """A tag of an FLV file. type: AUDIO, VIDEO or SCRIPT; timestamp_ms: 32 bits; at: its offset in the file."""

    type: int
    timestamp_ms: int
    data: bytes
    at: int

    def frame(self):
        """An audio or video tag's contents: a Frame, or None for what carries no media (end of sequence, commands).

        Raises ValueError for a codec that is not read here, or a tag that is cut off.
        """
        if self.type == FLV_AUDIO:
            return audio_frame(self)
        if self.type == FLV_VIDEO:
            return video_frame(self)
        return None

    def values(self):
        """A script tag's values: its name, such as "onMetaData", and what follows. Raises ValueError."""
        return amf.read(self.data)


class Frame(NamedTuple):
    """Media of a tag. codec: as in media.codec.NAMES; config: a configuration record; times: ms."""

    codec: str
    config: bool
    key: bool
    dts_ms: int
    pts_ms: int
    data: bytes


def audio_frame(tag):
    """Tag.frame of an audio tag."""
    data = tag.data
    if len(data) < 2 or data[0] >> 4 != K_AAC:
        raise ValueError(f"audio of FLV SoundFormat {data[0] >> 4 if data else '?'} is not read")
    return Frame(NAMES[CODEC_AAC], data[1] == 0, False, tag.timestamp_ms, tag.timestamp_ms, data[2:])


def video_frame(tag):
    """Tag.frame of a video tag."""
    data = tag.data
    if len(data) < 5:
        raise ValueError("FLV video tag is cut off")
    type = data[0] >> 4 & 7
    if type == 5:
        return None
    if data[0] & K_ENHANCED:
        kind = data[0] & 0xF
        if int.from_bytes(data[1:5], "big") != FOURCC_HVC1:
            raise ValueError(f"video of FourCC {data[1:5]!r} is not read")
        at, codec, offset = 5, CODEC_H265, 0
        if kind == K_CODED_FRAMES:
            if len(data) < 8:
                raise ValueError("FLV video tag is cut off")
            at, offset = 8, int.from_bytes(data[5:8], "big", signed=True)
        elif kind not in (K_SEQUENCE_START, K_CODED_FRAMES_X):
            return None
        config = kind == K_SEQUENCE_START
    else:
        if data[0] & 0xF != K_AVC:
            raise ValueError(f"video of FLV CodecID {data[0] & 0xF} is not read")
        if data[1] > 1:
            return None
        at, codec, config = 5, CODEC_H264, data[1] == 0
        offset = 0 if config else int.from_bytes(data[2:5], "big", signed=True)
    return Frame(NAMES[codec], config, type == 1 and not config, tag.timestamp_ms, tag.timestamp_ms + offset, data[at:])


class Reader:
    """An FLV file or live stream as it comes: feed() bytes in pieces of any size, get whole tags.

    After the file header: has_audio, has_video, as it says. Raises ValueError when the bytes are no FLV.
    """

    def __init__(self):
        self.has_audio = None
        self.has_video = None
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data):
        """The tags that `data` completes, as a list of Tag."""
        self._buffer += data
        tags = []
        used = 0
        if self.has_audio is None:
            if bytes(self._buffer[:3]) != b"FLV"[:len(self._buffer)]:
                raise ValueError("not FLV: the file header is missing")
            if len(self._buffer) < K_FLV_HEADER_BYTES:
                return tags
            used = int.from_bytes(self._buffer[5:9], "big") + 4
            if used != K_FLV_HEADER_BYTES:
                raise ValueError(f"an FLV header of {used - 4} bytes; 9 are expected")
            self.has_audio, self.has_video = bool(self._buffer[4] & 4), bool(self._buffer[4] & 1)
        while len(self._buffer) - used >= K_FLV_TAG_HEADER_BYTES:
            head = self._buffer[used:used + K_FLV_TAG_HEADER_BYTES]
            length = int.from_bytes(head[1:4], "big")
            if head[0] not in (FLV_AUDIO, FLV_VIDEO, FLV_SCRIPT):
                raise ValueError(f"an FLV tag of type {head[0]} at byte {self._at + used}")
            if len(self._buffer) - used < K_FLV_TAG_BYTES + length:
                break
            end = used + K_FLV_TAG_HEADER_BYTES + length
            if int.from_bytes(self._buffer[end:end + 4], "big") != K_FLV_TAG_HEADER_BYTES + length:
                raise ValueError(f"PreviousTagSize at byte {self._at + end} is not that of the tag before it")
            timestamp = head[7] << 24 | int.from_bytes(head[4:7], "big")
            tags.append(Tag(head[0], timestamp, bytes(self._buffer[used + K_FLV_TAG_HEADER_BYTES:end]), self._at + used))
            used = end + 4
        del self._buffer[:used]
        self._at += used
        return tags


def read(data):
    """All whole tags of an FLV file in memory, as a list of Tag. Raises ValueError when it is no FLV."""
    return Reader().feed(data)

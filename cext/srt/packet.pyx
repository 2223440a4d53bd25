"""SRT packets for Python: what tests, tools and fuzzers build and take apart (packet.pxd has the layout)."""

from libc.stdint cimport int64_t, uint8_t, uint32_t


def decode(const uint8_t[::1] data not None):
    """A datagram as a dict: `kind` "data" or "control" and the header's fields; `payload` is the rest.

    ValueError when it is shorter than a header.
    """
    cdef const uint8_t* p
    cdef uint32_t first, second
    if data.shape[0] < K_HEADER:
        raise ValueError(f"a datagram of {data.shape[0]} bytes; an SRT header has {K_HEADER}")
    p = &data[0]
    first = be32(p)
    second = be32(p + 4)
    common = {
        "timestamp": be32(p + 8),
        "destination": be32(p + 12),
        "payload": p[K_HEADER:data.shape[0]],
    }
    if first & K_CONTROL:
        return {"kind": "control", "type": first >> 16 & 0x7FFF, "subtype": first & 0xFFFF, "info": second, **common}
    return {
        "kind": "data",
        "sequence": first,
        "position": second >> 30,
        "in_order": bool(second >> 29 & 1),
        "key": second >> 27 & 3,
        "retransmitted": bool(second & K_DATA_RETRANSMITTED),
        "message": second & K_MESSAGE_MASK,
        **common,
    }


def encode_data(uint32_t sequence, uint32_t message, uint32_t timestamp, uint32_t destination, bytes payload not None,
                *, bint retransmitted=False, uint32_t position=3, bint in_order=False, uint32_t key=0):
    """A data packet (section 3.1): sequence 31 bits, message 26 bits, timestamp in µs."""
    cdef uint8_t head[K_HEADER]
    cdef uint32_t second = position << 30 | (<uint32_t>in_order) << 29 | key << 27 | (message & K_MESSAGE_MASK)
    if retransmitted:
        second |= K_DATA_RETRANSMITTED
    put_header(head, sequence & K_SEQUENCE_MASK, second, timestamp, destination)
    return head[:K_HEADER] + payload


def encode_control(uint32_t kind, uint32_t timestamp, uint32_t destination, bytes body=b"", *, uint32_t info=0,
                   uint32_t subtype=0):
    """A control packet (section 3.2) with `body` as its control information field."""
    cdef uint8_t head[K_HEADER]
    put_header(head, K_CONTROL | (kind & 0x7FFF) << 16 | (subtype & 0xFFFF), info, timestamp, destination)
    return head[:K_HEADER] + body


def sequence_at(uint32_t isn, int64_t index):
    """The sequence number of packet `index` after the initial one."""
    return sequence_of(isn, index)


def index_of(uint32_t isn, uint32_t sequence, int64_t near):
    """The index nearest to `near` that has this sequence number."""
    return index_near(isn, sequence, near)

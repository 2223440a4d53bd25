"""Key material messages: one table for decoding, encoding and damage."""

from __future__ import annotations

import contextlib

import pytest
from flux.cext.srt import key_material
from hypothesis import given
from hypothesis import strategies as st

SALT = bytes(range(0x40, 0x50))

# name: fields, bytes
MESSAGES = {
    "even, 128": (
        {"keys": 1, "mode": "ctr", "key_bytes": 16, "salt": SALT, "wrapped": b"w" * 24},
        "12202901 00000000 02000200 00000404" + SALT.hex() + "77" * 24,
    ),
    "odd, 192": (
        {"keys": 2, "mode": "ctr", "key_bytes": 24, "salt": SALT, "wrapped": b"w" * 32},
        "12202902 00000000 02000200 00000406" + SALT.hex() + "77" * 32,
    ),
    "both, 256": (
        {"keys": 3, "mode": "ctr", "key_bytes": 32, "salt": SALT, "wrapped": b"w" * 72},
        "12202903 00000000 02000200 00000408" + SALT.hex() + "77" * 72,
    ),
    "GCM": (
        {"keys": 1, "mode": "gcm", "key_bytes": 16, "salt": SALT, "wrapped": b"w" * 24},
        "12202901 00000000 04010200 00000404" + SALT.hex() + "77" * 24,
    ),
}

# name: where to write what into the first message, and what is said of it
DAMAGES = {
    "version 2": (0, "22", "version"),
    "another packet type": (0, "11", "version"),
    "another signature": (1, "2028", "version"),
    "no key": (3, "00", "no key"),
    "AES-ECB": (8, "01", "cipher"),
    "CTR that says it is authenticated": (9, "01", "cipher"),
    "GCM without authentication": (8, "0400", "cipher"),
    "encapsulation of MPEG-TS over UDP": (10, "01", "version"),
    "no salt": (14, "00", "sizes"),
    "a salt of 12 bytes": (14, "03", "sizes"),
    "no key length": (15, "00", "no key length"),
    "a key of 20 bytes": (15, "05", "sizes"),
    "a longer key than there are bytes": (15, "06", "sizes"),
    "two keys, but bytes for one": (3, "03", "sizes"),
}

# What may be there without harm: reserved bits, and the index of a key-encrypting key.
TOLERATED = {"reserved": (3, "fd"), "index": (4, "00000001"), "more reserved": (11, "ffffff")}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    fields, text = MESSAGES[name]
    data = bytes.fromhex(text)
    assert key_material.encode(**fields) == data
    assert key_material.decode(data) == fields


def damaged(at: int, text: str) -> bytes:
    data = bytearray.fromhex(MESSAGES["even, 128"][1])
    data[at : at + len(text) // 2] = bytes.fromhex(text)
    return bytes(data)


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_no_message_is_told(name: str) -> None:
    at, text, said = DAMAGES[name]
    with pytest.raises(ValueError, match=said):
        key_material.decode(damaged(at, text))


@pytest.mark.parametrize("name", TOLERATED)
def test_what_libsrt_does_not_look_at_is_not_looked_at(name: str) -> None:
    assert key_material.decode(damaged(*TOLERATED[name])) == MESSAGES["even, 128"][0]


@pytest.mark.parametrize("name", MESSAGES)
def test_no_other_length_is_taken(name: str) -> None:
    data = bytes.fromhex(MESSAGES[name][1])
    for length in range(len(data)):
        with pytest.raises(ValueError, match="no key material message"):
            key_material.decode(data[:length])
    with pytest.raises(ValueError, match="sizes"):
        key_material.decode(data + b"\0\0\0\0")


@given(data=st.binary(max_size=160))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        fields = key_material.decode(data)
        assert key_material.encode(**fields)[16:] == data[16:]


@given(name=st.sampled_from(sorted(MESSAGES)), bits=st.lists(st.integers(0), min_size=1, max_size=4))
def test_flipped_bits_are_taken_or_refused(name: str, bits: list[int]) -> None:
    data = bytearray.fromhex(MESSAGES[name][1])
    for bit in bits:
        data[bit // 8 % len(data)] ^= 1 << bit % 8
    with contextlib.suppress(ValueError):
        fields = key_material.decode(bytes(data))
        assert len(fields["wrapped"]) == fields["key_bytes"] * (2 if fields["keys"] == 3 else 1) + 8

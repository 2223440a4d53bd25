"""A connection's keys: exchange, states, refresh, and packets under them."""

from __future__ import annotations

import hashlib

import pytest
from flux.cext.srt import key_material, libcrypto, packet
from flux.cext.srt.crypto import Crypto
from hypothesis import given, settings
from hypothesis import strategies as st

PASSPHRASE = "correct horse battery"
NO_SECRET, BAD_SECRET, BAD_MODE = (state.to_bytes(4, "big") for state in (3, 4, 5))


def header(sequence: int, flags: int, *, timestamp: int = 5, retransmitted: bool = False) -> bytes:
    data = packet.encode_data(sequence, 1, timestamp, 77, b"", retransmitted=retransmitted, key=flags >> 27)
    return data[:16]


def pair(**fields: object) -> tuple[Crypto, Crypto]:
    """A caller and a listener after the handshake."""
    caller, listener = Crypto(PASSPHRASE, **fields), Crypto(PASSPHRASE, **fields)
    message = caller.start()
    assert listener.hear(message) == "secured"
    assert caller.confirm(message)
    return caller, listener


def carry(source: Crypto, target: Crypto, sequence: int, payload: bytes = b"p" * 1316) -> object:
    head = header(sequence, source.flags)
    return target.open(head, source.seal(head, payload))


def refresh(source: Crypto, target: Crypto, pkts: int) -> None:
    """Sends packets until a new key is announced, and announces it."""
    for _ in range(pkts):
        if source.sent():
            assert target.hear(source.message(), handshake=False) == "secured"
            assert source.confirm(source.message())
            return
    raise AssertionError("no key was announced")


@pytest.mark.parametrize("mode", ["ctr", "gcm"])
@pytest.mark.parametrize("key_bytes", [16, 24, 32])
def test_both_sides_have_the_key_after_the_handshake(key_bytes: int, mode: str) -> None:
    caller, listener = pair(pbkeylen=key_bytes, mode=mode)
    for crypto in (caller, listener):
        assert crypto.facts == {
            "send_km_state": "secured",
            "receive_km_state": "secured",
            "cipher": f"aes-{8 * key_bytes}-{mode}",
            "key_refreshes": 0,
            "peer_key_refreshes": 0,
        }
        assert crypto.flags == 1 << 27
    assert carry(caller, listener, 7) == carry(listener, caller, 7) == b"p" * 1316


@pytest.mark.parametrize("key_bytes", [16, 24, 32])
def test_the_listener_takes_length_and_mode_from_the_caller(key_bytes: int) -> None:
    caller = Crypto(PASSPHRASE, pbkeylen=key_bytes, mode="gcm")
    listener = Crypto(PASSPHRASE, pbkeylen=24)
    assert listener.hear(caller.start()) == "secured"
    assert listener.facts["cipher"] == f"aes-{8 * key_bytes}-gcm"


def test_the_caller_begins_with_ctr_and_128_bits() -> None:
    fields = key_material.decode(Crypto(PASSPHRASE).start())
    assert (fields["mode"], fields["key_bytes"], fields["keys"]) == ("ctr", 16, 1)


@pytest.mark.parametrize("key_bytes", [16, 24, 32])
def test_a_message_and_a_packet_are_what_the_draft_says(key_bytes: int) -> None:
    """Sections 6.2 and 6.1.2 by other means: Python's PBKDF2, and the counter block made here."""
    caller = Crypto(PASSPHRASE, pbkeylen=key_bytes)
    fields = key_material.decode(caller.start())
    salt = fields["salt"]
    kek = hashlib.pbkdf2_hmac("sha1", PASSPHRASE.encode(), salt[8:], 2048, key_bytes)
    key = libcrypto.unwrap(kek, fields["wrapped"])
    assert len(key) == key_bytes
    head = header(0x12345678, caller.flags)
    block = int.from_bytes(salt[:14] + b"\0\0", "big") ^ 0x12345678 << 16
    payload = bytes(range(256)) * 5
    assert caller.seal(head, payload) == libcrypto.Aes(key).ctr(block.to_bytes(16, "big"), payload)


def test_a_gcm_packet_is_what_libsrt_has() -> None:
    caller = Crypto(PASSPHRASE, mode="gcm")
    fields = key_material.decode(caller.start())
    salt = fields["salt"]
    kek = hashlib.pbkdf2_hmac("sha1", PASSPHRASE.encode(), salt[8:], 2048, 16)
    key = libcrypto.unwrap(kek, fields["wrapped"])
    head = header(0x12345678, caller.flags)
    iv = int.from_bytes(salt[:12], "big") ^ 0x12345678
    sealed = libcrypto.Aes(key, "gcm").seal(iv.to_bytes(12, "big"), head, b"payload")
    assert caller.seal(head, b"payload") == sealed
    assert len(sealed) == 7 + 16


STATES = {
    "another passphrase": ({}, {"passphrase": "another horse battery"}, "badsecret"),
    "CTR to GCM": ({"mode": "ctr"}, {"mode": "gcm"}, "badcryptomode"),
    "GCM to CTR": ({"mode": "gcm"}, {"mode": "ctr"}, "badcryptomode"),
}


@pytest.mark.parametrize("name", STATES)
def test_what_does_not_fit_is_told_as_libsrt_does(name: str) -> None:
    ours, theirs, state = STATES[name]
    caller = Crypto(PASSPHRASE, **ours)
    listener = Crypto(**{"passphrase": PASSPHRASE, **theirs})
    assert listener.hear(caller.start()) == state
    assert listener.facts["receive_km_state"] == listener.facts["send_km_state"] == state


@pytest.mark.parametrize(
    ("message", "state"),
    [
        (b"", "badsecret"),
        (b"\x12\x20\x29\x01" + bytes(12), "badsecret"),
        (b"\x12\x20\x29\x00" + bytes(11) + b"\x04" + bytes(40), "nosecret"),
        (b"\x12\x20\x29\x01" + bytes(4) + b"\x01\x00\x02" + bytes(4) + b"\x04" + bytes(40), "nosecret"),
    ],
)
def test_malformed_messages_give_the_states_of_libsrt(message: bytes, state: str) -> None:
    assert Crypto(PASSPHRASE).hear(message) == state


@pytest.mark.parametrize(
    ("answer", "send", "receive"),
    [
        (NO_SECRET, "nosecret", "unsecured"),
        (BAD_SECRET, "badsecret", "badsecret"),
        (BAD_MODE, "badcryptomode", "badcryptomode"),
        (b"\0\0\0\x09", "nosecret", "nosecret"),
        (bytes(64), "badsecret", "badsecret"),
        (b"", "badsecret", "badsecret"),
    ],
)
def test_the_caller_understands_a_refusal(answer: bytes, send: str, receive: str) -> None:
    caller = Crypto(PASSPHRASE)
    caller.start()
    assert not caller.confirm(answer)
    assert (caller.facts["send_km_state"], caller.facts["receive_km_state"]) == (send, receive)


def test_without_a_common_secret_nothing_leaves_in_the_clear() -> None:
    alone, listener = Crypto(PASSPHRASE, km_refresh_rate_pkts=10), Crypto(PASSPHRASE)
    assert alone.alone()
    head = header(1, alone.flags)
    assert alone.flags
    first = alone.seal(head, b"p" * 188)
    assert first != b"p" * 188
    assert listener.open(head, first) == "no_key"
    # It is nobody's, so it is changed without a word.
    assert not any(alone.sent() for _ in range(10))
    assert alone.message() == b""
    assert alone.seal(head, b"p" * 188) not in (first, b"p" * 188)


@pytest.mark.parametrize("mode", ["ctr", "gcm"])
def test_the_retransmitted_flag_is_not_part_of_what_is_encrypted(mode: str) -> None:
    caller, listener = pair(mode=mode)
    sealed = caller.seal(header(9, caller.flags), b"payload")
    assert listener.open(header(9, caller.flags, retransmitted=True), sealed) == b"payload"
    assert caller.seal(header(9, caller.flags), b"payload") == sealed


def test_gcm_notices_what_was_changed_on_the_way() -> None:
    caller, listener = pair(mode="gcm")
    head = header(9, caller.flags)
    sealed = caller.seal(head, b"payload")
    assert listener.open(header(10, caller.flags), sealed) == "damaged"
    assert listener.open(header(9, caller.flags, timestamp=6), sealed) == "damaged"
    assert listener.open(head, sealed[:-1] + bytes([sealed[-1] ^ 1])) == "damaged"
    assert listener.open(head, sealed[:15]) == "damaged"
    assert listener.open(head, sealed) == b"payload"


@pytest.mark.parametrize("bits", [0, 2, 3])
def test_a_packet_under_a_key_that_nobody_told_is_not_opened(bits: int) -> None:
    caller, listener = pair()
    sealed = caller.seal(header(9, caller.flags), b"payload")
    assert listener.open(header(9, bits << 27), sealed) == "no_key"


@pytest.mark.parametrize("mode", ["ctr", "gcm"])
def test_keys_alternate_and_overlap(mode: str) -> None:
    caller, listener = pair(mode=mode, km_refresh_rate_pkts=100, km_preannounce_pkts=20)
    sequence = 0
    for turn in range(4):
        flags = caller.flags
        assert flags == (2 if turn % 2 else 1) << 27
        late_head = header(sequence, flags)
        late = caller.seal(late_head, b"late")
        for count in range(100):
            assert carry(caller, listener, sequence) == b"p" * 1316
            sequence += 1
            announced = caller.sent()
            assert announced == (count == 79)
            if announced:
                message = caller.message()
                assert key_material.decode(message)["keys"] == 3
                assert listener.hear(message, handshake=False) == "secured"
                assert caller.confirm(message)
        assert caller.flags != flags
        # Packets that were under way when the key changed are still opened.
        assert listener.open(late_head, late) == b"late"
    assert caller.facts["key_refreshes"] == listener.facts["peer_key_refreshes"] == 4
    # The other direction is still where it was.
    assert listener.flags == 1 << 27
    assert carry(listener, caller, sequence) == b"p" * 1316


def test_the_next_key_waits_for_the_peer_to_have_it() -> None:
    caller, listener = pair(km_refresh_rate_pkts=100, km_preannounce_pkts=20)
    announced = [caller.sent() for _ in range(500)]
    assert announced.index(True) == 79
    assert announced.count(True) == 1
    assert caller.flags == 1 << 27
    # It is asked for again, later and later.
    due, times = 0, []
    for _ in range(7):
        due = caller.ask(due, 1000)
        times.append(due)
    assert times == [1000, 3000, 7000, 15000, 31000, 47000, 63000]
    assert listener.hear(caller.message(), handshake=False) == "secured"
    assert caller.confirm(caller.message())
    assert not caller.sent()
    assert caller.flags == 2 << 27
    assert carry(caller, listener, 1) == b"p" * 1316


def test_both_directions_refresh_by_themselves() -> None:
    caller, listener = pair(km_refresh_rate_pkts=10)
    for turn in range(60):
        for source, target in ((caller, listener), (listener, caller)):
            if source.sent():
                assert target.hear(source.message(), handshake=False) == "secured"
                assert source.confirm(source.message())
            assert carry(source, target, turn) == b"p" * 1316
    assert caller.facts["key_refreshes"] == listener.facts["key_refreshes"] == 6


def test_a_message_that_came_twice_changes_nothing() -> None:
    caller, listener = pair(km_refresh_rate_pkts=100, km_preannounce_pkts=20)
    refresh(caller, listener, 100)
    assert listener.hear(caller.message(), handshake=False) == "secured"
    assert caller.confirm(caller.message())
    assert carry(caller, listener, 3) == b"p" * 1316


def test_a_refresh_that_can_not_be_used_leaves_the_keys_there_are() -> None:
    caller, listener = pair()
    for now_us, message in enumerate(
        (
            Crypto("another horse battery").start(),
            Crypto(PASSPHRASE, mode="gcm").start(),
            Crypto(PASSPHRASE, pbkeylen=32).start(),
            Crypto(PASSPHRASE).start(),
            caller.message()[:-4],
            b"",
        )
    ):
        assert listener.hear(message, handshake=False, now_us=5_000_000 * now_us) != "secured"
        assert listener.facts["receive_km_state"] == "secured"
        assert carry(caller, listener, now_us) == b"p" * 1316
    assert not caller.confirm(BAD_SECRET)
    assert caller.facts["send_km_state"] == "secured"


def test_wrong_secrets_can_not_cost_a_key_derivation_all_the_time() -> None:
    """A peer without our secret that asks again and again is answered from what we know of it."""
    listener = Crypto(PASSPHRASE)
    assert listener.hear(Crypto("another horse battery").start(), now_us=1_000_000) == "badsecret"
    right = Crypto(PASSPHRASE).start()
    states = [
        listener.hear(right, handshake=False, now_us=1_000_000 + at_us) for at_us in (1, 999_999, 1_000_000)
    ]
    assert states == ["badsecret", "badsecret", "secured"]


def test_a_late_request_secures_one_direction() -> None:
    late, caller = Crypto(PASSPHRASE), Crypto(PASSPHRASE)
    assert late.alone()
    assert late.hear(caller.start(), handshake=False) == "secured"
    assert late.facts["receive_km_state"] == "secured"
    assert late.facts["send_km_state"] != "secured"
    assert carry(caller, late, 1) == b"p" * 1316


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"passphrase": "nine char"}, "a passphrase of 9 bytes; it has 10 to 80"),
        ({"passphrase": "x" * 81}, "a passphrase of 81 bytes"),
        ({"pbkeylen": 20}, "pbkeylen 20; it is 16, 24 or 32"),
        ({"mode": "ecb"}, "cryptomode 'ecb'; it is auto, ctr or gcm"),
        ({"km_refresh_rate_pkts": 1}, "kmrefreshrate 1; it is 2 to 1073741824 packets"),
        ({"km_refresh_rate_pkts": 1 << 31}, "kmrefreshrate 2147483648"),
        ({"km_refresh_rate_pkts": 100, "km_preannounce_pkts": 50}, "kmpreannounce 50; .* it is 49 at most"),
    ],
)
def test_what_a_user_says_wrong_is_told(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Crypto(**{"passphrase": PASSPHRASE, **fields})


@settings(deadline=None)
@given(
    payloads=st.lists(st.binary(min_size=1, max_size=1440), min_size=1, max_size=20),
    sequence=st.integers(0, 0x7FFFFFFF),
    mode=st.sampled_from(["ctr", "gcm"]),
    key_bytes=st.sampled_from([16, 24, 32]),
)
def test_what_is_sealed_is_opened(payloads: list[bytes], sequence: int, mode: str, key_bytes: int) -> None:
    caller, listener = pair(mode=mode, pbkeylen=key_bytes)
    for offset, payload in enumerate(payloads):
        assert carry(caller, listener, (sequence + offset) & 0x7FFFFFFF, payload) == payload


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_no_message_upsets_a_secured_connection(data: st.DataObject) -> None:
    caller, listener = pair()
    for turn in range(20):
        message = bytearray(caller.message())
        for bit in data.draw(st.lists(st.integers(0, len(message) * 8 - 1), min_size=1, max_size=3)):
            message[bit // 8] ^= 1 << bit % 8
        listener.hear(bytes(message), handshake=False, now_us=2_000_000 * turn)
        assert listener.facts["receive_km_state"] == "secured"
        assert carry(caller, listener, turn) == b"p" * 1316

"""Encrypted connections: what is agreed, what is refused with which code, what becomes of packets."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from flux.cext.ring import Ring
from flux.cext.srt import handshake, packet
from flux.cext.srt.crypto import Crypto
from flux.cext.srt.endpoint import Endpoint
from flux.cext.udp.srt_client import CollectingSink
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.arenas import small_arena
from tests.cext.srt.peer import HANDSHAKE, NAK, START_US, Peer, assert_adds_up, count, counted

PASSPHRASE = "correct horse battery"
OTHER = "another horse battery"
USER, KMREQ, KMRSP = 0x7FFF, 3, 4
NO_KEY_LENGTH = b"\x12\x20\x29\x01" + bytes(16)
OTHER_CIPHER = b"\x12\x20\x29\x01" + bytes(4) + b"\x01\x00\x02\x00" + bytes(2) + b"\x04\x04" + bytes(40)


def key_words(peer_says: bytes) -> dict[str, Any]:
    return {"extension": 3, "encryption": 2, "key_material": peer_says}


class SecretPeer(Peer):
    """A caller with a passphrase: a table of what it says is made of its `crypto`."""

    def __init__(self, endpoint: Endpoint, passphrase: str = PASSPHRASE, **fields: Any) -> None:
        super().__init__(endpoint)
        self.crypto = Crypto(passphrase, **fields)
        self.kmreq = self.crypto.start()

    def sealed(self, offset: int, payload: bytes, **fields: Any) -> None:
        """Data packet `offset`, encrypted."""
        key = self.crypto.flags >> 27
        sequence = packet.sequence_at(self.isn, offset)
        whole = packet.encode_data(sequence, offset + 1, self.timestamp(), self.id, b"", key=key)
        self.data(offset, self.crypto.seal(whole, payload), key=key, **fields)

    def opened(self) -> list[bytes]:
        """Payloads of the data packets that came since the last call."""
        payloads = []
        for said in self.hear("data"):
            head = packet.encode_data(
                said["sequence"],
                said["message"],
                said["timestamp"],
                said["destination"],
                b"",
                key=said["key"],
                retransmitted=said["retransmitted"],
            )
            payloads.append(self.crypto.open(head, said["payload"]))
        return payloads

    def key_message(self, subtype: int, message: bytes) -> None:
        self.say(packet.encode_control(USER, self.timestamp(), self.id, message, subtype=subtype))


def publisher(**fields: Any) -> tuple[SecretPeer, CollectingSink]:
    """An open connection of a caller with the right passphrase, and what it sends."""
    endpoint = Endpoint(passphrase=PASSPHRASE, latency_ms=100)
    peer = SecretPeer(endpoint, **fields)
    answer = peer.open(**key_words(peer.kmreq))
    assert answer["key_material"] == peer.kmreq
    assert peer.crypto.confirm(answer["key_material"])
    sink = CollectingSink()
    endpoint.attach_sink(peer.id, sink)
    return peer, sink


@pytest.mark.parametrize("key_bytes", [16, 24, 32])
def test_a_key_is_agreed(key_bytes: int) -> None:
    endpoint = Endpoint(passphrase=PASSPHRASE)
    peer = SecretPeer(endpoint, pbkeylen=key_bytes)
    event = peer.request(**key_words(peer.kmreq))
    assert event[4]["encrypted"] is True
    assert endpoint.accept(peer.id, peer.now_us)
    answer = handshake.decode(peer.hear(HANDSHAKE)[0]["payload"])
    assert answer["seen"] == [2, 4]
    assert (answer["extension"], answer["encryption"]) == (3, key_bytes // 8)
    assert answer["key_material"] == peer.kmreq
    stats = endpoint.stats(peer.id)
    assert (stats["send_km_state"], stats["receive_km_state"]) == ("secured", "secured")
    assert stats["cipher"] == f"aes-{8 * key_bytes}-ctr"
    # The answer was lost: the same comes again.
    assert peer.conclude(**key_words(peer.kmreq)) == [answer]


@pytest.mark.parametrize(("pbkeylen", "advertised"), [(0, 0), (16, 2), (24, 3), (32, 4)])
def test_the_induction_tells_the_key_length_that_is_wanted(pbkeylen: int, advertised: int) -> None:
    peer = Peer(Endpoint(passphrase=PASSPHRASE, pbkeylen=pbkeylen))
    assert peer.induct()["encryption"] == advertised


# the endpoint's settings, the caller's passphrase and settings, what else it says,
# code, counter
REJECTIONS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any], int, str]] = {
    "only the caller has a secret": ({}, {}, {}, 1011, "rejected_encrypted"),
    "only we have one": ({"passphrase": PASSPHRASE}, None, {}, 1011, "rejected_unencrypted"),
    "another": ({"passphrase": OTHER}, {}, {}, 1010, "rejected_secret"),
    "we want GCM": ({"passphrase": PASSPHRASE, "crypto_mode": "gcm"}, {}, {}, 1017, "rejected_crypto"),
    "the caller wants GCM": (
        {"passphrase": PASSPHRASE, "crypto_mode": "ctr"},
        {"mode": "gcm"},
        {},
        1017,
        "rejected_crypto",
    ),
    "GCM of libsrt 1.5.3": (
        {"passphrase": PASSPHRASE},
        {"mode": "gcm"},
        {"srt_version": 0x010503},
        1017,
        "rejected_crypto",
    ),
    "GCM of libsrt 1.5.3, enforced or not": (
        {"passphrase": PASSPHRASE, "enforced_encryption": False},
        {"mode": "gcm"},
        {"srt_version": 0x010503},
        1017,
        "rejected_crypto",
    ),
    "CTR and GCM, enforced or not": (
        {"passphrase": PASSPHRASE, "crypto_mode": "gcm", "enforced_encryption": False},
        {},
        {},
        1017,
        "rejected_crypto",
    ),
    "no key length": (
        {"passphrase": PASSPHRASE},
        {},
        {"key_material": NO_KEY_LENGTH},
        1010,
        "rejected_secret",
    ),
    "another cipher": (
        {"passphrase": PASSPHRASE},
        {},
        {"key_material": OTHER_CIPHER},
        1011,
        "rejected_crypto",
    ),
}


@pytest.mark.parametrize("name", REJECTIONS)
def test_what_does_not_fit_is_rejected_with_the_code_of_libsrt(name: str) -> None:
    ours, theirs, says, code, counter = REJECTIONS[name]
    endpoint = Endpoint(**ours)
    peer = Peer(endpoint) if theirs is None else SecretPeer(endpoint, **theirs)
    peer.request(**({} if theirs is None else key_words(peer.kmreq)) | says)
    assert not endpoint.accept(peer.id, peer.now_us)
    answers = [handshake.decode(p["payload"]) for p in peer.hear(HANDSHAKE)]
    assert [answer["kind"] for answer in answers] == [code]
    assert count(endpoint, counter) == 1
    assert endpoint.next_event() is None
    assert endpoint.memory["connections"] == endpoint.handshakes == 0
    assert_adds_up(endpoint)


def test_a_longer_message_than_there_is_is_none() -> None:
    endpoint = Endpoint(passphrase=PASSPHRASE)
    peer = SecretPeer(endpoint)
    peer.induct()
    message = peer.kmreq + bytes(400)
    extension = (3 << 16 | len(message) // 4).to_bytes(4, "big") + message
    assert peer.conclude(extension, extension=3) == []
    peer.id = endpoint.next_event()[1]
    assert endpoint.secure(peer.id, peer.now_us) == 1011


# the endpoint's settings, whether the caller has a secret, the KMRSP, our states of sending and receiving
TOLERATED: dict[str, tuple[dict[str, Any], bool, str, str, str]] = {
    "only the caller has a secret": ({}, True, "00000003", "unsecured", "unsecured"),
    "only we have one": ({"passphrase": PASSPHRASE}, False, "00000000", "nosecret", "unsecured"),
    "another": ({"passphrase": OTHER}, True, "00000004", "badsecret", "badsecret"),
}


@pytest.mark.parametrize("name", TOLERATED)
def test_without_enforcement_the_connection_is_one_sided(name: str) -> None:
    ours, secret, answered, send, receive = TOLERATED[name]
    endpoint = Endpoint(enforced_encryption=False, latency_ms=20, **ours)
    peer = SecretPeer(endpoint)
    answer = peer.open(**(key_words(peer.kmreq) if secret else {}))
    assert answer["seen"] == [2, 4]
    assert answer["key_material"].hex() == answered
    stats = endpoint.stats(peer.id)
    assert (stats["send_km_state"], stats["receive_km_state"]) == (send, receive)
    sink = CollectingSink()
    endpoint.attach_sink(peer.id, sink)
    # What is encrypted can't be read, but is not asked for again either.
    peer.sealed(0, b"e" * 188)
    peer.data(1, b"c" * 188)
    peer.pass_time(50_000)
    assert sink.take() == b"c" * 188
    assert peer.hear(NAK) == []
    assert count(endpoint, "refused_encrypted") == endpoint.stats(peer.id)["undecrypted_pkts"] == 1
    # And what we send is not in the clear if we have a secret.
    assert endpoint.send(peer.id, b"s" * 188, peer.now_us)
    (data,) = peer.hear("data")
    assert (data["payload"] == b"s" * 188) == (data["key"] == 0) == (not ours)
    assert_adds_up(endpoint)


def test_streams_may_have_passphrases_of_their_own() -> None:
    endpoint = Endpoint(passphrase=OTHER)
    peer = SecretPeer(endpoint)
    peer.request(**key_words(peer.kmreq))
    assert endpoint.secure(peer.id, peer.now_us, PASSPHRASE) == 0
    assert endpoint.accept(peer.id, peer.now_us)
    assert endpoint.stats(peer.id)["receive_km_state"] == "secured"
    open_stream = Peer(endpoint, 4001)
    open_stream.request()
    assert endpoint.accept(open_stream.id, peer.now_us, "")
    assert endpoint.stats(open_stream.id)["receive_km_state"] == "unsecured"
    refused = Peer(endpoint, 4002)
    refused.request()
    assert endpoint.secure(refused.id, peer.now_us) == 1011
    assert endpoint.secure(refused.id, peer.now_us) == 0
    assert not endpoint.accept(refused.id, peer.now_us)


def test_a_passphrase_that_can_not_be_one_leaves_the_decision_open() -> None:
    endpoint = Endpoint()
    peer = SecretPeer(endpoint)
    peer.request(**key_words(peer.kmreq))
    with pytest.raises(ValueError, match="10 to 80"):
        endpoint.secure(peer.id, peer.now_us, "short")
    assert endpoint.accept(peer.id, peer.now_us, PASSPHRASE)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"passphrase": "short"}, "a passphrase of 5 bytes"),
        ({"pbkeylen": 15}, "pbkeylen 15"),
        ({"crypto_mode": "cbc"}, "cryptomode"),
        ({"km_refresh_rate_pkts": 0}, "kmrefreshrate 0"),
        ({"km_refresh_rate_pkts": 10, "km_preannounce_pkts": 5}, "kmpreannounce 5"),
        ({"max_key_exchanges": 0}, "one key exchange a second"),
    ],
)
def test_settings_that_can_not_be_are_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Endpoint(**fields)


@pytest.mark.parametrize("mode", ["ctr", "gcm"])
def test_data_is_decrypted(mode: str) -> None:
    peer, sink = publisher(mode=mode)
    payloads = [bytes([n]) * 188 * (n % 7 + 1) for n in range(20)]
    for n, payload in enumerate(payloads):
        peer.sealed(n, payload, retransmitted=n % 3 == 0)
    peer.pass_time(150_000)
    assert sink.take() == b"".join(payloads)
    assert peer.endpoint.stats(peer.id)["received_bytes"] == sum(map(len, payloads))
    assert_adds_up(peer.endpoint)


def test_what_is_in_the_clear_on_an_encrypted_connection_is_asked_for_again() -> None:
    """Somebody else may have sent it."""
    peer, sink = publisher()
    peer.sealed(0, b"0" * 188)
    peer.data(1, b"x" * 188)
    peer.sealed(2, b"2" * 188)
    peer.pass_time(30_000)
    assert len(peer.hear(NAK)) >= 1
    peer.sealed(1, b"1" * 188, retransmitted=True)
    peer.pass_time(150_000)
    assert sink.take() == b"0" * 188 + b"1" * 188 + b"2" * 188
    assert count(peer.endpoint, "refused_unencrypted") == 1
    assert_adds_up(peer.endpoint)


def test_what_was_tampered_with_is_asked_for_again() -> None:
    peer, sink = publisher(mode="gcm")
    peer.sealed(0, b"0" * 188)
    peer.data(1, b"x" * 204, key=1)
    peer.sealed(2, b"2" * 188)
    peer.pass_time(30_000)
    assert len(peer.hear(NAK)) >= 1
    peer.sealed(1, b"1" * 188)
    peer.data(3, b"", key=1)
    peer.data(3, b"x" * 7, key=1)
    peer.data(3, b"x" * 204, key=2)
    peer.pass_time(150_000)
    assert sink.take() == b"0" * 188 + b"1" * 188 + b"2" * 188
    assert count(peer.endpoint, "refused_damaged") == 2
    assert count(peer.endpoint, "refused_encrypted") == 1
    assert_adds_up(peer.endpoint)


def test_data_is_encrypted_and_sent_again_as_it_was() -> None:
    peer, _ = publisher()
    endpoint = peer.endpoint
    payloads = [bytes([n]) * 188 for n in range(5)]
    for payload in payloads:
        assert endpoint.send(peer.id, payload, peer.now_us)
    first = peer.hear("data")
    assert [p["key"] for p in first] == [1] * 5
    peer.control(NAK, first[2]["sequence"].to_bytes(4, "big"))
    peer.pass_time(50_000)
    again = next(p for p in peer.hear("data") if p["sequence"] == first[2]["sequence"])
    assert again["retransmitted"]
    assert again["payload"] == first[2]["payload"] != payloads[2]
    for payload in payloads:
        endpoint.send(peer.id, payload, peer.now_us)
    assert peer.opened() == payloads
    assert endpoint.stats(peer.id)["sent_bytes"] == 10 * 188


def test_gcm_leaves_room_for_its_tag() -> None:
    peer, _ = publisher(mode="gcm")
    endpoint = peer.endpoint
    with pytest.raises(ValueError, match="takes 1 to 1440"):
        endpoint.send(peer.id, b"x" * 1441, peer.now_us)
    assert endpoint.send(peer.id, b"x" * 1440, peer.now_us)
    assert peer.hear("data")[0]["bytes"] == 1472


def test_a_peer_changes_its_key() -> None:
    peer, sink = publisher(km_refresh_rate_pkts=10)
    sent = b""
    for n in range(45):
        payload = bytes([n]) * 188
        peer.sealed(n, payload)
        sent += payload
        if peer.crypto.sent():
            peer.key_message(KMREQ, peer.crypto.message())
            (answer,) = [p for p in peer.hear(USER) if p["subtype"] == KMRSP]
            assert answer["payload"] == peer.crypto.message()
            assert peer.crypto.confirm(answer["payload"])
    assert peer.crypto.facts["key_refreshes"] == 4
    peer.pass_time(150_000)
    assert sink.take() == sent
    assert_adds_up(peer.endpoint)


def test_key_material_that_can_not_be_used_is_counted_and_not_answered() -> None:
    peer, sink = publisher()
    for message in (b"", b"\0\0\0\4", Crypto(OTHER).start(), peer.kmreq[:-4]):
        peer.key_message(KMREQ, message)
        peer.key_message(KMRSP, message)
    assert peer.hear(USER) == []
    assert count(peer.endpoint, "refused_key_material") == 8
    peer.say(packet.encode_control(USER, 0, peer.id, b"", subtype=9))
    assert count(peer.endpoint, "refused_control_type") == 1
    peer.sealed(0, b"0" * 188)
    peer.pass_time(150_000)
    assert sink.take() == b"0" * 188
    assert_adds_up(peer.endpoint)


def test_key_material_on_a_connection_without_is_counted() -> None:
    endpoint = Endpoint()
    peer = Peer(endpoint)
    peer.open()
    peer.say(packet.encode_control(USER, 0, peer.id, Crypto(OTHER).start(), subtype=KMREQ))
    assert count(endpoint, "refused_key_material") == 1
    assert peer.hear(USER) == []


def test_a_late_request_is_answered_when_encryption_is_not_enforced() -> None:
    endpoint = Endpoint(passphrase=PASSPHRASE, enforced_encryption=False, latency_ms=20)
    peer = SecretPeer(endpoint)
    peer.open()
    peer.key_message(KMREQ, peer.kmreq)
    (answer,) = peer.hear(USER)
    assert (answer["subtype"], answer["payload"]) == (KMRSP, peer.kmreq)
    sink = CollectingSink()
    endpoint.attach_sink(peer.id, sink)
    peer.sealed(0, b"0" * 188)
    peer.pass_time(50_000)
    assert sink.take() == b"0" * 188


def test_a_key_is_announced_until_it_is_confirmed() -> None:
    endpoint = Endpoint(passphrase=PASSPHRASE, km_refresh_rate_pkts=20, km_preannounce_pkts=5)
    peer = SecretPeer(endpoint)
    peer.open(**key_words(peer.kmreq))
    for _ in range(30):
        endpoint.send(peer.id, b"x" * 188, peer.now_us)
    said = peer.hear()
    assert {p["key"] for p in said if p["kind"] == "data"} == {1}
    (kmreq,) = [p for p in said if p.get("type") == USER]
    assert kmreq["subtype"] == KMREQ
    at_us = []
    for _ in range(200):
        peer.ack(30)
        peer.pass_time(10_000)
        at_us += [p["at_us"] - START_US for p in peer.hear(USER)]
    gaps = [after - before for before, after in itertools.pairwise(at_us)]
    assert len(at_us) >= 4
    assert gaps == sorted(gaps)
    assert peer.crypto.hear(kmreq["payload"], handshake=False) == "secured"
    peer.key_message(KMRSP, kmreq["payload"])
    for _ in range(2):
        endpoint.send(peer.id, b"y" * 188, peer.now_us)
        assert peer.opened() == [b"y" * 188]
    assert count(endpoint, "keys_changed") == endpoint.stats(peer.id)["key_refreshes"] == 1
    assert count(endpoint, "keys_announced") == 1 + len(at_us)
    peer.pass_time(3_000_000)
    assert peer.hear(USER) == []


def test_encrypted_handshakes_are_bounded_by_time() -> None:
    """Each costs a key derivation; the others are let in all the while."""
    endpoint = Endpoint(passphrase=PASSPHRASE, max_key_exchanges=10, max_handshakes=100)

    def call(port: int, now_us: int, encrypts: bool) -> bool:
        peer = Peer(endpoint, port, now_us=now_us)
        peer.induct()
        assert peer.conclude(**(key_words(bytes(64)) if encrypts else {})) == []
        return endpoint.next_event() is not None

    taken = [call(4000 + n, START_US, True) for n in range(30)]
    assert taken == [True] * 11 + [False] * 19
    assert call(5000, START_US, False)
    assert [call(6000 + n, START_US + 500_000, True) for n in range(10)] == [True] * 5 + [False] * 5
    assert count(endpoint, "key_exchanges_put_off") == 24
    assert_adds_up(endpoint)


class Listener:
    """A listener made by hand that answers an endpoint's call with what a test tells it to."""

    def __init__(self, endpoint: Endpoint, **fields: Any) -> None:
        self.endpoint = endpoint
        self.address = ("192.0.2.9", 8890)
        self.id = endpoint.connect(self.address, "publish:live/x", START_US, **fields)

    def hear(self) -> dict[str, Any]:
        (sent,) = self.endpoint.poll_transmit(START_US)
        return {**packet.decode(sent[1]), **handshake.decode(sent[1][16:])}

    def say(self, **fields: Any) -> None:
        body = handshake.encode(socket_id=99, **fields)
        self.endpoint.receive(self.address, packet.encode_control(HANDSHAKE, 5, self.id, body), START_US)

    def conclusion(self, encryption: int = 0) -> dict[str, Any]:
        """Goes on to the endpoint's conclusion."""
        assert self.hear()["kind"] == 1
        self.say(kind=1, extension=0x4A17, encryption=encryption, cookie=7)
        return self.hear()

    def answer(self, conclusion: dict[str, Any], **fields: Any) -> tuple[Any, ...]:
        self.say(isn=conclusion["isn"], extension=3, hs_extension=2, **fields)
        return tuple(self.endpoint.next_event())


@pytest.mark.parametrize(
    ("ours", "advertised", "key_bytes"),
    [(0, 0, 16), (0, 3, 24), (0, 4, 32), (0, 7, 16), (16, 4, 16), (32, 2, 32)],
)
def test_the_caller_takes_the_key_length_that_the_listener_wants(
    ours: int, advertised: int, key_bytes: int
) -> None:
    listener = Listener(Endpoint(), passphrase=PASSPHRASE, pbkeylen=ours)
    conclusion = listener.conclusion(advertised)
    assert (conclusion["extension"], conclusion["encryption"]) == (7, key_bytes // 8)
    assert conclusion["seen"] == [1, 3, 5]
    theirs = Crypto(PASSPHRASE)
    assert theirs.hear(conclusion["key_material"]) == "secured"
    event = listener.answer(conclusion, key_material=conclusion["key_material"])
    assert event[:2] == ("connected", listener.id)
    assert event[2]["cipher"] == f"aes-{8 * key_bytes}-ctr"
    assert listener.endpoint.send(listener.id, b"x" * 188, START_US)
    sent = listener.endpoint.poll_transmit(START_US)[-1][1]
    assert theirs.open(sent[:16], sent[16:]) == b"x" * 188


TOLERANT = {"passphrase": PASSPHRASE, "enforced_encryption": False}

# the caller's settings, the KMRSP (None: none; "": its own message), the end
ANSWERS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no secret": ({"passphrase": PASSPHRASE}, "00000003", "rejected:1011"),
    "another secret": ({"passphrase": PASSPHRASE}, "00000004", "rejected:1010"),
    "another mode": ({"passphrase": PASSPHRASE}, "00000005", "rejected:1017"),
    "another mode, not enforced": (TOLERANT, "00000005", "rejected:1017"),
    "nothing": ({"passphrase": PASSPHRASE}, None, "rejected:1011"),
    "somebody else's message": ({"passphrase": PASSPHRASE}, "00" * 64, "rejected:1010"),
    "it has a secret, we have none": ({}, "00000000", "rejected:1011"),
    "GCM of libsrt 1.5.3": ({"passphrase": PASSPHRASE, "crypto_mode": "gcm"}, "", "rejected:1017"),
    "no secret, not enforced": (TOLERANT, "00000003", ""),
    "another secret, not enforced": (
        {"passphrase": PASSPHRASE, "enforced_encryption": False},
        "00000004",
        "",
    ),
    "nothing, not enforced": (TOLERANT, None, ""),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_caller_makes_of_an_answer(name: str) -> None:
    fields, kmrsp, end = ANSWERS[name]
    endpoint = Endpoint()
    listener = Listener(endpoint, **fields)
    conclusion = listener.conclusion()
    says = {} if kmrsp is None else {"key_material": bytes.fromhex(kmrsp) or conclusion["key_material"]}
    event = listener.answer(conclusion, srt_version=0x010503, **says)
    if end:
        assert event == ("closed", listener.id, end)
        # The listener, which takes it for open, is told.
        (said,) = endpoint.poll_transmit(START_US)
        assert packet.decode(said[1])["type"] == 5
        assert endpoint.memory["connections"] == 0
        return
    assert event[0] == "connected"
    assert endpoint.send(listener.id, b"x" * 188, START_US)
    sent = packet.decode(endpoint.poll_transmit(START_US)[-1][1])
    assert sent["key"] == 1
    assert sent["payload"] != b"x" * 188


def test_a_listener_without_a_secret_is_let_be_by_a_caller_without_one() -> None:
    endpoint = Endpoint(enforced_encryption=False)
    listener = Listener(endpoint)
    event = listener.answer(listener.conclusion(), key_material=bytes(4))
    assert event[0] == "connected"


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_key_material_in_a_handshake_is_decided(data: st.DataObject) -> None:
    endpoint = Endpoint(passphrase=PASSPHRASE, enforced_encryption=data.draw(st.booleans()))
    peer = SecretPeer(endpoint)
    message = bytearray(peer.kmreq)
    for bit in data.draw(st.lists(st.integers(0, len(message) * 8 - 1), max_size=3)):
        message[bit // 8] ^= 1 << bit % 8
    cut = data.draw(st.integers(0, len(message) // 4)) * 4
    message = data.draw(st.sampled_from([message, message[:cut]]))
    peer.request(**key_words(bytes(message)) | ({} if message else {"extension": 1}))
    code = endpoint.secure(peer.id, peer.now_us)
    assert code in (0, 1010, 1011, 1017)
    assert endpoint.accept(peer.id, peer.now_us) == (code == 0)
    with contextlib.suppress(KeyError):
        endpoint.attach_sink(peer.id, CollectingSink())
        peer.sealed(0, b"x" * 188)
        peer.pass_time(200_000)
    assert_adds_up(endpoint)


def test_secrets_are_in_nothing_that_is_told() -> None:
    peer, _ = publisher()
    told = repr((peer.endpoint.stats(peer.id), counted(peer.endpoint), peer.endpoint.memory))
    assert PASSPHRASE not in told


def test_a_ring_is_sent_encrypted_and_sent_again_from_where_it_lies() -> None:
    arena = small_arena()
    slot, _ = arena.claim("live/cam1", 1)
    arena.go_live(slot, 1)
    ring = Ring(arena, slot, 1)
    endpoint = Endpoint(passphrase=PASSPHRASE, km_refresh_rate_pkts=10, km_preannounce_pkts=4)
    peer = SecretPeer(endpoint)
    peer.request(**key_words(peer.kmreq))
    endpoint.attach_source(peer.id, Ring(arena, slot, 1))
    assert endpoint.accept(peer.id, peer.now_us)
    assert peer.crypto.confirm(handshake.decode(peer.hear(HANDSHAKE)[0]["payload"])["key_material"])
    payloads = [bytes([n]) * 1316 for n in range(24)]
    data: list[dict[str, Any]] = []
    got: list[bytes] = []
    for n, payload in enumerate(payloads):
        ring.append(payload, flags=int(n == 0))
        peer.pass_time(20_000)
        said = peer.hear()
        for message in (p for p in said if p.get("type") == USER):
            assert peer.crypto.hear(message["payload"], handshake=False) == "secured"
            peer.key_message(KMRSP, message["payload"])
        peer.said = [p for p in said if p["kind"] == "data" and not p["retransmitted"]]
        data += peer.said
        got += peer.opened()
    assert got == payloads
    assert [p["key"] for p in data] == [1] * 10 + [2] * 10 + [1] * 4
    # What was sent with a key of before is sent again with the one in use.
    peer.control(NAK, data[15]["sequence"].to_bytes(4, "big"))
    peer.pass_time(1)
    peer.said = [p for p in peer.hear("data") if p["sequence"] == data[15]["sequence"]]
    assert [(p["retransmitted"], p["key"]) for p in peer.said] == [(True, 1)]
    assert peer.opened() == [payloads[15]]
    # The ring goes round: what is overwritten is not sent, whatever is asked for.
    for _ in range(3):
        ring.append(b"x" * (ring.size // 2))
    peer.control(NAK, data[15]["sequence"].to_bytes(4, "big"))
    peer.pass_time(1)
    assert all(p["sequence"] != data[15]["sequence"] for p in peer.hear("data"))
    assert count(endpoint, "send_lapped_pkts") == 1
    arena.close()

"""An endpoint with a passphrase under fire: key material cut, flipped, replayed and made up."""

from __future__ import annotations

from typing import Any

import pytest
from flux.cext.srt import handshake, packet
from flux.cext.srt.crypto import Crypto
from flux.cext.srt.endpoint import Endpoint

from tests.cext.srt.peer import Peer, assert_adds_up, count
from tests.cext.srt.test_fuzz import SETTINGS, Attacker

PASSPHRASE = "correct horse battery"
REACHED = [
    "accepted",
    "data_pkts",
    "key_exchanges_put_off",
    "keys_announced",
    "refused_damaged",
    "refused_encrypted",
    "refused_key_material",
    "refused_unencrypted",
    "rejected_crypto",
    "rejected_secret",
    "rejected_unencrypted",
]


class SecretAttacker(Attacker):
    """Knows the passphrase too, and others besides."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.endpoint = Endpoint(
            secret=bytes(16),
            passphrase=PASSPHRASE,
            enforced_encryption=bool(seed % 2),
            km_refresh_rate_pkts=20,
            max_key_exchanges=5,
            **SETTINGS,
        )
        self.callers = [
            Crypto(PASSPHRASE),
            Crypto(PASSPHRASE, pbkeylen=32),
            Crypto(PASSPHRASE, mode="gcm"),
            Crypto(PASSPHRASE, mode="gcm", pbkeylen=24),
            Crypto("another horse battery"),
        ]
        self.messages = [caller.start() for caller in self.callers]
        # Newer keys under the same salt.
        for caller in self.callers:
            while not caller.sent(1 << 20):
                pass
            self.messages.append(caller.message())
        self.kinds = [*self.kinds, self.sealed, self.sealed, self.key_message, self.greeting_with_key]

    def message(self) -> bytes:
        r = self.rng
        message = r.choice([*self.messages, (4).to_bytes(4, "big"), b"", r.randbytes(64)])
        return self.spoil(message) if r.random() < 0.3 else message

    def sealed(self, peer: Peer) -> bytes:
        r = self.rng
        crypto = r.choice(self.callers)
        sequence = packet.sequence_at(peer.isn, r.randrange(-10, 60))
        key = r.choice([crypto.flags >> 27, crypto.flags >> 27, r.randrange(4)])
        head = packet.encode_data(sequence, 1, peer.timestamp(), peer.id, b"", key=key)
        return head + crypto.seal(head, bytes(r.choice([1, 188, 1316])))

    def key_message(self, peer: Peer) -> bytes:
        subtype = self.rng.choice([3, 3, 4, 4, self.word() & 0xFFFF])
        return packet.encode_control(0x7FFF, self.word(), peer.id, self.message(), subtype=subtype)

    def greeting_with_key(self, peer: Peer) -> bytes:
        body = handshake.encode(
            encryption=self.rng.randrange(6),
            extension=3,
            isn=peer.isn,
            socket_id=peer.socket_id,
            cookie=peer.cookie,
            hs_extension=1,
            srt_version=self.rng.choice([0x010504, 0x010503]),
        )
        message = self.message()
        words = self.rng.choice([len(message) // 4, len(message) // 4, self.word() & 0xFFFF])
        body += (3 << 16 | words).to_bytes(4, "big") + message
        return packet.encode_control(0, 0, 0, body)

    def behave(self, peer: Peer) -> None:
        self.endpoint.poll_transmit(self.now_us)
        peer.now_us = peer.start_us = self.now_us
        peer.isn = self.rng.choice([1000, 0x7FFFFFFF, 0])
        peer.socket_id = self.rng.randrange(1, 1 << 30)
        peer.induct()
        key: dict[str, Any] = {"extension": 3, "key_material": self.rng.choice(self.messages)}
        peer.conclude(**(key if self.rng.random() < 0.9 else {}))


def fire(seed: int, datagrams: int) -> set[str]:
    attacker = SecretAttacker(seed)
    attacker.run(datagrams)
    attacker.assert_bounded()
    endpoint = attacker.endpoint
    assert_adds_up(endpoint)
    reached = {name for name in REACHED if count(endpoint, name)}
    attacker.settle()
    assert endpoint.memory["connections"] == endpoint.connections == endpoint.handshakes == 0
    assert endpoint.memory["chunks"] == 0
    assert endpoint.next_timeout() is None
    attacker.arena.close()
    return reached


def test_key_material_of_every_kind_does_no_harm() -> None:
    reached = set.union(*(fire(seed, 20_000) for seed in range(4)))
    assert reached == set(REACHED)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(100, 104))
def test_key_material_of_every_kind_does_no_harm_in_the_long_run(seed: int) -> None:
    fire(seed, 500_000)

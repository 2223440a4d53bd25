"""Encrypted connections over bad networks: key changes lose nothing, whatever becomes of announcements."""

from __future__ import annotations

from typing import Any

import pytest
from flux.cext.srt import packet

from tests.sim.network import Conditions, Flow, Network, publish

S = 1_000_000
PASSPHRASE = "correct horse battery"
USER = 0x7FFF


def secrets(**fields: Any) -> dict[str, Any]:
    return {"passphrase": PASSPHRASE, **fields}


def assert_clean(network: Network, flow: Flow) -> None:
    assert flow.missing == 0
    assert flow.arrived == list(range(flow.sent))
    assert network.listener.count("skipped_pkts") == 0
    stats = network.listener.endpoint.stats(flow.target_id)
    assert stats["receive_km_state"] == "secured"
    assert stats["undecrypted_pkts"] == 0


def changes(network: Network, flow: Flow) -> int:
    return int(network.caller.endpoint.stats(flow.source_id)["key_refreshes"])


def is_key_material(data: bytes) -> bool:
    return data[:2] == b"\xff\xff"


@pytest.mark.parametrize("mode", ["ctr", "gcm"])
@pytest.mark.parametrize("key_bytes", [16, 24, 32])
def test_a_clean_path(key_bytes: int, mode: str) -> None:
    network = Network(1, caller=secrets(pbkeylen=key_bytes, crypto_mode=mode), listener=secrets())
    flow = publish(network, latency_ms=100)
    flow.feed(300, 3 * S)
    network.run(4 * S)
    assert_clean(network, flow)
    stats = network.listener.endpoint.stats(flow.target_id)
    assert stats["cipher"] == f"aes-{8 * key_bytes}-{mode}"
    assert network.caller.count("retransmitted_pkts") == 0


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(loss=0.2, delay_us=20_000),
        Conditions(delay_us=30_000, jitter_us=20_000),
        Conditions(loss=0.03, delay_us=10_000, jitter_us=40_000, duplicate=0.1),
        Conditions(loss=0.05, delay_us=150_000, jitter_us=10_000),
    ],
    ids=["a fifth lost", "jitter", "everything", "rtt 300 ms"],
)
@pytest.mark.parametrize("mode", ["ctr", "gcm"])
def test_keys_change_while_packets_are_lost_or_overtake_others(conditions: Conditions, mode: str) -> None:
    network = Network(
        11,
        there=conditions,
        caller=secrets(
            crypto_mode=mode, km_refresh_rate_pkts=1000, km_preannounce_pkts=400, max_overhead_percent=100
        ),
        listener=secrets(),
    )
    flow = publish(network, latency_ms=1500)
    flow.feed(400, 20 * S)
    network.run(22 * S)
    assert_clean(network, flow)
    # 8,000 packets; a lost announcement may put a change off.
    assert 7 <= changes(network, flow) <= 8


def test_a_key_that_can_not_be_announced_is_not_used() -> None:
    """Announcements are lost for five seconds; what is due meanwhile goes with the old key."""

    def lose(now_us: int, data: bytes) -> bool:
        return is_key_material(data) and now_us < 6 * S

    network = Network(
        2,
        there=Conditions(delay_us=20_000, lose=lose),
        back=Conditions(delay_us=20_000),
        caller=secrets(km_refresh_rate_pkts=300, km_preannounce_pkts=100),
        listener=secrets(),
    )
    flow = publish(network, latency_ms=200)
    flow.feed(300, 12 * S)
    network.run(4 * S)
    assert changes(network, flow) == 0
    network.run(10 * S)
    assert_clean(network, flow)
    assert changes(network, flow) >= 6
    assert 4 <= network.caller.count("keys_announced") <= 60


def test_lost_confirmations_only_delay_the_key() -> None:
    heard = [0]

    def lose(now_us: int, data: bytes) -> bool:
        heard[0] += is_key_material(data)
        return is_key_material(data) and heard[0] % 3 != 0

    network = Network(
        3,
        there=Conditions(delay_us=20_000),
        back=Conditions(delay_us=20_000, lose=lose),
        caller=secrets(km_refresh_rate_pkts=300, km_preannounce_pkts=149),
        listener=secrets(),
    )
    flow = publish(network, latency_ms=200)
    flow.feed(300, 12 * S)
    network.run(13 * S)
    assert_clean(network, flow)
    assert changes(network, flow) >= 10


def test_a_lost_handshake_is_said_again_with_the_same_key() -> None:
    lost: list[int] = []

    def lose(now_us: int, data: bytes) -> bool:
        decoded = packet.decode(data)
        if decoded["kind"] == "control" and decoded["type"] == 0 and len(data) > 64 and len(lost) < 4:
            lost.append(now_us)
            return True
        return False

    network = Network(4, there=Conditions(lose=lose), caller=secrets(), listener=secrets())
    flow = publish(network, latency_ms=200)
    assert len(lost) == 4
    flow.feed(100, 2 * S)
    network.run(3 * S)
    assert_clean(network, flow)


def test_sequence_numbers_wrap_under_encryption() -> None:
    network = Network(
        5,
        there=Conditions(loss=0.05, delay_us=20_000),
        caller=secrets(km_refresh_rate_pkts=500),
        listener=secrets(),
    )
    flow = publish(network, latency_ms=500, isn=0x7FFFFFFF - 700)
    flow.feed(300, 6 * S)
    network.run(7 * S)
    assert_clean(network, flow)
    assert changes(network, flow) == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_key_changes_over_a_bad_path(seed: int) -> None:
    network = Network(
        seed,
        there=Conditions(loss=0.1, delay_us=25_000, jitter_us=15_000, duplicate=0.05),
        caller=secrets(
            crypto_mode="gcm" if seed % 2 else "ctr", km_refresh_rate_pkts=300, max_overhead_percent=100
        ),
        listener=secrets(),
    )
    flow = publish(network, latency_ms=1000)
    flow.feed(300, 60 * S)
    network.run(62 * S)
    assert_clean(network, flow)
    assert changes(network, flow) >= 55

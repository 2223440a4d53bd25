"""Two SRT endpoints over bad networks: what must arrive arrives, in order, at its time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from flux.cext.srt import packet

from tests.sim.network import CALLER, LISTENER, Conditions, Flow, Network, publish

S = 1_000_000
MINUTE = 60 * S
# A receiver wakes for deliveries on a grid of 2 ms.
GRID_US = 2_000


def is_data(data: bytes) -> bool:
    return data[0] < 0x80


def assert_clean(network: Network, flow: Flow) -> None:
    assert flow.sent > 0
    assert flow.missing == 0
    assert flow.arrived == list(range(flow.sent))
    assert network.listener.count("skipped_pkts") == 0


def test_a_clean_path_delivers_with_the_latency_agreed() -> None:
    network = Network(1, there=Conditions(delay_us=25_000))
    flow = publish(network, latency_ms=200)
    flow.feed(500, 10 * S)
    network.run(11 * S)
    assert_clean(network, flow)
    # As far as the handshake's own way, which sets the base, was as long as the packets'.
    assert min(flow.latencies_us) >= 225_000
    assert max(flow.latencies_us) <= 225_000 + GRID_US
    assert network.listener.endpoint.stats(flow.target_id)["rtt_ms"] == pytest.approx(50, abs=1)
    assert network.caller.endpoint.stats(flow.source_id)["rtt_ms"] == pytest.approx(50, abs=1)
    assert network.caller.count("retransmitted_pkts") == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_fifth_lost_both_ways_and_nothing_is_missing(seed: int) -> None:
    network = Network(seed, there=Conditions(loss=0.2, delay_us=20_000), caller={"max_overhead_percent": 100})
    flow = publish(network, latency_ms=800)
    flow.feed(400, 20 * S)
    network.run(22 * S)
    assert_clean(network, flow)
    assert max(flow.latencies_us) - min(flow.latencies_us) <= 2 * GRID_US
    lost = network.listener.count("lost_pkts")
    assert 0.15 * flow.sent < lost < 0.25 * flow.sent
    # Each lost packet costs little more than what losing every fifth makes it cost.
    assert network.caller.count("retransmitted_pkts") < 1.6 * lost


@pytest.mark.parametrize(
    "conditions",
    [
        Conditions(delay_us=30_000, jitter_us=20_000),
        Conditions(delay_us=10_000, duplicate=0.3),
        Conditions(loss=0.05, delay_us=150_000, jitter_us=10_000),
        Conditions(loss=0.03, delay_us=10_000, jitter_us=40_000, duplicate=0.1),
        Conditions(loss=0.01, delay_us=5_000, bandwidth_bps=8e6),
    ],
    ids=["jitter", "duplicates", "rtt 300 ms", "everything", "bottleneck"],
)
def test_bad_paths(conditions: Conditions) -> None:
    network = Network(7, there=conditions, caller={"max_overhead_percent": 100})
    flow = publish(network, latency_ms=1500)
    flow.feed(400, 20 * S)
    network.run(22 * S)
    assert_clean(network, flow)


def test_bursts_of_loss_are_repaired() -> None:
    """Half a second in every five is lost entirely, in both directions."""

    def lose(now_us: int, data: bytes) -> bool:
        return now_us % (5 * S) < S // 4

    conditions = Conditions(delay_us=20_000, lose=lose)
    network = Network(3, there=conditions, caller={"max_overhead_percent": 100})
    network.now_us = 6 * S
    flow = publish(network, latency_ms=1200)
    flow.feed(300, 30 * S)
    network.run(32 * S)
    assert_clean(network, flow)


def test_what_comes_too_late_is_dropped_on_both_sides_and_the_stream_goes_on() -> None:
    def lose(now_us: int, data: bytes) -> bool:
        return is_data(data) and 5 * S <= now_us < 8 * S

    network = Network(4, there=Conditions(delay_us=20_000, lose=lose), back=Conditions(delay_us=20_000))
    flow = publish(network, latency_ms=120)
    flow.feed(200, 15 * S)
    network.run(16 * S)
    flow.assert_in_order()
    # Three seconds' packets, but for some of the youngest.
    assert 400 <= flow.missing <= 600
    assert flow.arrived[-1] == flow.sent - 1
    assert network.listener.count("skipped_pkts") == flow.missing
    assert network.caller.endpoint.stats(flow.source_id)["too_late_pkts"] > 200
    assert network.caller.endpoint.stats(flow.source_id)["send_buffer_pkts"] == 0
    # Before the outage and soon after it all is as ever; what is younger than a second came late, but came.
    assert max(flow.latencies_us) <= 1_400_000
    assert max(flow.latencies_us[:700] + flow.latencies_us[-1200:]) <= 140_000 + 2 * GRID_US
    assert network.listener.count("refused_beyond") == 0


def test_a_lost_tail_arrives() -> None:
    lost: list[int] = []

    def lose(now_us: int, data: bytes) -> bool:
        if is_data(data) and len(lost) < 3 and now_us > 3.5 * S:
            lost.append(now_us)
            return True
        return False

    network = Network(5, there=Conditions(delay_us=20_000, lose=lose), back=Conditions(delay_us=20_000))
    flow = publish(network, latency_ms=800)
    flow.feed(100, 2 * S)
    network.at(4 * S, flow.send)
    network.at(4 * S + 1_000, flow.send)
    network.at(4 * S + 2_000, flow.send)
    network.run(6 * S)
    assert len(lost) == 3
    assert_clean(network, flow)
    assert network.caller.count("probes") >= 1


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_sequence_numbers_go_round_in_mid_stream(loss: float) -> None:
    network = Network(6, there=Conditions(loss=loss, delay_us=20_000), caller={"max_overhead_percent": 100})
    flow = publish(network, latency_ms=600, isn=0x7FFFFFFF - 1000)
    flow.feed(500, 8 * S)
    network.run(9 * S)
    assert flow.sent > 3000
    assert_clean(network, flow)


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_timestamps_go_round_in_mid_stream(loss: float) -> None:
    """They do after 71 minutes and 35 seconds."""
    settings: dict[str, Any] = {"peer_idle_timeout_ms": 60_000}
    network = Network(
        8,
        there=Conditions(loss=0.0, delay_us=20_000),
        caller=settings | {"max_overhead_percent": 100},
        listener=settings,
    )
    flow = publish(network, latency_ms=500)
    flow.feed(0.5, 71 * MINUTE)
    network.run(71 * MINUTE)
    for link in network.links.values():
        link.conditions.loss = loss
    flow.feed(200, MINUTE)
    network.run(MINUTE)
    flow.feed(1, 2 * MINUTE)
    network.run(2 * MINUTE + S)
    assert_clean(network, flow)
    assert max(flow.latencies_us) <= 520_000 + 3 * GRID_US
    assert min(flow.latencies_us) >= 520_000 - GRID_US


@pytest.mark.parametrize("ppm", [-200, 200])
def test_drift_is_followed(ppm: int) -> None:
    """200 ppm are 360 ms in half an hour: three times the latency."""
    network = Network(9, there=Conditions(delay_us=20_000), listener_rate=1 + ppm / 1e6)
    flow = publish(network, latency_ms=120)
    flow.feed(50, 30 * MINUTE)
    network.run(30 * MINUTE + S)
    assert_clean(network, flow)
    assert network.listener.count("drift_moves") > 50
    late = flow.latencies_us[len(flow.latencies_us) // 2 :]
    assert min(late) > 125_000
    assert max(late) < 155_000


def test_a_silent_peer_is_noticed_by_both() -> None:
    def lose(now_us: int, data: bytes) -> bool:
        return now_us > 3 * S

    network = Network(10, there=Conditions(lose=lose))
    flow = publish(network)
    flow.feed(100, 10 * S)
    network.run(6 * S)
    assert network.listener.events == network.caller.events == []
    network.run(4 * S)
    assert network.listener.events == [("closed", flow.target_id, "idle_timeout")]
    assert network.caller.events == [("closed", flow.source_id, "idle_timeout")]
    assert network.caller.endpoint.memory["connections"] == 0
    network.run(2 * S)
    assert network.caller.endpoint.memory["chunks"] == 0


def test_keepalives_hold_a_silent_connection() -> None:
    network = Network(11, there=Conditions(loss=0.02))
    ids = network.connect()
    network.run(60 * MINUTE)
    assert network.caller.events == network.listener.events == []
    assert network.caller.endpoint.connections == network.listener.endpoint.connections == 1
    assert 3500 < network.links[CALLER].sent < 3700
    network.caller.endpoint.close(ids[0], network.caller.local(network.now_us))
    network.run(S)


def test_shutdown_loses_nothing_that_has_come() -> None:
    network = Network(12, there=Conditions(delay_us=20_000))
    flow = publish(network, latency_ms=2000)
    flow.feed(100, S)
    network.run(S + 50_000)
    assert flow.arrived == []
    network.caller.endpoint.close(flow.source_id, network.caller.local(network.now_us))
    network.run(2 * S)
    assert_clean(network, flow)
    assert network.listener.events == [("closed", flow.target_id, "peer_shutdown")]
    assert network.caller.events == [("closed", flow.source_id, "closed")]
    for node in (network.caller, network.listener):
        assert node.endpoint.memory["connections"] == 0
        assert node.endpoint.memory["chunks"] == 0


def test_the_listener_may_send_as_well() -> None:
    network = Network(13, there=Conditions(loss=0.1, delay_us=20_000), listener={"max_overhead_percent": 100})
    caller_id, listener_id = network.connect("read:live/cam1", latency_ms=600)
    flow = Flow(network, network.listener, listener_id, network.caller, caller_id)
    other = Flow(network, network.caller, caller_id, network.listener, listener_id)
    flow.feed(300, 10 * S)
    other.feed(30, 10 * S)
    network.run(12 * S)
    assert flow.missing == other.missing == 0


def test_the_flow_window_bounds_what_is_under_way() -> None:
    network = Network(
        14,
        there=Conditions(delay_us=100_000),
        listener={"receive_buffer_pkts": 100},
        caller={"send_buffer_pkts": 1000},
    )
    flow = publish(network, latency_ms=120)
    for _ in range(600):
        network.at(network.now_us + S, flow.send)
    most = 0

    def look(now_us: int) -> None:
        nonlocal most
        stats = network.caller.endpoint.stats(flow.source_id)
        most = max(most, stats["send_buffer_pkts"] - stats["unsent_pkts"])

    network.on_turn.append(look)
    network.run(4 * S)
    assert most == 100
    assert network.listener.count("refused_beyond") == 0
    assert network.caller.count("window_limited") > 0


def test_retransmissions_leave_a_narrow_path_its_room() -> None:
    """A path too narrow for the stream: what is sent stays within the stream and a quarter."""
    conditions = Conditions(delay_us=20_000, bandwidth_bps=1.5e6, queue_us=50_000)
    network = Network(15, there=conditions, back=Conditions(delay_us=20_000))
    flow = publish(network, latency_ms=500)
    flow.feed(190, 30 * S)
    network.run(31 * S)
    flow.assert_in_order()
    again = network.caller.count("retransmitted_bytes")
    assert network.listener.count("lost_pkts") > 500
    assert again <= 0.25 * network.caller.count("sent_bytes") * 1.2
    assert network.caller.count("overhead_limited") > 0


@pytest.mark.parametrize("seed", range(6))
def test_handshakes_survive_loss(seed: int) -> None:
    rng = random.Random(seed)
    network = Network(
        seed,
        there=Conditions(loss=0.3, delay_us=rng.randrange(150_000)),
        caller={"handshake_timeout_ms": 20_000, "max_overhead_percent": 100},
    )
    flow = publish(network, latency_ms=5000)
    flow.feed(50, 5 * S)
    network.run(12 * S)
    assert network.listener.count("accepted") == 1
    assert_clean(network, flow)


def test_replayed_and_reordered_handshakes_open_nothing_twice() -> None:
    kept: list[bytes] = []
    network = Network(16)
    link = network.links[CALLER]
    link.conditions.lose = lambda now_us, data: bool(kept.append(data))
    flow = publish(network)
    handshakes = [data for data in kept if data[:4] == b"\x80\0\0\0"]
    assert len(handshakes) == 2
    for _ in range(50):
        for data in handshakes:
            network.listener.endpoint.receive(CALLER, data, network.listener.local(network.now_us))
    flow.feed(100, S)
    network.run(2 * S)
    assert network.listener.count("accepted") == 1
    assert network.listener.endpoint.memory["connections"] == 1
    assert_clean(network, flow)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_hours_of_a_lossy_path(seed: int) -> None:
    rng = random.Random(seed)
    conditions = Conditions(
        loss=rng.uniform(0, 0.2),
        delay_us=rng.randrange(5_000, 100_000),
        jitter_us=rng.randrange(20_000),
        duplicate=rng.uniform(0, 0.05),
    )
    network = Network(
        seed,
        there=conditions,
        caller={"max_overhead_percent": 100},
        listener_rate=1 + rng.uniform(-100, 100) / 1e6,
    )
    flow = publish(network, latency_ms=2500, isn=packet.sequence_at(0x7FFFFFFF, -rng.randrange(100_000)))
    flow.feed(50, 150 * MINUTE)
    network.run(150 * MINUTE + 5 * S)
    assert_clean(network, flow)
    assert network.links[LISTENER].sent < 4 * flow.sent

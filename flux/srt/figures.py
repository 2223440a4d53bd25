"""What a session of SRT measures, out of Endpoint.stats."""

from __future__ import annotations

from typing import Any


def player_figures(stats: dict[str, Any]) -> dict[str, Any]:
    """Of a connection that is sent a stream; {} when it is unknown."""
    if not stats:
        return {}
    return {
        "bytes": stats["sent_bytes"],
        "rtt_ms": stats["rtt_ms"],
        "latency_ms": stats["send_latency_ms"],
        "retransmitted_pkts": stats["sent_again_pkts"],
        "dropped_pkts": stats["too_late_pkts"],
        "lapped": stats["lapped"],
        "cipher": stats["cipher"],
    }


def publisher_figures(stats: dict[str, Any]) -> dict[str, Any]:
    """Of a connection that we take a stream from; {} when it is unknown."""
    if not stats:
        return {}
    return {
        "bytes": stats["received_bytes"],
        "rtt_ms": stats["rtt_ms"],
        "latency_ms": stats["receive_latency_ms"],
        "lost_pkts": stats["received_lost_pkts"],
        "retransmitted_pkts": stats["received_again_pkts"],
        "dropped_pkts": stats["skipped_pkts"],
        "undecrypted_pkts": stats["undecrypted_pkts"],
        "cipher": stats["cipher"],
    }

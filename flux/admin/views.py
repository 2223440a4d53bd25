"""Streams and sessions as the API shows them: facts of the arena without its inner workings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flux.streams.links import play_links

_TRACK_KEYS = (
    "kind",
    "codec",
    "pid",
    "width",
    "height",
    "fps",
    "channels",
    "sample_rate",
    "profile",
    "level",
    "frames",
    "keyframes",
    "bytes",
    "errors",
)
_STREAM_KEYS = (
    "name",
    "state",
    "protocol",
    "session",
    "worker",
    "since",
    "uptime_s",
    "bitrate_bps",
    "fps",
    "viewers",
    "bytes_in",
    "publishers",
    "ts_errors",
    "discontinuities",
)


def stream_view(
    facts: Mapping[str, Any], host: str, listeners: Mapping[str, str], now: datetime | None = None
) -> dict[str, Any]:
    """One stream of the control socket's `streams`, with the URLs at which it is played.

    host: at which the asker reached this machine. now: for uptime_s, seconds since the present publisher
    came, null while there is none.
    """
    view = {key: facts.get(key) for key in _STREAM_KEYS}
    view["uptime_s"] = None
    if facts["state"] == "live" and facts.get("since"):
        since = datetime.fromisoformat(facts["since"])
        view["uptime_s"] = max(0, round(((now or datetime.now(UTC)) - since).total_seconds()))
    view["tracks"] = [{key: track[key] for key in _TRACK_KEYS if key in track} for track in facts["tracks"]]
    view["play"] = play_links(facts["name"], host, listeners)
    return view


def unready(status: Mapping[str, Any]) -> str:
    """Why a server of that `status` (of the control socket) should get no new clients; "": it should."""
    if status["state"] != "running":
        return f"the server is {status['state']}"
    missing = [process["name"] for process in status["processes"] if process["state"] != "running"]
    return f"not running: {', '.join(missing)}" if missing else ""

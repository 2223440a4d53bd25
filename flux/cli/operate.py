"""The commands that ask a running server over its control socket."""

from __future__ import annotations

import argparse
from typing import Any

from flux._version import __version__
from flux.cli import tables
from flux.cli.tables import as_json, table
from flux.control.client import ControlClient
from flux.errors import ControlError


def _call(args: argparse.Namespace, method: str, **params: Any) -> dict[str, Any]:
    return ControlClient(args.socket).call(method, **params)


def status(args: argparse.Namespace) -> int:
    """`flux status`: processes, listeners and memory."""
    answer = _call(args, "status")
    if args.json:
        print(as_json(answer))
        return 0
    print(f"{answer['state']} for {tables.duration(answer['uptime_s'])}, pid {answer['pid']}")
    for name, address in answer["listeners"].items():
        print(f"{name:<6} {address or 'off'}")
    arena = answer["arena"]
    print(f"{arena['used']} of {arena['slots']} streams, {tables.size(arena['memory_bytes'])} of memory")
    print()
    print(
        table(
            ("PROCESS", "PID", "STATE", "SESSIONS", "RESTARTS", "HEARTBEAT"),
            [
                (
                    process["name"],
                    str(process["pid"]),
                    process["state"],
                    str(process["sessions"]),
                    str(process["restarts"]),
                    f"{process['heartbeat_age_ms']} ms ago",
                )
                for process in answer["processes"]
            ],
            right=("PID", "SESSIONS", "RESTARTS", "HEARTBEAT"),
        )
    )
    return 0


def streams(args: argparse.Namespace) -> int:
    """`flux streams`: a line a stream."""
    found = sorted(_call(args, "streams")["streams"], key=lambda stream: str(stream["name"]))
    if args.json:
        print(as_json({"streams": found}))
        return 0
    print(
        table(
            ("NAME", "STATE", "CODECS", "RESOLUTION", "FPS", "BITRATE", "VIEWERS", "UP", "BY", "WORKER"),
            [_stream_row(stream) for stream in found],
            right=("FPS", "BITRATE", "VIEWERS"),
        )
        if found
        else "no stream is live"
    )
    return 0


def _stream_row(stream: dict[str, Any]) -> tuple[str, ...]:
    live = stream["state"] == "live"
    video = next((track for track in stream["tracks"] if track["kind"] == "video"), None)
    return (
        stream["name"],
        stream["state"],
        "+".join(track["codec"] for track in stream["tracks"]) or "-",
        f"{video['width']}x{video['height']}" if video and video["width"] else "-",
        tables.rate(stream.get("fps")) if live else "-",
        tables.bitrate(stream.get("bitrate_bps")) if live else "-",
        str(stream["viewers"]),
        tables.since(stream.get("since")) if live else "-",
        stream["protocol"] or "-",
        str(stream.get("worker", "-")),
    )


def sessions(args: argparse.Namespace) -> int:
    """`flux sessions`: a line a publisher or player."""
    answer = _call(args, "sessions", **({"stream": args.stream} if args.stream else {}))
    found = answer["sessions"]
    if args.json:
        print(as_json({"sessions": found}))
        return 0
    print(
        table(
            ("ID", "STREAM", "ROLE", "PROTOCOL", "PEER", "FOR", "BYTES", "BITRATE"),
            [
                (
                    session["id"],
                    session["stream"],
                    session["role"],
                    session["protocol"],
                    session["peer"] or "-",
                    tables.since(session.get("since")),
                    tables.size(session["bytes"]),
                    tables.bitrate(session.get("bitrate_bps")),
                )
                for session in found
            ],
            right=("BYTES", "BITRATE"),
        )
        if found
        else "no sessions"
    )
    return 0


def relays(args: argparse.Namespace) -> int:
    """`flux relays`: a line for each relay, and one for what went wrong with it last."""
    found = _call(args, "relays")["relays"]
    if args.json:
        print(as_json({"relays": found}))
        return 0
    print(
        table(
            ("NAME", "DIRECTION", "STREAM", "STATE", "FOR", "ATTEMPTS", "BYTES", "RTT", "URL"),
            [
                (
                    relay["name"],
                    relay["direction"],
                    relay["stream"],
                    relay["state"],
                    tables.since(relay["since"]),
                    str(relay["attempts"]),
                    tables.size(relay["figures"]["bytes"]) if relay["figures"] else "-",
                    f"{relay['figures']['rtt_ms']:.1f} ms" if relay["figures"] else "-",
                    relay["url"],
                )
                for relay in found
            ],
            right=("ATTEMPTS", "BYTES", "RTT"),
        )
        if found
        else "no relays; the setting `relays` has them"
    )
    for relay in found:
        if relay["last_error"]:
            print(f"{relay['name']}: {relay['last_error']}")
    return 0


def stats(args: argparse.Namespace) -> int:
    """`flux stats`: all counters that are not 0."""
    answer = _call(args, "stats")
    if args.json:
        print(as_json(answer))
        return 0
    counters = {name: value for name, value in answer["counters"].items() if value or args.all}
    print(
        table(
            ("COUNTER", "VALUE"),
            [(name, str(value)) for name, value in sorted(counters.items())],
            right=("VALUE",),
        )
        if counters
        else "nothing was counted yet"
    )
    return 0


def kick(args: argparse.Namespace) -> int:
    """`flux kick ID`: ends a session."""
    answer = _call(args, "kick", session=args.id)
    print(as_json(answer) if args.json else f"{args.id} was told to end")
    return 0


def reload(args: argparse.Namespace) -> int:
    """`flux reload`: the configuration is read again; tells what changed and what needs a restart."""
    answer = _call(args, "reload")
    if args.json:
        print(as_json(answer))
        return 0
    print(f"changed: {', '.join(answer['changed']) or 'nothing'}")
    if answer["needs_restart"]:
        print(f"takes effect after a restart: {', '.join(answer['needs_restart'])}")
    return 0


def drain(args: argparse.Namespace) -> int:
    """`flux drain`: nothing new is taken; Flux ends when its sessions have."""
    answer = _call(args, "drain")
    print(as_json(answer) if args.json else "draining: nothing new is taken; it stops when all have gone")
    return 0


def stop(args: argparse.Namespace) -> int:
    """`flux stop`: Flux ends now."""
    answer = _call(args, "stop")
    print(as_json(answer) if args.json else "stopping")
    return 0


def version(args: argparse.Namespace) -> int:
    """`flux version`: this program's, and that of the server that runs."""
    try:
        server = _call(args, "version")
    except ControlError:
        if args.socket:
            raise
        server = None
    if args.json:
        print(as_json({"client": __version__, "server": server}))
        return 0
    print(f"flux {__version__}")
    if server is not None:
        print(f"server {server['version']}, Python {server['python']}, pid {server['pid']}")
    return 0

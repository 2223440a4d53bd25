"""Where a stream is published and played: the addresses that people and players are given."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from flux.address import split_address

K_DEMO_NAME = "live/cam1"  # in examples, where no stream is meant in particular


def authority(host: str, listener: str) -> str:
    """ "host:port" at which somebody who reached this machine as `host` reaches `listener` ("ip:port").

    A listener on a wildcard address is at that host, any other where it is bound. "localhost" becomes a
    number, as some players try only the IPv6 address that it may also stand for.
    """
    bound, port = split_address(listener)
    address = ipaddress.ip_address(bound)
    if not address.is_unspecified:
        host = bound
    elif host == "localhost":
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def play_links(name: str, host: str, listeners: Mapping[str, str]) -> dict[str, str]:
    """The URLs at which the stream `name` is played, by format: flv, ws_flv, ts, hls, srt.

    listeners: `status.listeners` of the control socket: srt, http as "ip:port", or "" for none. host: as in
    authority().
    """
    links = {}
    if listeners.get("http"):
        media = authority(host, listeners["http"])
        links["flv"] = f"http://{media}/{name}.flv"
        links["ws_flv"] = f"ws://{media}/{name}.flv"
        links["ts"] = f"http://{media}/{name}.ts"
        links["hls"] = f"http://{media}/{name}/index.m3u8"
    if listeners.get("srt"):
        links["srt"] = f"srt://{authority(host, listeners['srt'])}?streamid=read:{name}"
    return links


def publish_link(name: str, host: str, listeners: Mapping[str, str]) -> str:
    """The SRT URL to publish `name` at, or "" when SRT is not listened on."""
    if not listeners.get("srt"):
        return ""
    return f"srt://{authority(host, listeners['srt'])}?streamid=publish:{name}"


def announcement(listeners: Mapping[str, str], demo: str = "", host: str = "127.0.0.1") -> str:
    """What `flux serve` prints when all is up: the addresses to open, a line each.

    demo: name of the stream that is being published already, or "".
    """
    rows = []
    if listeners.get("admin"):
        rows.append(("web page", f"http://{authority(host, listeners['admin'])}/"))
    publish = publish_link(K_DEMO_NAME, host, listeners)
    if publish:
        rows.append(("publish", f"ffmpeg -re -i FILE -c copy -f mpegts '{publish}'"))
    titles = {"flv": "play HTTP-FLV", "hls": "play HLS", "ts": "play HTTP-TS", "srt": "play SRT"}
    links = play_links(demo or K_DEMO_NAME, host, listeners)
    rows += [(title, links[key]) for key, title in titles.items() if key in links]
    width = max((len(title) for title, _ in rows), default=0)
    return "\n".join(f"  {title:<{width}}  {value}" for title, value in rows)

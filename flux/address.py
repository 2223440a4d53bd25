"""Socket addresses as people write them."""

from __future__ import annotations

import ipaddress


def peer_name(host: str, port: int) -> str:
    """ "ip:port", "[ip]:port" for IPv6; an IPv4 address mapped into IPv6 is shown as IPv4."""
    host = host.partition("%")[0]
    if ":" in host:
        ip = ipaddress.IPv6Address(host)
        host = str(ip.ipv4_mapped) if ip.ipv4_mapped is not None else f"[{ip}]"
    return f"{host}:{port}"

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


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of "ip:port", "[ip]:port", "localhost:port" or ":port" (every IPv4 address).

    Raises ValueError that says what is wrong.
    """
    host, colon, digits = text.rpartition(":")
    if not colon:
        raise ValueError(f'"{text}" has no port; write it as 0.0.0.0:{text if text.isdigit() else "8080"}')
    if not (digits.isascii() and digits.isdigit() and int(digits) <= 65535):
        raise ValueError(f'"{digits}" is no port; it must be 0 to 65535')
    if host in ("", "*"):
        host = "0.0.0.0"
    elif host == "localhost":
        host = "127.0.0.1"
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f'"{host}" is no IP address; write it as 127.0.0.1:{digits}') from None
    if ip.version == 6 and not bracketed:
        raise ValueError(f'an IPv6 address goes in brackets: "[{host}]:{digits}"')
    if ip.version == 4 and bracketed:
        raise ValueError(f'brackets are for IPv6 addresses: "{ip}:{digits}"')
    return str(ip), int(digits)

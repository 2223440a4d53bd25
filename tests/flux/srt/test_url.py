"""srt:// URLs of the clients."""

from __future__ import annotations

import pytest

from flux.srt.url import Encryption, SrtUrl, SrtUrlError, hide_secrets, parse_url

TAKEN = [
    (
        "srt://127.0.0.1:8890?streamid=publish:live/cam1",
        SrtUrl("127.0.0.1", 8890, "publish:live/cam1"),
    ),
    ("srt://h:1/live/cam1", SrtUrl("h", 1, "publish:live/cam1")),
    ("srt://h:1/live/cam1?streamid=other", SrtUrl("h", 1, "other")),
    ("SRT://h:1", SrtUrl("h", 1, "")),
    ("srt://h:1/", SrtUrl("h", 1, "")),
    ("srt://[::1]:9?streamid=publish%3Alive%2Fcam1", SrtUrl("::1", 9, "publish:live/cam1")),
    (
        "srt://h:1?streamid=#!::r=live/cam1,m=publish&latency=200",
        SrtUrl("h", 1, "#!::r=live/cam1,m=publish", latency_ms=200),
    ),
    ("srt://h:1?latency=120&rcvlatency=300", SrtUrl("h", 1, "", latency_ms=300)),
    ("srt://h:1?mode=caller&transtype=live&pkt_size=1316", SrtUrl("h", 1, "")),
    ("srt://h:1?connect_timeout=500", SrtUrl("h", 1, "", connect_timeout_ms=500)),
    (
        "srt://h:1?passphrase=top%26secret%20x&pbkeylen=32",
        SrtUrl("h", 1, "", encryption=Encryption("top&secret x", 32)),
    ),
    (
        "srt://h:1?passphrase=topsecret1&cryptomode=2&enforcedencryption=no&kmrefreshrate=1000&kmpreannounce=100",
        SrtUrl("h", 1, "", encryption=Encryption("topsecret1", 0, "gcm", False, 1000, 100)),
    ),
    (
        "srt://h:1?passphrase=topsecret1&cryptomode=ctr&enforced_encryption=1&kmrefreshrate=0",
        SrtUrl("h", 1, "", encryption=Encryption("topsecret1", 0, "ctr")),
    ),
    ("srt://h:1?passphrase=&pbkeylen=0", SrtUrl("h", 1, "")),
]

REFUSED = [
    ("http://h:1", "no SRT URL"),
    ("h:1", "no SRT URL"),
    ("srt://h", "no host and port"),
    ("srt://:1", "no host and port"),
    ("srt://::1:1", "no host and port"),
    ("srt://h:0", "no port"),
    ("srt://h:65536", "no port"),
    ("srt://h:x", "no port"),
    ("srt://h:1?latency=-1", "no number of ms"),
    ("srt://h:1?latency=120000", "no number of ms"),
    ("srt://h:1?packetfilter=fec", "FEC, which is not spoken yet"),
    ("srt://h:1?passphrase=secret", "passphrase= has 6 bytes; SRT wants 10 to 80"),
    ("srt://h:1?passphrase=" + "x" * 81, "passphrase= has 81 bytes"),
    ("srt://h:1?pbkeylen=128", "pbkeylen=128 is not known; it is one of 0, 16, 24, 32"),
    ("srt://h:1?cryptomode=3", "cryptomode=3 is not known"),
    ("srt://h:1?enforcedencryption=maybe", "enforcedencryption=maybe is not known"),
    ("srt://h:1?kmrefreshrate=-1", "kmrefreshrate=-1 is no number of packets"),
    ("srt://h:1?kmrefreshrate=100&kmpreannounce=50", "kmpreannounce=50 is no number of packets up to 49"),
    ("srt://h:1?mode=listener", "not offered"),
    ("srt://h:1?pkt_size=9000", "not offered"),
    ("srt://h:1?colour=red", "colour= is not known"),
    ("srt://h:1?streamid=read:live/cam1", "other direction"),
    ("srt://h:1?streamid=#!::r=live/cam1", "other direction"),
    ("srt://h:1?streamid=" + "x" * 513, "512"),
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_taken(text: str, expected: SrtUrl) -> None:
    assert parse_url(text, "publish") == expected


@pytest.mark.parametrize(("text", "says"), REFUSED)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(SrtUrlError, match=says) as caught:
        parse_url(text, "publish")
    assert caught.value.cure
    assert caught.value.exit_code == 2


SECRET = "?passphrase=topsecret1&latency=100"


def test_a_passphrase_is_not_shown() -> None:
    assert hide_secrets(f"srt://h:1{SECRET}") == "srt://h:1?passphrase=…&latency=100"
    parsed = parse_url(f"srt://h:1{SECRET}", "publish")
    assert "topsecret1" not in f"{parsed} {parsed!r}"


@pytest.mark.parametrize("text", ["srt://", "http://h", "srt://h:x", "srt://h:1?colour=red&"])
def test_a_passphrase_is_not_in_an_error(text: str) -> None:
    with pytest.raises(SrtUrlError) as caught:
        parse_url(f"{text}{SECRET}", "publish")
    assert "topsecret1" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", [("127.0.0.1", 7)]), ("::1", [("::1", 7)])],
)
def test_addresses(host: str, expected: list[tuple[str, int]]) -> None:
    assert SrtUrl(host, 7, "").addresses() == expected


def test_localhost_is_tried_by_ipv4_first() -> None:
    assert SrtUrl("localhost", 7, "").addresses()[0] == ("127.0.0.1", 7)


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(SrtUrlError, match="not known"):
        SrtUrl("no-such-host.invalid", 7, "").addresses()

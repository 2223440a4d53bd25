from __future__ import annotations

import pytest

from flux.address import split_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":0", ("0.0.0.0", 0)),
        ("*:1", ("0.0.0.0", 1)),
        ("localhost:65535", ("127.0.0.1", 65535)),
        ("[::]:8080", ("::", 8080)),
        ("[2001:db8::1]:1", ("2001:db8::1", 1)),
    ],
)
def test_addresses(text, expected):
    assert split_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "80",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "a:1",
        "::1:1",
        "[127.0.0.1]:1",
        "[::1]",
        "127.0.0.1:²",
        "256.0.0.1:1",
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match=r"."):
        split_address(text)

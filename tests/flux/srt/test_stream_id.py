"""Stream ids as callers send them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.srt.rejection import explain
from flux.srt.stream_id import StreamId, StreamIdError, parse, render

TAKEN = [
    ("publish:live/cam1", StreamId("publish", "live/cam1")),
    ("read:live/cam1", StreamId("read", "live/cam1")),
    ("live/cam1", StreamId("read", "live/cam1")),
    ("/live/cam1", StreamId("read", "live/cam1")),
    ("publish:/live/cam1", StreamId("publish", "live/cam1")),
    ("read:cam", StreamId("read", "cam")),
    ("read:a/b/c/d~1_2.3-4", StreamId("read", "a/b/c/d~1_2.3-4")),
    ("publish:live/cam1:joe:secret", StreamId("publish", "live/cam1", user="joe", session="secret")),
    (
        "publish:live/cam1:joe:secret:k=v",
        StreamId("publish", "live/cam1", user="joe", session="secret", query="k=v"),
    ),
    ("read:live/cam1:token=1", StreamId("read", "live/cam1", query="token=1")),
    ("read:live/cam1?token=1", StreamId("read", "live/cam1", query="token=1")),
    ("live/cam1?token=1", StreamId("read", "live/cam1", query="token=1")),
    ("#!::r=live/cam1", StreamId("read", "live/cam1")),
    ("#!::r=live/cam1,m=request", StreamId("read", "live/cam1")),
    ("#!::m=publish,r=live/cam1", StreamId("publish", "live/cam1")),
    ("#!::h=example.org,r=live/cam1,m=publish", StreamId("publish", "live/cam1", host="example.org")),
    (
        "#!::u=joe,s=4a,t=stream,r=live/cam1,m=publish,acme_room=7",
        StreamId("publish", "live/cam1", user="joe", session="4a", extra={"acme_room": "7"}),
    ),
    ("#!::r=live/cam1?secret=a=b,m=publish", StreamId("publish", "live/cam1", query="secret=a=b")),
    ("#!::r=/live/cam1", StreamId("read", "live/cam1")),
]

REFUSED = [
    ("", 1400, "empty"),
    ("x" * 513, 1400, "512"),
    ("publish:", 1400, "empty"),
    ("publish:live//cam1", 1400, "empty"),
    ("publish:live/../cam1", 1400, r"\.\."),
    ("read:live/cam 1", 1400, "' '"),
    ("read:live/käm", 1400, "stream name"),
    ("write:live/cam1", 1400, "'write'"),
    ("publish:a:b:c:d:e", 1400, "too many"),
    ("#!::", 1400, "key=value"),
    ("#!::m=publish", 1400, "no r="),
    ("#!::r=", 1400, "empty"),
    ("#!::r=live/cam1,m", 1400, "key=value"),
    ("#!::r=live/cam1,=x", 1400, "key=value"),
    ("#!::r=a,r=b", 1400, "twice"),
    ("#!:{r=live/cam1}", 1400, "nested"),
    ("#!::r=live/cam1,m=bidirectional", 1405, "bidirectional"),
    ("#!::r=live/cam1,m=", 1405, "mode"),
    ("#!::r=live/cam1,t=file", 1415, "file"),
    ("#!::r=live/cam1,t=auth", 1415, "auth"),
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_taken(text: str, expected: StreamId) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(("text", "code", "says"), REFUSED)
def test_refused(text: str, code: int, says: str) -> None:
    with pytest.raises(StreamIdError, match=says) as caught:
        parse(text)
    assert caught.value.code == code
    assert caught.value.cure


@given(st.text(max_size=600), st.sampled_from(["", "#!::", "#!::r=", "publish:"]))
def test_any_text_is_read_or_refused(text: str, prefix: str) -> None:
    try:
        parsed = parse(prefix + text)
    except StreamIdError:
        return
    assert parse(render(parsed.mode, parsed.name)).name == parsed.name


@pytest.mark.parametrize("mode", ["publish", "read"])
def test_our_clients_ids_are_taken(mode: str) -> None:
    assert parse(render(mode, "live/cam1")) == StreamId(mode, "live/cam1")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (1003, "no room"),
        (1005, "backlog"),
        (1008, "versions"),
        (1011, "encryption"),
        (1404, "nobody publishes"),
        (1409, "publisher already"),
        (1503, "shutting down"),
        (1777, "refused by the server"),
    ],
)
def test_rejections_are_explained(code: int, says: str) -> None:
    what, cure = explain(code)
    assert says in what
    assert str(code) in what
    assert cure

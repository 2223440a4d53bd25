"""What a caller wants, as its stream id says: SRT Internet-Draft, 3.2.1.3 and Appendix B (access control).

    read:live/cam1                      publish:live/cam1
    publish:live/cam1:user:password     and, behind either, :query
    #!::r=live/cam1,m=publish           keys r m u s t h and any others
    live/cam1                           a bare name is a player's

A name may begin with one `/`, which is left out, and end with `?query`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flux.errors import StreamNameError, UserError
from flux.srt.rejection import K_BAD_MODE, K_BAD_REQUEST, K_UNSUPPORTED_MEDIA
from flux.streams.names import check_name

Mode = Literal["publish", "read"]

K_MAX_BYTES = 512  # SRT Internet-Draft, 3.2.1.3
K_STANDARD = "#!::"
K_NESTED = "#!:"

_MODES: dict[str, Mode] = {"publish": "publish", "request": "read", "read": "read", "play": "read"}
_CURE = "use publish:live/cam1, read:live/cam1 or #!::m=publish,r=live/cam1"


class StreamIdError(UserError):
    """A stream id that can't be served. code: the rejection that its caller gets."""

    def __init__(self, code: int, what: str, cure: str = _CURE) -> None:
        super().__init__(what, cure)
        self.code = code


@dataclass(frozen=True, slots=True)
class StreamId:
    """mode: "publish" or "read". name: a valid stream name.

    user: `u=`, or the user of the short form. session: `s=`, or the password of the short form. host: `h=`.
    type: `t=`, "stream" if not given. query: behind the name. extra: all other keys.
    """

    mode: Mode
    name: str
    user: str = ""
    session: str = ""
    host: str = ""
    type: str = "stream"
    query: str = ""
    extra: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> StreamId:
    """Reads a stream id. Raises StreamIdError, which carries the rejection code."""
    if not text:
        raise StreamIdError(K_BAD_REQUEST, "the stream id is empty")
    if len(text.encode("utf-8", "surrogateescape")) > K_MAX_BYTES:
        raise StreamIdError(K_BAD_REQUEST, f"the stream id has more than {K_MAX_BYTES} bytes")
    if text.startswith(K_STANDARD):
        return _parse_standard(text[len(K_STANDARD) :])
    if text.startswith(K_NESTED):
        raise StreamIdError(K_BAD_REQUEST, "stream ids in the nested syntax are not taken")
    return _parse_short(text)


def _parse_standard(text: str) -> StreamId:
    keys: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise StreamIdError(K_BAD_REQUEST, f"the stream id has {pair[:60]!a} where key=value is expected")
        if key in keys:
            raise StreamIdError(K_BAD_REQUEST, f"the stream id has the key {key[:60]!a} twice")
        keys[key] = value
    mode = keys.pop("m", "request")
    if mode not in _MODES:
        raise StreamIdError(
            K_BAD_MODE, f"the mode {mode[:60]!a} is not offered", "use m=publish or m=request"
        )
    kind = keys.pop("t", "stream")
    if kind not in ("stream", "live"):
        raise StreamIdError(
            K_UNSUPPORTED_MEDIA, f"the type {kind[:60]!a} is not offered", "leave t= out, or use t=stream"
        )
    if "r" not in keys:
        raise StreamIdError(K_BAD_REQUEST, "the stream id has no r=")
    name, query = _split_name(keys.pop("r"))
    return StreamId(
        _MODES[mode],
        name,
        user=keys.pop("u", ""),
        session=keys.pop("s", ""),
        host=keys.pop("h", ""),
        type=kind,
        query=query,
        extra=keys,
    )


def _parse_short(text: str) -> StreamId:
    word, *parts = text.split(":")
    if not parts:
        name, query = _split_name(text)
        return StreamId("read", name, query=query)
    if word not in ("publish", "read"):
        raise StreamIdError(K_BAD_REQUEST, f"the stream id begins with {word[:60]!a}")
    if len(parts) > 4:
        raise StreamIdError(K_BAD_REQUEST, "the stream id has too many parts")
    name, query = _split_name(parts[0])
    user, session = parts[1:3] if len(parts) >= 3 else ("", "")
    if len(parts) in (2, 4):
        query = parts[-1]
    return StreamId(_MODES[word], name, user=user, session=session, query=query)


def _split_name(text: str) -> tuple[str, str]:
    """The name and its query."""
    name, _, query = text.partition("?")
    try:
        return check_name(name.removeprefix("/")), query
    except StreamNameError as error:
        raise StreamIdError(K_BAD_REQUEST, error.what, error.cure) from None


def render(mode: Mode, name: str) -> str:
    """The stream id of a client of ours."""
    return f"{mode}:{name}"

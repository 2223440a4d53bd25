"""Takes a stream over HTTP: FLV and MPEG-TS as endless responses, HLS segment by segment (RFC 8216)."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from flux._version import __version__
from flux.errors import PeerError, UserError

K_TIMEOUT_S = 20.0  # longer than a server lets a player wait for its publisher
K_READ_BYTES = 64 << 10
K_PLAYLIST_BYTES = 1 << 20
K_FROM_END = 3  # segments before the end of a live playlist at which to begin (RFC 8216, 6.3.3)


def chunks(url: str) -> Iterator[bytes]:
    """The bytes of the stream at an http:// or https:// URL, as they come; that of .m3u8 is its segments'.

    Ends with the stream. Raises UserError for a URL that can't be, PeerError when the server refuses or goes
    away.
    """
    if urllib.parse.urlsplit(url).path.endswith(".m3u8"):
        yield from _hls(url)
        return
    with _open(url) as response:
        yield from _read(response, url)


def _open(url: str) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": f"flux/{__version__}"})
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=K_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or str(error.reason)
        raise PeerError(
            f"{url}: {reason.lower()}", "look whether the server runs and the address is right"
        ) from None
    except TimeoutError:
        raise PeerError(f"{url}: no answer in {K_TIMEOUT_S:g} s", "look whether the stream is live") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise UserError(f"{url}: {error}", "write it as http://HOST:PORT/NAME.flv") from None
    except (OSError, http.client.HTTPException) as error:
        raise PeerError(f"{url}: {error}", "look whether a media server is there") from None
    return response


def _refusal(url: str, error: urllib.error.HTTPError) -> PeerError:
    what, cure = f"HTTP status {error.code}", "look whether the address is right"
    try:
        answer = json.loads(error.read(K_READ_BYTES))
        what, cure = str(answer["message"]), str(answer["cure"])
    except (ValueError, KeyError, TypeError, OSError):
        pass
    return PeerError(f"{url}: {what}", cure)


def _read(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    while True:
        try:
            data = response.read1(K_READ_BYTES)
        except TimeoutError:
            raise PeerError(f"{url}: nothing came for {K_TIMEOUT_S:g} s", "look at the publisher") from None
        except (OSError, http.client.HTTPException) as error:
            raise PeerError(f"{url}: {error}", "the server ended the connection; play it again") from None
        if not data:
            return
        yield data


@dataclass(frozen=True, slots=True)
class Playlist:
    """What is needed of a media playlist: its segments' absolute URLs, the first one's number, seconds."""

    sequence: int
    segments: tuple[str, ...]
    target_s: float
    ended: bool
    variant: str  # of a multivariant playlist, the first variant's URL


def parse_playlist(text: str, base: str) -> Playlist:
    """Parses a playlist (RFC 8216, 4.3) read from the URL `base`. Raises PeerError when it is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != "#EXTM3U":
        raise PeerError(f"{base}: this is no HLS playlist", "look whether the address is right")
    tags = {line.partition(":")[0]: line.partition(":")[2] for line in lines if line.startswith("#EXT")}
    addresses = tuple(urllib.parse.urljoin(base, line) for line in lines if not line.startswith("#"))
    variants = "#EXT-X-STREAM-INF" in tags
    try:
        return Playlist(
            sequence=int(tags.get("#EXT-X-MEDIA-SEQUENCE", "0")),
            segments=() if variants else addresses,
            target_s=float(tags.get("#EXT-X-TARGETDURATION", "1")),
            ended="#EXT-X-ENDLIST" in tags,
            variant=addresses[0] if variants and addresses else "",
        )
    except ValueError:
        raise PeerError(f"{base}: a broken HLS playlist", "look at its numbers") from None


def _load_playlist(url: str) -> Playlist:
    with _open(url) as response:
        raw = b"".join(_read(response, url))[:K_PLAYLIST_BYTES]
    return parse_playlist(raw.decode("utf-8", "replace"), url)


def _hls(url: str) -> Iterator[bytes]:
    playlist = _load_playlist(url)
    if playlist.variant:
        url = playlist.variant
        playlist = _load_playlist(url)
    upcoming = playlist.sequence
    if not playlist.ended:
        upcoming += max(0, len(playlist.segments) - K_FROM_END)
    while True:
        asked = time.monotonic()
        end = playlist.sequence + len(playlist.segments)
        fresh = upcoming < end
        for number in range(max(upcoming, playlist.sequence), end):
            with _open(playlist.segments[number - playlist.sequence]) as response:
                yield from _read(response, url)
        upcoming = max(upcoming, end)
        if playlist.ended:
            return
        # As often as RFC 8216, 6.3.4 lets a client ask.
        pause = playlist.target_s * (1.0 if fresh else 0.5)
        time.sleep(max(0.0, asked + pause - time.monotonic()))
        playlist = _load_playlist(url)

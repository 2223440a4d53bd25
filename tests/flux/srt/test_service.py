"""The SRT service with our own clients and libsrt's, on a worker's real registry."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from flux.config.schema import Config
from flux.errors import FluxError
from flux.srt.client import SrtRefusedError, play, publish_file
from tests.flux.srt.peers import CLIP, PAYLOAD, LiveTransmit, Worker, bound_socket, eventually, numbered

HOSTS = ["127.0.0.1", "::1"]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


async def in_thread(what: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return await asyncio.to_thread(what, *arguments, **options)


@pytest.mark.parametrize("host", HOSTS)
def test_our_publisher_to_our_player(host: str) -> None:
    async def test() -> None:
        async with Worker(host) as worker:
            bracketed = f"[{host}]" if ":" in host else host
            publish = worker.url("publish:live/cam1", bracketed)
            read = worker.url("read:live/cam1", bracketed)
            publisher = asyncio.create_task(in_thread(publish_file, CLIP, publish, duration_s=3.0, loop=True))
            await eventually(lambda: len(worker.sessions) == 1)
            out = io.BytesIO()
            await in_thread(play, read, out, duration_s=1.5)
            await publisher
            await eventually(lambda: len(worker.sessions) == 0)
            data = out.getvalue()
            assert len(data) > 50_000
            assert len(data) % 188 == 0
            assert set(data[::188]) == {0x47}
            (stream,) = worker.arena.streams()
            assert stream["state"] == "idle"
            assert stream["ts_errors"] == 0
            assert worker.counters.get("flux_srt_service_requests_total") == 2

    run(test)


def test_sessions_tell_their_figures_and_can_be_kicked() -> None:
    async def test() -> None:
        async with Worker() as worker:
            publish, read = worker.url("publish:live/cam1"), worker.url("read:live/cam1")
            publisher = asyncio.create_task(in_thread(publish_file, CLIP, publish, loop=True))
            await eventually(lambda: len(worker.sessions) == 1)
            player = asyncio.create_task(in_thread(play, read, io.BytesIO()))
            await eventually(lambda: len(worker.sessions) == 2)
            await eventually(lambda: all(session["bytes"] > 10_000 for session in worker.described()))
            sending, reading = worker.described()
            assert (sending["role"], reading["role"]) == ("publish", "read")
            for session in (sending, reading):
                assert session["protocol"] == "srt"
                assert session["stream"] == "live/cam1"
                assert session["peer"].startswith("127.0.0.1:")
                assert session["latency_ms"] == 120
                assert session["rtt_ms"] >= 0
                assert session["retransmitted_pkts"] == session["dropped_pkts"] == 0
            assert worker.arena.slot(0)["viewers"] == 1
            assert worker.arena.slot(0)["rings"]["ts"]["wanted"] == 1
            assert worker.sessions.kick(reading["id"])
            await player
            assert worker.arena.slot(0)["viewers"] == 0
            assert worker.arena.slot(0)["rings"]["ts"]["wanted"] == 0
            assert worker.sessions.kick(sending["id"])
            with pytest.raises(FluxError, match="ended the connection"):
                await publisher
            await eventually(lambda: worker.arena.slot(0)["state"] == "idle")

    run(test)


REJECTIONS = [
    ("#!::r=live/cam1,m=bidirectional", 1405, "flux_srt_requests_rejected_mode_total"),
    ("#!::r=live/cam1,t=file", 1415, "flux_srt_requests_rejected_mode_total"),
    ("", 1400, "flux_srt_requests_rejected_stream_id_total"),
    ("write:x", 1400, "flux_srt_requests_rejected_stream_id_total"),
    ("read:nobody", 1404, "flux_srt_requests_rejected_not_found_total"),
]


def test_refusals_tell_why() -> None:
    async def test() -> None:
        async with Worker(streams={"wait_ms": 0}) as worker:
            for stream_id, code, counter in REJECTIONS:
                before = worker.counters.get(counter)
                with pytest.raises(SrtRefusedError) as caught:
                    await in_thread(play, worker.url(stream_id), io.BytesIO())
                assert caught.value.code == code, stream_id
                assert caught.value.cure
                assert worker.counters.get(counter) == before + 1

    run(test)


def test_a_taken_name_is_refused() -> None:
    async def test() -> None:
        async with Worker() as worker:
            url = worker.url("publish:live/cam1")
            first = asyncio.create_task(in_thread(publish_file, CLIP, url, duration_s=1.0))
            await eventually(lambda: len(worker.sessions) == 1)
            with pytest.raises(SrtRefusedError, match="1409"):
                await in_thread(publish_file, CLIP, url)
            await first
            assert worker.counters.get("flux_srt_requests_rejected_taken_total") == 1

    run(test)


def test_a_player_that_comes_first_waits() -> None:
    async def test() -> None:
        async with Worker() as worker:
            out = io.BytesIO()
            player = asyncio.create_task(in_thread(play, worker.url("read:live/cam1"), out, duration_s=2.0))
            await eventually(lambda: worker.counters.get("flux_srt_service_requests_total") == 1)
            assert len(worker.sessions) == 0
            await in_thread(publish_file, CLIP, worker.url("publish:live/cam1"), duration_s=1.5)
            await player
            assert len(out.getvalue()) > 50_000

    run(test)


def test_a_player_that_waits_in_vain_is_told_before_it_gives_up() -> None:
    async def test() -> None:
        async with Worker(srt={"handshake_timeout_ms": 1000}) as worker:
            with pytest.raises(SrtRefusedError, match="1404"):
                await in_thread(play, worker.url("read:live/cam1") + "&connect_timeout=1000", io.BytesIO())

    run(test)


def test_draining_refuses_newcomers_and_keeps_the_others() -> None:
    async def test() -> None:
        async with Worker() as worker:
            url = worker.url("publish:live/cam1")
            first = asyncio.create_task(in_thread(publish_file, CLIP, url, duration_s=1.5))
            await eventually(lambda: len(worker.sessions) == 1)
            waiting = asyncio.create_task(in_thread(play, worker.url("read:live/other"), io.BytesIO()))
            await eventually(lambda: worker.counters.get("flux_srt_service_requests_total") == 2)
            worker.service.stop_accepting()
            with pytest.raises(SrtRefusedError, match="1503"):
                await waiting
            with pytest.raises(SrtRefusedError, match="1503"):
                await in_thread(play, worker.url("read:live/cam1"), io.BytesIO())
            assert len(worker.sessions) == 1
            await first
            assert worker.counters.get("flux_srt_requests_rejected_draining_total") == 2

    run(test)


def test_closing_tells_the_peers() -> None:
    async def test() -> None:
        async with Worker() as worker:
            publisher = asyncio.create_task(
                in_thread(publish_file, CLIP, worker.url("publish:live/cam1"), loop=True)
            )
            await eventually(lambda: len(worker.sessions) == 1)
            await worker.service.close()
            with pytest.raises(FluxError, match="ended the connection"):
                await asyncio.wait_for(publisher, 2)

    run(test)


def test_a_stream_that_is_freed_ends_its_players() -> None:
    async def test() -> None:
        async with Worker() as worker:
            publish, read = worker.url("publish:live/cam1"), worker.url("read:live/cam1")
            publisher = asyncio.create_task(in_thread(publish_file, CLIP, publish, duration_s=1.0))
            await eventually(lambda: len(worker.sessions) == 1)
            player = asyncio.create_task(in_thread(play, read, io.BytesIO()))
            await eventually(lambda: len(worker.sessions) == 2)
            await publisher
            await eventually(lambda: worker.arena.slot(0)["state"] == "idle")
            worker.arena.retire(0)
            await player
            await eventually(lambda: len(worker.sessions) == 0)

    run(test)


SECRETS: dict[str, Any] = {
    "passphrase": "for-all-the-others",
    "passphrases": {"live/*": "for-the-live-ones", "open/*": ""},
}


@pytest.mark.parametrize(
    ("name", "passphrase", "cipher"),
    [
        ("live/cam1", "for-the-live-ones", "aes-192-ctr"),
        ("other", "for-all-the-others", "aes-192-ctr"),
        ("open/cam1", "", ""),
    ],
)
def test_each_stream_has_its_passphrase(name: str, passphrase: str, cipher: str) -> None:
    async def test() -> None:
        async with Worker(srt={**SECRETS, "pbkeylen": 24}) as worker:
            secret = f"&passphrase={passphrase}" if passphrase else ""
            publish, read = worker.url(f"publish:{name}") + secret, worker.url(f"read:{name}") + secret
            publisher = asyncio.create_task(in_thread(publish_file, CLIP, publish, duration_s=2.5, loop=True))
            await eventually(lambda: len(worker.sessions) == 1)
            out = io.BytesIO()
            await in_thread(play, read, out, duration_s=1.5)
            assert all(session["cipher"] == cipher for session in worker.described())
            await publisher
            data = out.getvalue()
            assert len(data) > 50_000
            assert set(data[::188]) == {0x47}
            (stream,) = worker.arena.streams()
            assert stream["ts_errors"] == 0

    run(test)


@pytest.mark.parametrize(
    ("stream_id", "passphrase", "code"),
    [
        ("publish:live/cam1", "", 1011),
        ("publish:live/cam1", "for-all-the-others", 1010),
        ("read:live/cam1", "for-all-the-others", 1010),
        ("read:other", "", 1011),
        ("read:open/cam1", "for-all-the-others", 1011),
    ],
)
def test_wrong_secrets_are_refused_before_anything_else(stream_id: str, passphrase: str, code: int) -> None:
    async def test() -> None:
        async with Worker(srt=SECRETS) as worker:
            url = worker.url(stream_id) + (f"&passphrase={passphrase}" if passphrase else "")
            what = (publish_file, CLIP, url) if stream_id.startswith("publish") else (play, url, io.BytesIO())
            with pytest.raises(SrtRefusedError) as caught:
                await in_thread(*what)
            assert caught.value.code == code
            assert "passphrase" in caught.value.cure
            assert not passphrase or passphrase not in str(caught.value)
            assert worker.arena.streams() == []

    run(test)


def test_keys_change_while_a_stream_is_published_and_played() -> None:
    async def test() -> None:
        secret = "&passphrase=for-the-live-ones&kmrefreshrate=40&cryptomode=gcm"
        settings = {**SECRETS, "km_refresh_rate_pkts": 40, "km_preannounce_pkts": 10}
        async with Worker(srt=settings) as worker:
            publish, read = worker.url("publish:live/cam1") + secret, worker.url("read:live/cam1") + secret
            publisher = asyncio.create_task(in_thread(publish_file, CLIP, publish, duration_s=3.0, loop=True))
            await eventually(lambda: len(worker.sessions) == 1)
            out = io.BytesIO()
            figures = await in_thread(play, read, out, duration_s=2.0)
            assert figures["cipher"] == "aes-128-gcm"
            assert figures["peer_key_refreshes"] >= 2
            assert figures["undecrypted_pkts"] == 0
            sent = await publisher
            assert sent["key_refreshes"] >= 2
            assert set(out.getvalue()[::188]) == {0x47}
            (stream,) = worker.arena.streams()
            assert stream["ts_errors"] == 0

    run(test)


def test_a_new_passphrase_is_for_those_who_come() -> None:
    async def test() -> None:
        async with Worker(srt={"passphrase": "the first secret"}) as worker:
            url = worker.url("publish:live/cam1") + "&passphrase="
            first = asyncio.create_task(
                in_thread(publish_file, CLIP, url + "the first secret", duration_s=2.0, loop=True)
            )
            await eventually(lambda: len(worker.sessions) == 1)
            worker.service.reconfigure(Config.model_validate({"srt": {"passphrase": "the other secret"}}))
            read = worker.url("read:live/cam1") + "&passphrase="
            with pytest.raises(SrtRefusedError, match="1010"):
                await in_thread(play, read + "the first secret", io.BytesIO())
            out = io.BytesIO()
            await in_thread(play, read + "the other secret", out, duration_s=1.0)
            assert out.getvalue()
            await first

    run(test)


def test_secrets_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        async with Worker(srt=SECRETS) as worker:
            url = worker.url("publish:live/cam1") + "&passphrase="
            with pytest.raises(SrtRefusedError):
                await in_thread(publish_file, CLIP, url + "for-all-the-others")
            await in_thread(publish_file, CLIP, url + "for-the-live-ones", duration_s=0.3)
            assert "for-the-live-ones" not in repr(worker.config)

    run(test)
    said = "".join(capsys.readouterr())
    assert "srt_refused" in said
    assert "publisher_started" in said
    assert not any(secret in said for secret in ("for-all-the-others", "for-the-live-ones"))


@pytest.mark.interop
def test_libsrt_publishes_and_plays_encrypted() -> None:
    data = CLIP.read_bytes()[: 400 * PAYLOAD]
    last = data[-PAYLOAD:]

    async def test() -> None:
        async with Worker(srt=SECRETS) as worker:
            secret = "&passphrase=for-the-live-ones&pbkeylen=32"
            with (
                LiveTransmit(worker.url("read:live/cam1") + secret, "file://con") as player,
                LiveTransmit("file://con", worker.url("publish:live/cam1") + secret) as publisher,
            ):
                player.take()
                await eventually(lambda: len(worker.sessions) == 2)
                publisher.feed(data + numbered(7 * 100))
                await eventually(lambda: last in player.taken)
                assert all(session["cipher"] == "aes-256-ctr" for session in worker.described())
                await in_thread(publisher.end)
                taken = player.taken[2 * 188 : player.taken.index(last) + PAYLOAD]
                assert data.endswith(taken)
                assert len(taken) > len(data) - 1000

    run(test)


@pytest.mark.interop
@pytest.mark.parametrize("stream_id", ["publish:live/cam1", "#!::r=live/cam1,m=publish"])
def test_libsrt_publishes_and_plays(stream_id: str) -> None:
    data = CLIP.read_bytes()[: 400 * PAYLOAD]
    last = data[-PAYLOAD:]

    async def test() -> None:
        async with Worker() as worker:
            with (
                LiveTransmit(worker.url("read:live/cam1"), "file://con") as player,
                LiveTransmit("file://con", worker.url(stream_id)) as publisher,
            ):
                player.take()
                await eventually(lambda: len(worker.sessions) == 2)
                publisher.feed(
                    data + numbered(7 * 100)
                )  # what follows pushes the data out of the tools' buffers
                await eventually(lambda: last in player.taken)
                await in_thread(publisher.end)
                await eventually(lambda: worker.arena.slot(0)["state"] == "idle")
                (session,) = worker.described()
                assert session["role"] == "read"
                assert worker.arena.slot(0)["ts_errors"] == 0
                await in_thread(player.end)
                await eventually(lambda: len(worker.sessions) == 0)
                # It came before the first byte, and got all from the first keyframe on, behind PAT and PMT.
                taken = player.taken[2 * 188 : player.taken.index(last) + PAYLOAD]
                assert data.endswith(taken)
                assert len(taken) > len(data) - 1000

    run(test)


def test_files_and_urls_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text.ts").write_text("no MPEG-TS " * 1000)
    url = "srt://127.0.0.1:9?streamid=publish:x"
    for path in (tmp_path / "none.ts", tmp_path / "text.ts"):
        with pytest.raises(FluxError, match=path.name) as caught:
            publish_file(path, url)
        assert caught.value.exit_code == 2
    with pytest.raises(FluxError, match="other direction"):
        publish_file(CLIP, "srt://127.0.0.1:9?streamid=read:x")


def test_nobody_listens() -> None:
    with bound_socket() as sock:
        port = sock.getsockname()[1]
    with pytest.raises(FluxError, match="connection refused"):
        play(f"srt://127.0.0.1:{port}?streamid=read:x", io.BytesIO())


def test_nobody_answers() -> None:
    with bound_socket() as sock, pytest.raises(FluxError, match="no answer within 300 ms"):
        play(f"srt://127.0.0.1:{sock.getsockname()[1]}?streamid=read:x&connect_timeout=300", io.BytesIO())

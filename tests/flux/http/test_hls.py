"""HLS against the whole service, with segments made by the segmenter."""

import asyncio
import socket

import httpx
import pytest

from tests.flux.http.rig import answer, head, rig, run, until


def sequences(playlist):
    return [int(line.rpartition("/")[2][:-3]) for line in playlist.splitlines() if line.endswith(".ts")]


@pytest.mark.parametrize(("path", "prefix"), [("/live/a/index.m3u8", ""), ("/live/a.m3u8", "a/")])
def test_the_first_viewer_starts_the_segmenter(path, prefix):
    async def main():
        async with rig() as r, httpx.AsyncClient() as client:
            stream = r.publish()
            stream.play(1)
            assert not stream.pump.running
            asking = asyncio.ensure_future(client.get(r.url + path))
            await until(lambda: r.counters.get("flux_http_requests_total") == 1)
            stream.play(2)
            response = await asking
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/vnd.apple.mpegurl"
            lines = response.text.splitlines()
            assert lines[0] == "#EXTM3U"
            segments = [line for line in lines if line.endswith(".ts")]
            assert segments
            assert all(line.startswith(prefix) for line in segments)
            segment = await client.get(httpx.URL(r.url + path).join(segments[0]))
            assert segment.status_code == 200
            assert segment.headers["content-type"] == "video/mp2t"
            assert segment.content == stream.segments.read(sequences(response.text)[0])
            (session,) = r.sessions.page()[0]
            assert session["protocol"] == "hls"
            assert session["bytes"] == len(response.content) + len(segment.content)
            assert r.arena.slot(stream.slot)["viewers"] == 1

    run(main)


def test_without_a_segment_in_time_it_is_503():
    async def main():
        async with rig(streams={"wait_ms": 100}) as r, httpx.AsyncClient() as client:
            r.publish()
            response = await client.get(r.url + "/live/a/index.m3u8")
            assert (response.status_code, response.json()["error"]) == (503, "no_segment")
            assert response.headers["retry-after"]
            response = await client.get(r.url + "/live/none/index.m3u8")
            assert (response.status_code, response.json()["error"]) == (404, "stream_not_found")

    run(main)


async def with_segments(r, gops=4, pkts=20):
    stream = r.publish()
    stream.segments.want(1 << 62)
    stream.play(gops, pkts)
    return stream


def first_sequence(stream):
    return stream.segments.snapshot()["segments"][0]["sequence"]


def test_a_playlist_goes_on_with_its_stream():
    async def main():
        async with rig() as r, httpx.AsyncClient() as client:
            stream = await with_segments(r, 3)
            first = sequences((await client.get(r.url + "/live/a/index.m3u8")).text)
            stream.play(2)
            second = sequences((await client.get(r.url + "/live/a/index.m3u8")).text)
            assert second == [*first, first[-1] + 1, first[-1] + 2]
            stream.play(10)
            third = sequences((await client.get(r.url + "/live/a/index.m3u8")).text)
            assert len(third) == r.config.hls.playlist_segments

    run(main)


@pytest.mark.parametrize(
    ("headers", "status", "part"),
    [
        ({}, 200, slice(None)),
        ({"Range": "bytes=0-99"}, 206, slice(0, 100)),
        ({"Range": "bytes=100-"}, 206, slice(100, None)),
        ({"Range": "bytes=-188"}, 206, slice(-188, None)),
        ({"Range": "bytes=0-0", "If-Range": '"other"'}, 200, slice(None)),
        ({"Range": "bytes=99999999-"}, 416, None),
        ({"If-None-Match": "*"}, 304, None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_segments_in_whole_and_in_part(method, headers, status, part):
    async def main():
        async with rig() as r, httpx.AsyncClient() as client:
            stream = await with_segments(r)
            sequence = stream.segments.snapshot()["segments"][1]["sequence"]
            whole = stream.segments.read(sequence)
            response = await client.request(method, f"{r.url}/live/a/{sequence}.ts", headers=headers)
            if method == "HEAD" and status in (206, 416):
                assert response.status_code == 200
                return
            assert response.status_code == status
            if status == 416:
                assert response.headers["content-range"] == f"bytes */{len(whole)}"
            elif part is not None:
                assert response.headers["content-length"] == str(len(whole[part]))
                assert response.headers["accept-ranges"] == "bytes"
                assert response.content == (whole[part] if method == "GET" else b"")
            if status == 206:
                first, last, _ = part.indices(len(whole))
                assert response.headers["content-range"] == f"bytes {first}-{last - 1}/{len(whole)}"
            again = await client.get(
                f"{r.url}/live/a/{sequence}.ts",
                headers={"Range": "bytes=1-2", "If-Range": response.headers.get("etag", "")},
            )
            assert again.content == whole[1:3]

    run(main)


def test_a_connection_is_kept_between_requests():
    async def main():
        async with rig() as r:
            stream = await with_segments(r)
            sequence = first_sequence(stream)
            reader, writer = await r.get(f"/live/a/{sequence}.ts")
            assert (await answer(reader))[2] == stream.segments.read(sequence)
            writer.write(b"GET /live/a/index.m3u8 HTTP/1.1\r\nHost: test\r\n\r\n" * 2)
            assert (await answer(reader))[0] == 200
            assert (await answer(reader))[0] == 200
            writer.write(b"GET /live/a/999.ts HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await answer(reader))[0] == 404
            assert r.counters.get("flux_http_connections_total") == 1

    run(main)


def test_a_number_is_a_segment_before_it_is_a_stream():
    async def main():
        async with rig(streams={"wait_ms": 50}) as r, httpx.AsyncClient() as client:
            sequence = first_sequence(await with_segments(r))
            hidden = r.publish(f"live/a/{sequence}")
            other = r.publish("live/a/777")
            for stream in (hidden, other):
                stream.append(stream.ts, b"ts of a stream", 1)
            response = await client.get(f"{r.url}/live/a/{sequence}.ts")
            assert "content-length" in response.headers
            reader, _ = await r.get("/live/a/777.ts")
            await head(reader)
            assert await reader.readexactly(14) == b"ts of a stream"
            gone = await client.get(r.url + "/live/a/888.ts")
            assert (gone.status_code, gone.json()["error"]) == (404, "not_found")
            none = await client.get(r.url + "/live/b/1.ts")
            assert (none.status_code, none.json()["error"]) == (404, "stream_not_found")

    run(main)


def test_a_large_segment_to_a_slow_client_arrives_whole():
    async def main():
        async with rig() as r:
            stream = await with_segments(r, 3, pkts=250)
            sequence = first_sequence(stream)
            whole = stream.segments.read(sequence)
            assert len(whole) > 150_000
            client = slow_socket(r)
            await ask(client, f"/live/a/{sequence}.ts")
            data = b""
            while len(data) < len(whole) or not data.endswith(whole[-200:]):
                data += await asyncio.get_running_loop().sock_recv(client, 5000)
            assert data.endswith(whole)
            assert data.count(b"HTTP/1.1 200") == 1
            await ask(client, "/live/a/index.m3u8")
            assert b"200 OK" in await asyncio.get_running_loop().sock_recv(client, 5000)
            client.close()

    run(main)


def slow_socket(r):
    r.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.connect(r.address)
    client.setblocking(False)
    return client


async def ask(client, path):
    await asyncio.get_running_loop().sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())


def test_a_segment_that_is_overwritten_under_a_slow_client_ends_the_connection():
    async def main():
        async with rig() as r:
            stream = await with_segments(r, 3, pkts=250)
            sequence = first_sequence(stream)
            whole = stream.segments.read(sequence)
            client = slow_socket(r)
            await ask(client, f"/live/a/{sequence}.ts")
            await until(lambda: r.counters.get("flux_http_segments_total") == 1)
            stream.play(20, pkts=250)
            assert stream.segments.segment(sequence) is None
            data = b""
            while more := await asyncio.get_running_loop().sock_recv(client, 5000):
                data += more
            body = data.partition(b"\r\n\r\n")[2]
            assert len(body) < len(whole)
            assert r.counters.get("flux_http_segments_lapped_total") == 1
            client.close()

    run(main)


def test_a_client_that_takes_no_byte_of_a_segment_is_given_up():
    async def main():
        async with rig(http={"slow_player_ms": 200}) as r:
            stream = await with_segments(r, 3, pkts=250)
            sequence = first_sequence(stream)
            client = slow_socket(r)
            await ask(client, f"/live/a/{sequence}.ts")
            await until(lambda: r.counters.get("flux_fanout_segments_stalled_total") == 1)
            await until(lambda: r.counters.get("flux_http_open") == 0)
            client.close()

    run(main)


def test_closing_with_a_segment_under_way():
    async def main():
        async with rig() as r:
            stream = await with_segments(r, 3, pkts=250)
            sequence = first_sequence(stream)
            client = slow_socket(r)
            await ask(client, f"/live/a/{sequence}.ts")
            await until(lambda: r.counters.get("flux_http_segments_total") == 1)
            await r.service.close()
            assert r.counters.get("flux_http_open") == 0
            client.close()

    run(main)


def test_viewers_are_told_apart_and_time_out():
    async def main():
        async with rig(hls={"viewer_timeout_ms": 300, "max_viewers": 2}) as r, httpx.AsyncClient() as client:
            stream = await with_segments(r)
            for agent in ("one", "two", "one", "three"):
                await client.get(r.url + "/live/a/index.m3u8", headers={"User-Agent": agent})
            assert len(r.sessions) == 2
            assert r.counters.get("flux_http_hls_viewers") == 2
            assert r.counters.get("flux_http_hls_untracked_total") == 1
            assert r.arena.slot(stream.slot)["viewers"] == 2
            await until(lambda: len(r.sessions) == 0)
            assert r.arena.slot(stream.slot)["viewers"] == 0
            assert r.counters.get("flux_http_hls_viewers") == 0

    run(main)


def test_a_viewer_that_is_kicked_stays_away_for_a_while():
    async def main():
        async with rig(hls={"viewer_timeout_ms": 300}) as r, httpx.AsyncClient() as client:
            await with_segments(r)
            await client.get(r.url + "/live/a/index.m3u8")
            assert r.sessions.kick(r.sessions.page()[0][0]["id"])
            assert len(r.sessions) == 0
            response = await client.get(r.url + "/live/a/index.m3u8")
            assert (response.status_code, response.json()["error"]) == (403, "kicked")
            await until(lambda: r.counters.get("flux_http_hls_viewers") == 0)
            assert (await client.get(r.url + "/live/a/index.m3u8")).status_code == 200

    run(main)


def test_a_stream_that_was_given_up_has_no_segments():
    async def main():
        async with rig(streams={"wait_ms": 50}) as r, httpx.AsyncClient() as client:
            stream = await with_segments(r)
            url = f"{r.url}/live/a/{first_sequence(stream)}.ts"
            assert (await client.get(url)).status_code == 200
            stream.die()
            assert (await client.get(url)).status_code == 404
            assert (await client.get(r.url + "/live/a/index.m3u8")).status_code == 404
            again = r.publish()
            again.segments.want(1 << 62)
            again.play(3)
            assert (await client.get(r.url + "/live/a/index.m3u8")).status_code == 200
            assert r.arena.slot(again.slot)["viewers"] == 1

    run(main)

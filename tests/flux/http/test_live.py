"""Live players against the whole service."""

import asyncio
import json

import httpx
import pytest
import websockets

from tests.flux.http.rig import KEY, answer, head, rig, run, until

HEADER = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"


def sessions(r):
    return r.sessions.page()[0]


@pytest.mark.parametrize(
    ("path", "ring", "kind", "protocol"),
    [("/live/a.flv", "flv", "video/x-flv", "http-flv"), ("/live/a.ts", "ts", "video/mp2t", "http-ts")],
)
def test_a_player_gets_the_stream_as_it_grows(path, ring, kind, protocol):
    async def main():
        async with rig() as r:
            stream = r.publish()
            getattr(stream, ring).set_header(b"header:")
            stream.append(getattr(stream, ring), b"key", KEY)
            reader, writer = await r.get(path)
            status, headers = await head(reader)
            assert status == 200
            assert headers["content-type"] == kind
            assert headers["connection"] == "close"
            assert headers["access-control-allow-origin"] == "*"
            assert "content-length" not in headers
            assert await reader.readexactly(10) == b"header:key"
            stream.append(getattr(stream, ring), b"more")
            assert await reader.readexactly(4) == b"more"
            (session,) = sessions(r)
            assert session["protocol"] == protocol
            assert (session["stream"], session["role"], session["bytes"], session["lag_bytes"]) == (
                "live/a",
                "read",
                7,
                0,
            )
            assert r.counters.get("flux_http_open") == 1
            writer.close()
            await until(lambda: not sessions(r))
            await until(lambda: r.counters.get("flux_http_open") == 0)
            assert r.counters.get(f"flux_http_live_{ring}_total") == 1

    run(main)


@pytest.mark.parametrize("path", ["/live/a.flv", "/live/a.ts"])
def test_a_websocket_player_gets_messages(path):
    async def main():
        async with rig() as r:
            stream = r.publish()
            for ring in (stream.flv, stream.ts):
                ring.set_header(b"header:")
                stream.append(ring, b"key", KEY)
            async with websockets.connect(f"ws://127.0.0.1:{r.address[1]}{path}") as client:
                assert [await client.recv(), await client.recv()] == [b"header:", b"key"]
                for ring in (stream.flv, stream.ts):
                    stream.append(ring, b"more")
                assert await client.recv() == b"more"
                await (await client.ping(b"there?"))
                assert sessions(r)[0]["protocol"] == f"ws-{path[-3:].strip('.')}"
            await until(lambda: not sessions(r))
            assert r.counters.get("flux_http_answers_1xx_total") == 1

    run(main)


def test_a_player_waits_for_its_publisher():
    async def main():
        async with rig() as r:
            reader, _ = await r.get("/live/late.flv")
            await until(lambda: r.counters.get("flux_worker_waits_total") == 1)
            stream = r.publish("live/late")
            stream.append(stream.flv, b"key", KEY)
            assert (await head(reader))[0] == 200
            assert await reader.readexactly(3) == b"key"

    run(main)


def test_a_player_whose_publisher_does_not_come_is_told_so():
    async def main():
        async with rig(streams={"wait_ms": 50}) as r:
            reader, writer = await r.get("/live/never.flv")
            status, headers, body = await answer(reader)
            assert status == 404
            assert json.loads(body)["error"] == "stream_not_found"
            assert headers["connection"] == "keep-alive"
            writer.write(b"GET /live/never.ts HTTP/1.1\r\nHost: test\r\n\r\n")
            assert (await answer(reader))[0] == 404

    run(main)


def test_a_player_that_leaves_while_it_waits_is_noticed():
    async def main():
        async with rig(streams={"wait_ms": 60_000}) as r:
            _, writer = await r.get("/live/never.flv")
            await until(lambda: r.counters.get("flux_worker_waits_total") == 1)
            writer.close()
            await until(lambda: r.counters.get("flux_http_lost_total") == 1)
            await until(lambda: r.counters.get("flux_http_open") == 0)

    run(main)


def test_only_so_many_wait():
    async def main():
        async with rig(streams={"wait_ms": 60_000, "max_waiting": 1}) as r:
            await r.get("/live/never.flv")
            await until(lambda: r.counters.get("flux_worker_waits_total") == 1)
            reader, _ = await r.get("/live/never.flv")
            status, headers, body = await answer(reader)
            assert (status, json.loads(body)["error"]) == (503, "too_many_waiting")
            assert "retry-after" in headers

    run(main)


def test_a_player_of_an_idle_stream_is_held_until_the_publisher_is_back():
    async def main():
        async with rig() as r:
            stream = r.publish()
            stream.flv.active = False
            r.arena.go_idle(stream.slot, 1)
            reader, _ = await r.get("/live/a.flv")
            assert (await head(reader))[0] == 200
            assert sessions(r)
            again, generation = r.arena.claim("live/a", 1)
            assert (again, generation) == (stream.slot, stream.generation)
            r.arena.go_live(again, 2)
            stream.flv.active = True
            stream.append(stream.flv, b"key", KEY)
            assert await reader.readexactly(3) == b"key"

    run(main)


def test_a_stream_that_is_given_up_ends_its_players():
    async def main():
        async with rig() as r:
            stream = r.publish()
            stream.append(stream.flv, b"key", KEY)
            reader, _ = await r.get("/live/a.flv")
            await head(reader)
            stream.die()
            assert await reader.read() == b"key"
            await until(lambda: not sessions(r))

    run(main)


def test_a_session_is_kicked():
    async def main():
        async with rig() as r:
            r.publish()
            reader, _ = await r.get("/live/a.flv")
            await head(reader)
            assert r.sessions.kick(sessions(r)[0]["id"])
            assert await reader.read() == b""
            await until(lambda: not sessions(r))
            assert r.counters.get("flux_fanout_closed_kicked_total") == 1

    run(main)


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/live/a", 404, "not_found"),
        ("GET", "/favicon.ico", 404, "not_found"),
        ("GET", "/live/a%20b.flv", 400, "bad_stream_name"),
        ("GET", "/live//a.ts", 400, "bad_stream_name"),
        ("GET", "/live/../a.flv", 400, "bad_stream_name"),
        ("HEAD", "/live/none.flv", 404, None),
        ("POST", "/live/a.flv", 405, "method_not_allowed"),
        ("DELETE", "/live/a/index.m3u8", 405, "method_not_allowed"),
    ],
)
def test_refusals(method, path, status, error):
    async def main():
        async with rig(), asyncio.timeout(5):
            pass
        async with rig() as r:
            reader, _ = await r.get(path, method=method)
            got, headers = await head(reader)
            assert got == status
            assert headers["access-control-allow-origin"] == "*"
            if error:
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                assert (body["error"], body["status"]) == (error, status)
                assert body["cure"]
            if status == 405:
                assert headers["allow"] == "GET, HEAD, OPTIONS"

    run(main)


def test_the_root_tells_the_addresses():
    async def main():
        async with rig() as r, httpx.AsyncClient() as client:
            response = await client.get(r.url + "/")
            assert response.status_code == 404
            assert "index.m3u8" in response.json()["cure"]

    run(main)


def test_head_and_options():
    async def main():
        async with rig() as r, httpx.AsyncClient() as client:
            r.publish()
            response = await client.head(r.url + "/live/a.flv")
            assert (response.status_code, response.headers["content-type"]) == (200, "video/x-flv")
            response = await client.options(r.url + "/live/a.flv")
            assert response.status_code == 204
            assert response.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
            assert not sessions(r)

    run(main)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Sec-WebSocket-Version: 12", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 426),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"), 400),
        (("Sec-WebSocket-Version: 13",), 400),
    ],
)
def test_a_bad_websocket_handshake_is_refused(headers, status):
    async def main():
        async with rig() as r:
            r.publish()
            reader, _ = await r.get("/live/a.flv", "Connection: Upgrade", "Upgrade: websocket", *headers)
            assert (await answer(reader))[0] == status
            assert await reader.read() == b""

    run(main)


def test_draining_keeps_players_and_takes_nobody_new():
    async def main():
        async with rig() as r:
            stream = r.publish()
            stream.append(stream.flv, b"key", KEY)
            player, _ = await r.get("/live/a.flv")
            await head(player)
            idle, _ = await r.get("/")
            await answer(idle)
            r.service.stop_accepting()
            assert await idle.read() == b""
            stream.append(stream.flv, b"more")
            assert await player.readexactly(7) == b"keymore"
            await r.service.close()
            assert await player.read() == b""
            assert not sessions(r)

    run(main)


def test_connections_over_the_limit_are_told_so():
    async def main():
        async with rig(http={"max_connections": 2, "write_interval_ms": 0}) as r:
            r.publish()
            for _ in range(2):
                reader, _ = await r.get("/live/a.flv")
                await head(reader)
            reader, _ = await r.get("/live/a.flv")
            status, _, body = await answer(reader)
            assert (status, json.loads(body)["error"]) == (503, "too_many_connections")
            assert r.counters.get("flux_http_refused_total") == 1

    run(main)


def test_reconfiguring_takes_over_the_write_interval():
    async def main():
        async with rig(http={"write_interval_ms": 10_000}) as r:
            stream = r.publish()
            stream.append(stream.flv, b"key", KEY)
            reader, _ = await r.get("/live/a.flv")
            await head(reader)
            config = r.config.model_copy(
                update={"http": r.config.http.model_copy(update={"write_interval_ms": 0})}
            )
            r.service.reconfigure(config)
            stream.append(stream.flv, b"1")
            assert await asyncio.wait_for(reader.readexactly(4), 5) == b"key1"

    run(main)

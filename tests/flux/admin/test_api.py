from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flux.cext.arena import Arena
from starlette.routing import Mount, Route

from flux.admin.api import PREFIX, Api
from flux.admin.app import WEB, create_app
from flux.admin.control import Control
from flux.admin.openapi import document
from flux.admin.views import stream_view, unready
from flux.config.schema import AdminSettings, Config
from tests.flux.control_fake import FakeControl, process, relay, session, status, stream

HERE = "http://127.0.0.1:8081"


def kick(session: str) -> dict[str, Any] | Exception:
    return {"kicked": 1} if session == "w0-000002" else RuntimeError("there is none")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeControl]:
    answers = {
        "status": status(),
        "streams": {"streams": [stream("live/b"), stream("live/a", "idle", bitrate_bps=None, fps=None)]},
        "sessions": {"sessions": [session("w0-000001", role="publish"), session("w0-000002")]},
        "relays": {"relays": [relay("in"), relay("out", direction="push")]},
        "stats": {"counters": {"flux_http_open": 3}, "processes": {"worker 0": {"flux_http_open": 3}}},
        "kick": kick,
    }
    with FakeControl(tmp_path / "control.sock", answers) as server:
        yield server


@pytest.fixture
def arena() -> Iterator[Arena]:
    made = Arena.create(slots=4, hls_bytes=1 << 20)
    made.join(1)
    slot, _ = made.claim("live/b", 1)
    made.go_live(slot, 7)
    yield made
    made.close()


@asynccontextmanager
async def client(
    fake: FakeControl, arena: Arena, loopback: bool = True, hosts: tuple[str, ...] = (), base: str = HERE
) -> AsyncIterator[httpx.AsyncClient]:
    config = Config(admin=AdminSettings(hosts=hosts))
    app = create_app(arena, config, Control(fake.path, keep_s=0), loopback=loopback)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=base) as made:
        yield made


def ask(
    fake: FakeControl,
    arena: Arena,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> httpx.Response:
    async def run() -> httpx.Response:
        async with client(fake, arena, **options) as made:
            return await made.request(method, path, headers=headers)

    return asyncio.run(run())


def test_streams(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/api/v1/streams")
    assert answer.status_code == 200
    idle, live = answer.json()["streams"]
    assert (idle["name"], idle["state"], idle["uptime_s"], idle["bitrate_bps"]) == (
        "live/a",
        "idle",
        None,
        None,
    )
    assert (live["name"], live["viewers"], live["bitrate_bps"]) == ("live/b", 3, 2_050_000.0)
    assert live["uptime_s"] > 0
    assert [track["codec"] for track in live["tracks"]] == ["H264", "AAC"]
    assert live["play"] == {
        "flv": "http://127.0.0.1:8080/live/b.flv",
        "ws_flv": "ws://127.0.0.1:8080/live/b.flv",
        "ts": "http://127.0.0.1:8080/live/b.ts",
        "hls": "http://127.0.0.1:8080/live/b/index.m3u8",
        "srt": "srt://127.0.0.1:8890?streamid=read:live/b",
    }
    assert "rings" not in live


def test_slots_that_are_no_streams_yet_are_left_out(fake: FakeControl, arena: Arena) -> None:
    fake.answers["streams"] = {"streams": [stream("live/x", "claimed")]}
    assert ask(fake, arena, "GET", "/api/v1/streams").json() == {"streams": []}


def test_one_stream(fake: FakeControl, arena: Arena) -> None:
    assert ask(fake, arena, "GET", "/api/v1/streams/live/b").json()["name"] == "live/b"
    missing = ask(fake, arena, "GET", "/api/v1/streams/live/c")
    assert missing.status_code == 404
    assert missing.json()["error"] == "stream_not_found"
    assert "live/c" in missing.json()["message"]
    assert missing.json()["cure"]


def test_sessions(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/api/v1/sessions?stream=live/a&limit=1&offset=1").json()
    assert answer["total"] == 2
    assert [found["id"] for found in answer["sessions"]] == ["w0-000002"]
    assert fake.calls[-1] == ("sessions", {"stream": "live/a"})


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "offset=9999999999999999999", "limit=10001"])
def test_bad_numbers(fake: FakeControl, arena: Arena, query: str) -> None:
    answer = ask(fake, arena, "GET", f"/api/v1/sessions?{query}")
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_status_and_stats(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/api/v1/status").json()
    assert answer["state"] == "running"
    assert answer["publish"] == {"srt": "srt://127.0.0.1:8890?streamid=publish:live/cam1"}
    assert ask(fake, arena, "GET", "/api/v1/stats").json()["counters"] == {"flux_http_open": 3}


def test_kick(fake: FakeControl, arena: Arena) -> None:
    header = {"X-Flux-Request": "1"}
    answer = ask(fake, arena, "DELETE", "/api/v1/sessions/w0-000002", header)
    assert (answer.status_code, answer.json()) == (200, {"kicked": 1})
    assert fake.calls[-1] == ("kick", {"session": "w0-000002"})
    missing = ask(fake, arena, "DELETE", "/api/v1/sessions/w0-000009", header)
    assert (missing.status_code, missing.json()["error"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Content-Type": "text/plain"}, 403),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"X-Flux-Request": "1"}, 200),
        ({"Origin": "http://127.0.0.1:8081"}, 200),
        ({"Origin": "http://127.0.0.1:9000", "X-Flux-Request": "1"}, 403),
        ({"Origin": "http://evil.example", "X-Flux-Request": "1"}, 403),
        ({"Origin": "null", "X-Flux-Request": "1"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "X-Flux-Request": "1"}, 403),
    ],
)
def test_changes_come_from_here(
    fake: FakeControl, arena: Arena, headers: dict[str, str], status: int
) -> None:
    answer = ask(fake, arena, "DELETE", "/api/v1/sessions/w0-000002", headers)
    assert answer.status_code == status
    assert (fake.calls[-1:] == [("kick", {"session": "w0-000002"})]) == (status == 200)


@pytest.mark.parametrize(
    ("host", "loopback", "hosts", "status"),
    [
        ("127.0.0.1:8081", True, (), 200),
        ("127.8.8.8", True, (), 200),
        ("localhost:1234", True, (), 200),
        ("LocalHost", True, (), 200),
        ("flux.localhost", True, (), 200),
        ("[::1]:8081", True, (), 200),
        ("evil.example", True, (), 403),
        ("127.0.0.1.evil.example", True, (), 403),
        ("192.0.2.1:8081", True, (), 403),
        ("flux.example", True, ("flux.example",), 200),
        ("192.0.2.1:8081", False, (), 200),
        ("flux.example:8081", False, (), 200),
        ("evil.example", False, ("flux.example",), 403),
        ("192.0.2.1", False, ("flux.example",), 200),
        ("a b", True, (), 400),
        ("user@127.0.0.1", True, (), 400),
        ("", True, (), 400),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/streams", "/metrics"])
def test_names_of_this_server(
    fake: FakeControl, arena: Arena, path: str, host: str, loopback: bool, hosts: tuple[str, ...], status: int
) -> None:
    answer = ask(fake, arena, "GET", path, {"Host": host}, loopback=loopback, hosts=hosts)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"] in ("host_refused", "bad_host")


def test_no_page_of_another_site_may_read(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/api/v1/streams", {"Origin": "http://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"


def test_the_page_and_its_policy(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self' http://127.0.0.1:8080 ws://127.0.0.1:8080" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_has_nothing_inline_and_all_its_files(fake: FakeControl, arena: Arena) -> None:
    page = (WEB / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", page)
    scripts = "".join(path.read_text() for path in sorted(WEB.glob("*.js")))
    named = re.findall(r'(?:src|href)="([^"#/][^"]*)"', page) + re.findall(
        r'"(?:\./)?([\w./-]+\.js)"', scripts
    )
    assert "vendor/mpegts.js" in named
    for name in {*named, "vendor/LICENSE.mpegts.js", "vendor/LICENSE.hls.js"}:
        assert ask(fake, arena, "GET", f"/{name}").status_code == 200, name


def test_ids_that_scripts_use_are_in_the_page() -> None:
    page = (WEB / "index.html").read_text()
    scripts = "".join(path.read_text() for path in sorted(WEB.glob("*.js")))
    used = set(re.findall(r'\$\("([\w-]+)"\)', scripts))
    assert len(used) > 10
    assert used <= set(re.findall(r'id="([\w-]+)"', page))


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/nothing.js", 404, "not_found"),
        ("GET", "/../../etc/passwd", 404, "not_found"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404, "not_found"),
        ("GET", "/api/v1/sessions/w0-000001", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/streams", 405, "method_not_allowed"),
    ],
)
def test_wrong_addresses(
    fake: FakeControl, arena: Arena, method: str, path: str, status: int, error: str
) -> None:
    answer = ask(fake, arena, method, path, {"X-Flux-Request": "1"})
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["cure"]


def test_health_and_readiness(fake: FakeControl, arena: Arena) -> None:
    assert ask(fake, arena, "GET", "/healthz").text == "ok\n"
    assert ask(fake, arena, "GET", "/readyz").status_code == 200
    fake.answers["status"] = status("draining")
    answer = ask(fake, arena, "GET", "/readyz")
    assert (answer.status_code, answer.text) == (503, "the server is draining\n")
    fake.answers["status"] = status(processes=[process("worker 0", "waiting"), process("admin")])
    answer = ask(fake, arena, "GET", "/readyz")
    assert (answer.status_code, answer.text) == (503, "not running: worker 0\n")


def test_without_a_supervisor(tmp_path: Path, fake: FakeControl, arena: Arena) -> None:
    fake.path = str(tmp_path / "nothing.sock")
    answer = ask(fake, arena, "GET", "/api/v1/streams")
    assert (answer.status_code, answer.json()["error"]) == (503, "control_failed")
    assert answer.headers["retry-after"]
    assert ask(fake, arena, "GET", "/healthz").status_code == 200
    assert ask(fake, arena, "GET", "/readyz").status_code == 503
    assert ask(fake, arena, "GET", "/").status_code == 200
    assert "flux_arena_slots 4.0" in ask(fake, arena, "GET", "/metrics").text


def test_relays(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/api/v1/relays").json()
    assert [one["name"] for one in answer["relays"]] == ["in", "out"]
    assert answer["relays"][0]["last_error"].startswith("the passphrase is wrong")


def test_metrics(fake: FakeControl, arena: Arena) -> None:
    answer = ask(fake, arena, "GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert 'flux_stream_bitrate_bps{stream="live/b"} 2.05e+06' in lines
    assert 'flux_stream_live{stream="live/b"} 1.0' in lines


def test_openapi_describes_every_route(fake: FakeControl, arena: Arena) -> None:
    described = {
        (path, method.upper())
        for path, item in document()["paths"].items()
        for method in item
        if method != "head"
    }
    top = Api(Control("", 0), arena).routes()
    inner = [(PREFIX, route) for mount in top if isinstance(mount, Mount) for route in mount.routes]
    routes = {
        (prefix + re.sub(r":\w+}", "}", route.path), method)
        for prefix, route in [*inner, *(("", route) for route in top)]
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert described == routes
    assert ask(fake, arena, "GET", "/api/v1/openapi.json").json() == document()


def _check(value: Any, schema: dict[str, Any], at: str) -> None:
    """Enough of JSON Schema for the description of the API."""
    if "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        assert value in schema["enum"], at
    kinds: dict[str, Callable[[Any], bool]] = {
        "string": lambda v: isinstance(v, str),
        "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
        "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
        "object": lambda v: isinstance(v, dict),
        "array": lambda v: isinstance(v, list),
        "null": lambda v: v is None,
    }
    wanted = schema.get("type", [])
    names = [wanted] if isinstance(wanted, str) else wanted
    assert not names or any(kinds[name](value) for name in names), f"{at}: {value!r} is no {wanted}"
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= value.keys(), at
        for key, part in value.items():
            inner = schema.get("properties", {}).get(key) or schema.get("additionalProperties")
            assert inner is not None or "properties" not in schema, f"{at}.{key} is not described"
            if inner:
                _check(part, inner, f"{at}.{key}")
    if isinstance(value, list):
        for number, part in enumerate(value):
            _check(part, schema["items"], f"{at}[{number}]")


@pytest.mark.parametrize(
    ("path", "described"),
    [
        ("/api/v1/status", "/api/v1/status"),
        ("/api/v1/stats", "/api/v1/stats"),
        ("/api/v1/streams", "/api/v1/streams"),
        ("/api/v1/streams/live/a", "/api/v1/streams/{name}"),
        ("/api/v1/sessions", "/api/v1/sessions"),
        ("/api/v1/relays", "/api/v1/relays"),
    ],
)
def test_answers_are_as_described(fake: FakeControl, arena: Arena, path: str, described: str) -> None:
    content = document()["paths"][described]["get"]["responses"]["200"]["content"]["application/json"]
    _check(ask(fake, arena, "GET", path).json(), content["schema"], path)


def test_many_pages_cost_one_call(fake: FakeControl) -> None:
    async def run() -> list[dict[str, Any]]:
        control = Control(fake.path, keep_s=60)
        return await asyncio.gather(*(control.read("status") for _ in range(50)))

    answers = asyncio.run(run())
    assert len(answers) == 50
    assert fake.calls == [("status", {})]


def test_a_view_of_a_stream_without_tracks() -> None:
    view = stream_view(stream("a", "idle", tracks=[], since=None), "10.0.0.1", status()["listeners"])
    assert view["tracks"] == []
    assert view["uptime_s"] is None
    assert view["play"]["srt"] == "srt://10.0.0.1:8890?streamid=read:a"


def test_unready() -> None:
    assert unready(status()) == ""
    assert unready(status("starting")) == "the server is starting"

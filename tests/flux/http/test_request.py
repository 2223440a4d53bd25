import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.http.errors import HttpError
from flux.http.request import K_MAX_BODY_BYTES, RequestParser, split_target

HOST = b"Host: h\r\n"


def parse(data: bytes, step: int = 0, **options):
    parser = RequestParser(**options)
    out = []
    for at in range(0, len(data), step or len(data)):
        parser.feed(data[at : at + (step or len(data))])
        try:
            while (request := parser.take()) is not None:
                out.append(request)
        except HttpError as error:
            out.append(error)
            break
    return out


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/a", True)]),
        (b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", [("GET", "/a", False)]),
        (b"GET /a HTTP/1.0\r\n\r\n", [("GET", "/a", False)]),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [("GET", "/a", True)]),
        (b"HEAD http://h/live/x.flv?t=1 HTTP/1.1\r\n" + HOST + b"\r\n", [("HEAD", "/live/x.flv", True)]),
        (b"GET /l%69ve HTTP/1.1\r\n" + HOST + b"\r\n", [("GET", "/live", True)]),
        (
            b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nGET /b HTTP/1.1\r\n" + HOST + b"\r\n",
            [("GET", "/a", True), ("GET", "/b", True)],
        ),
        (
            b"POST /a HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n"
            + HOST
            + b"\r\n",
            [("POST", "/a", True), ("GET", "/b", True)],
        ),
        (
            b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\nGET /b HTTP/1.1\r\n" + HOST + b"\r\n",
            [("GET", "/a", False)],
        ),
        (
            b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n",
            [("GET", "/a", True), ("GET", "/b", True)],
        ),
        (b"GARBAGE\r\n\r\n", [400]),
        (b"GET /a HTTP/1.1\r\n\r\n", [400]),
        (b"GET /a HTTP/1.1\r\n" + HOST + HOST + b"\r\n", [400]),
        (b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n", [400]),
        (b"GET /a HTTP/1.1\r\n" + HOST + b"\r\nGARBAGE\r\n\r\n", [("GET", "/a", True), 400]),
        (b"GET /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", [400]),
        (b"GET /a HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 20000 + b"\r\n\r\n", [431]),
        (b"GET /" + b"y" * 20000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", [431]),
        (b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 99999\r\n\r\n", [413]),
        (
            b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5000\r\n" + b"z" * 0x5000,
            [413],
        ),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_requests_and_errors_come_in_order_however_the_bytes_are_cut(data, expected, step):
    out = parse(data, step)
    assert [
        item.status if isinstance(item, HttpError) else (item.method, item.path, item.keep_alive)
        for item in out
    ] == expected


def test_upgrade_to_websocket_ends_the_http_part():
    head = (
        b"GET /a.flv HTTP/1.1\r\n" + HOST + b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    (request,) = parse(head + b"\x81\x80....")
    assert request.upgrade
    assert not request.keep_alive


def test_repeated_headers_are_joined():
    (request,) = parse(b"GET / HTTP/1.1\r\n" + HOST + b"Accept: a\r\nAccept: b\r\n\r\n")
    assert request.header("accept") == "a, b"
    assert request.header("absent") == ""


def test_in_request_tells_a_head_under_way_from_an_idle_connection():
    parser = RequestParser()
    assert not parser.in_request
    parser.feed(b"GET / HTTP/1.1\r\n")
    assert parser.in_request
    parser.feed(HOST + b"\r\n")
    assert not parser.in_request


def test_head_limit_is_the_configured_one():
    data = b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 300 + b"\r\n\r\n"
    assert parse(data, max_header_bytes=256)[0].status == 431
    assert parse(data, max_header_bytes=512)[0].path == "/"


def test_body_limit_is_inclusive():
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % K_MAX_BODY_BYTES
    assert parse(head + b"z" * K_MAX_BODY_BYTES)[0].method == "POST"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a/b?c=d", ("/a/b", "c=d")),
        (b"http://host:80/a?x", ("/a", "x")),
        (b"http://host", ("/", "")),
        (b"*", ("/*", "")),
        (b"/a%2Fb", ("/a/b", "")),
        (b"/%ff", ("/�", "")),
    ],
)
def test_targets_are_split(target, expected):
    assert split_target(target) == expected


@given(st.binary(max_size=2000), st.integers(1, 64))
def test_any_bytes_give_requests_or_one_error(data, step):
    out = parse(data, step)
    assert all(not isinstance(item, HttpError) for item in out[:-1])

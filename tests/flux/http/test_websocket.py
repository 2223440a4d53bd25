import pytest

from flux.http.errors import HttpError
from flux.http.request import Request
from flux.http.websocket import accept_key, check_handshake

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455, 1.3


def request(method="GET", **headers):
    base = {"sec-websocket-version": "13", "sec-websocket-key": KEY, "upgrade": "websocket"}
    base |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, "/a.flv", "/a.flv", "", "1.1", base, False, True)


def test_the_rfc_example():
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert check_handshake(request(), "*") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("made", "origin", "status"),
    [
        (request(method="POST"), "*", 400),
        (request(sec_websocket_version="8"), "*", 426),
        (request(sec_websocket_key=""), "*", 400),
        (request(sec_websocket_key="c2hvcnQ="), "*", 400),
        (request(sec_websocket_key="!!!"), "*", 400),
        (request(origin="https://evil"), "https://good", 403),
    ],
)
def test_bad_handshakes_are_refused(made, origin, status):
    with pytest.raises(HttpError) as caught:
        check_handshake(made, origin)
    assert caught.value.status == status
    assert caught.value.cure


@pytest.mark.parametrize("origin", ["https://good", "*"])
def test_the_allowed_page_is_let_in(origin):
    assert check_handshake(request(origin="https://good"), origin)

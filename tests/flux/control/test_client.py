from __future__ import annotations

import socket
import threading

import pytest

from flux.control.client import ControlClient
from flux.errors import ControlError


def answering(tmp_path, answer):
    """A program at a socket that answers any line with those bytes, and ends."""
    path = str(tmp_path / "control.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def serve():
        with listener, listener.accept()[0] as sock:
            sock.recv(65536)
            sock.sendall(answer)

    threading.Thread(target=serve).start()
    return path


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no", "data": {"cure": "do"}}}\n',
            "no; do",
        ),
        (b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -1, "message": "no"}}\n', "no"),
        (
            b"HTTP/1.1 400 Bad Request\r\n",
            "what answers at {path} is no Flux; look which program made that socket",
        ),
        (b"[]\n", "what answers at {path} is no Flux; look which program made that socket"),
        (
            b'{"jsonrpc": "2.0", "id": 1, "result": 3}\n',
            "what answers at {path} is no Flux; look which program",
        ),
        (b"", "Flux at {path} closed the connection before it answered; look at its log"),
        (b"{", "Flux at {path} closed the connection before it answered; look at its log"),
    ],
)
def test_answers_that_are_none(tmp_path, answer, says):
    path = answering(tmp_path, answer)
    with pytest.raises(ControlError) as caught:
        ControlClient(path).call("status")
    assert str(caught.value).startswith(says.format(path=path))
    assert caught.value.exit_code == 1


def test_nobody_there(tmp_path):
    path = str(tmp_path / "control.sock")
    says = f"no Flux is running at {path}; start one with `flux serve`"
    with pytest.raises(ControlError) as caught:
        ControlClient(path).call("status")
    assert str(caught.value) == says
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with pytest.raises(ControlError) as caught:
        ControlClient(path).call("status")
    assert str(caught.value) == says


def test_no_answer_in_time(tmp_path):
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(ControlError, match=r"did not answer in 0\.05 s; look at its log"):
            ControlClient(path, timeout_s=0.05).call("status")

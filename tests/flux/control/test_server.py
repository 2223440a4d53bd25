from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import stat
import threading
import time

import pytest
from flux.cext.arena import Arena

from flux.control import path as control_path
from flux.control.client import ControlClient
from flux.errors import ControlError, UserError
from flux.observe.counters import Counters
from flux.supervisor import control
from flux.supervisor.control import CallError, ControlServer


class Server:
    """A control server on a thread of its own; `held` are replies that a test gives by itself."""

    def __init__(self, path, max_clients=8):
        self.arena = Arena.create(slots=1, hls_bytes=1 << 20, processes=1)
        self.arena.join(0)
        self.counters = Counters(self.arena.my_counters)
        self.selector = selectors.DefaultSelector()
        self.held = []
        self.server = ControlServer(str(path), self.selector, self.counters, max_clients, self.dispatch)
        self.path = self.server.path
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.running:
            for key, events in self.selector.select(0.02):
                if key.fd in self.selector.get_map():
                    key.data(events)

    def dispatch(self, method, params, reply):
        if method == "echo":
            reply(params)
        elif method == "large":
            reply({"text": "x" * params["bytes"]})
        elif method == "hold":
            self.held.append(reply)
        elif method == "release":
            for number, held in enumerate(self.held):
                held({"number": number})
            reply({})
        else:
            reply(CallError(f"there is no method {method}", "try another", control.METHOD_NOT_FOUND))

    def close(self):
        if not self.running:
            return
        self.running = False
        self.thread.join()
        self.server.close()
        self.selector.close()
        self.arena.close()


@pytest.fixture
def serve():
    """Makes servers that end with the test."""
    servers = []

    def serve(*args, **options):
        servers.append(Server(*args, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def server(serve, tmp_path):
    return serve(tmp_path / "control.sock")


class Peer:
    """A client that sends what it likes."""

    def __init__(self, server):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(server.path)
        self.file = self.sock.makefile("rb")

    def send(self, *lines):
        for line in lines:
            self.sock.sendall((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")

    def read(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def close(self):
        self.file.close()
        self.sock.close()


@pytest.fixture
def peer(server):
    peer = Peer(server)
    yield peer
    peer.close()


def test_calls_are_answered(server):
    assert ControlClient(server.path).call("echo", a=1, b="ü") == {"a": 1, "b": "ü"}
    assert server.counters.get("flux_control_calls_total") == 1


def test_only_its_owner_may_use_the_socket(server):
    assert stat.S_IMODE(os.stat(server.path).st_mode) == 0o600


def test_a_large_answer_comes_whole(server):
    assert len(ControlClient(server.path).call("large", bytes=5_000_000)["text"]) == 5_000_000


def test_several_calls_may_be_under_way(peer):
    peer.send(
        {"jsonrpc": "2.0", "id": "a", "method": "hold"},
        {"jsonrpc": "2.0", "id": "b", "method": "hold", "params": {}},
        {"jsonrpc": "2.0", "id": 7, "method": "echo", "params": {"x": 1}},
        {"jsonrpc": "2.0", "id": None, "method": "release"},
    )
    answers = [peer.read() for _ in range(4)]
    assert [(a["id"], a["result"]) for a in answers] == [
        (7, {"x": 1}),
        ("a", {"number": 0}),
        ("b", {"number": 1}),
        (None, {}),
    ]


def test_a_line_may_come_in_pieces_and_lines_together(peer):
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "echo"}).encode()
    for byte in line:
        peer.sock.sendall(bytes([byte]))
    peer.sock.sendall(b"\n\n  \n" + line + b"\r\n" + line + b"\n")
    assert [peer.read()["result"] for _ in range(3)] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("line", "code", "identity"),
    [
        (b"{", control.PARSE_ERROR, None),
        (b"\xff\xfe", control.PARSE_ERROR, None),
        (b"[" * 5000, control.PARSE_ERROR, None),
        (b"1", control.INVALID_REQUEST, None),
        ([{"jsonrpc": "2.0", "id": 1, "method": "echo"}], control.INVALID_REQUEST, None),
        ({"id": 3, "method": "echo"}, control.INVALID_REQUEST, 3),
        ({"jsonrpc": "1.0", "id": 3, "method": "echo"}, control.INVALID_REQUEST, 3),
        ({"jsonrpc": "2.0", "id": 3}, control.INVALID_REQUEST, 3),
        ({"jsonrpc": "2.0", "id": 3, "method": 4}, control.INVALID_REQUEST, 3),
        ({"jsonrpc": "2.0", "id": [], "method": "echo"}, control.INVALID_REQUEST, None),
        ({"jsonrpc": "2.0", "id": 3, "method": "echo", "params": [1]}, control.INVALID_PARAMS, 3),
        ({"jsonrpc": "2.0", "id": 3, "method": "none"}, control.METHOD_NOT_FOUND, 3),
    ],
)
def test_what_is_no_call_is_refused_and_the_connection_lives(server, peer, line, code, identity):
    peer.send(line)
    answer = peer.read()
    assert (answer["jsonrpc"], answer["id"], answer["error"]["code"]) == ("2.0", identity, code)
    assert answer["error"]["message"]
    assert "cure" in answer["error"]["data"]
    peer.send({"jsonrpc": "2.0", "id": 9, "method": "echo"})
    assert peer.read() == {"jsonrpc": "2.0", "id": 9, "result": {}}
    refused = server.counters.get("flux_control_bad_lines_total") + server.counters.get(
        "flux_control_calls_failed_total"
    )
    assert refused == 1


def test_a_call_without_an_id_gets_no_answer(peer):
    peer.send(
        {"jsonrpc": "2.0", "method": "echo"},
        {"jsonrpc": "2.0", "method": "none"},
        {"jsonrpc": "2.0", "id": 1, "method": "echo"},
    )
    assert peer.read()["id"] == 1


def test_a_line_too_long_ends_the_connection(server, peer):
    peer.sock.sendall(b"x" * control.K_MAX_LINE_BYTES + b"y")
    assert peer.read()["error"]["message"] == "a line of more than 65536 bytes"
    assert peer.read() is None
    assert server.counters.get("flux_control_lines_too_long_total") == 1


def test_a_client_that_takes_no_answers_is_cut_off(server, peer, monkeypatch):
    monkeypatch.setattr(control, "K_MAX_OUTPUT_BYTES", 1 << 20)
    call = {"jsonrpc": "2.0", "id": 1, "method": "large", "params": {"bytes": 400_000}}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        peer.send(*[call] * 20)
    deadline = time.monotonic() + 5
    while server.counters.get("flux_control_slow_clients_total") == 0 and time.monotonic() < deadline:
        assert ControlClient(server.path).call("echo") == {}
    assert server.counters.get("flux_control_slow_clients_total") == 1


def test_one_client_too_many_is_told_so(serve, tmp_path):
    server = serve(tmp_path / "control.sock", max_clients=2)
    peers = [Peer(server) for _ in range(2)]
    for peer in peers:
        peer.send({"jsonrpc": "2.0", "id": 1, "method": "echo"})
        assert peer.read()["result"] == {}
    with pytest.raises(ControlError, match=r"too many clients; close some, or raise control\.max_clients"):
        ControlClient(server.path).call("echo")
    peers[0].close()
    deadline = time.monotonic() + 5
    while True:  # until the server has seen that one is gone
        try:
            assert ControlClient(server.path).call("echo") == {}
            break
        except ControlError:
            assert time.monotonic() < deadline
    peers[1].close()


def test_the_socket_of_a_flux_that_is_gone_is_replaced(serve, tmp_path):
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = serve(path)
    assert ControlClient(str(path)).call("echo") == {}
    server.close()
    assert not path.exists()


def test_a_running_flux_keeps_its_socket(server):
    with pytest.raises(UserError, match=f"a Flux is running already at {server.path}; stop it with"):
        Server(server.path)
    assert ControlClient(server.path).call("echo") == {}


def test_what_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "control.sock"
    path.write_text("mine")
    with pytest.raises(UserError, match="is there and is no socket"):
        Server(path)
    assert path.read_text() == "mine"


def test_a_socket_that_another_has_made_meanwhile_stays(serve, tmp_path):
    path = tmp_path / "control.sock"
    server = serve(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.close()
        assert path.exists()


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"can't make the control socket .*set control\.socket to another path"
    ):
        Server(tmp_path / "file" / "control.sock")


def test_missing_folders_are_made(serve, tmp_path):
    server = serve(tmp_path / "a" / "b" / "control.sock")
    assert ControlClient(server.path).call("echo") == {}


def test_the_usual_places(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(control_path, "SYSTEM", tmp_path / "file" / "control.sock")
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    first = tmp_path / "run" / "flux" / "control.sock"
    assert control_path.default_path() == str(first)
    server = serve("")
    assert server.path == str(first) == ControlClient().path
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert control_path.default_path() == str(tmp_path / f"flux-{os.getuid()}" / "control.sock")

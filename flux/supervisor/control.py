"""The control socket: JSON-RPC 2.0, one object a line, for whoever may open the file (mode 0600)."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from flux.config.validate import K_MAX_SOCKET_PATH_BYTES
from flux.control.path import candidates, usable
from flux.errors import FluxError, UserError
from flux.observe.counters import Counters

log = structlog.get_logger("flux.control")

K_MAX_LINE_BYTES = 64 << 10
K_MAX_OUTPUT_BYTES = 64 << 20  # that a client has not taken yet
K_READ_BYTES = 64 << 10

PARSE_ERROR = -32700  # JSON-RPC 2.0, section 5.1
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
REFUSED = -32000  # the call was understood, and can't be done

Reply = Callable[[Any], None]
Dispatch = Callable[[str, dict[str, Any], Reply], None]


class CallError(FluxError):
    """What a method answers when it can't do what it was asked; `code` as in JSON-RPC 2.0, section 5.1."""

    def __init__(self, what: str, cure: str = "", code: int = REFUSED) -> None:
        super().__init__(what, cure)
        self.code = code


class ControlServer:
    """Serves the socket on the supervisor's selector.

    dispatch(method, params, reply) does a call, and calls reply(result or FluxError) at once or later.
    """

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        counters: Counters,
        max_clients: int,
        dispatch: Dispatch,
    ) -> None:
        self.max_clients = max_clients
        self.path = _choose(path)
        self._selector = selector
        self._counters = counters
        self._dispatch = dispatch
        self._clients: set[_Client] = set()
        self._listener = _listen(self.path)
        self._inode = os.stat(self.path).st_ino
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Ends all connections and removes the socket, if it is still this one."""
        self._selector.unregister(self._listener)
        for client in list(self._clients):
            client.close()
        self._listener.close()
        try:
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        except FileNotFoundError:
            return

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        self._counters.add("flux_control_clients_total")
        client = _Client(sock, self)
        self._clients.add(client)
        if len(self._clients) > self.max_clients:
            self._counters.add("flux_control_clients_refused_total")
            client.fail(None, CallError("too many clients", "close some, or raise control.max_clients"))
            client.close()

    # What a client needs of the server.

    def register(self, client: _Client, events: int) -> None:
        self._selector.register(client.sock, events, client.ready)

    def modify(self, client: _Client, events: int) -> None:
        """Waits for other events of a client's socket."""
        self._selector.modify(client.sock, events, client.ready)

    def forget(self, client: _Client) -> None:
        """A client is gone."""
        self._clients.discard(client)
        self._selector.unregister(client.sock)

    def count(self, name: str) -> None:
        """Counts; the name is the metric's."""
        self._counters.add(name)

    def call(self, method: str, params: dict[str, Any], reply: Reply) -> None:
        """Has a method done; reply() gets its result or error."""
        self._dispatch(method, params, reply)


class _Client:
    """One connection."""

    def __init__(self, sock: socket.socket, server: ControlServer) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._server = server
        self._input = bytearray()
        self._output = bytearray()
        self._open = True
        server.register(self, selectors.EVENT_READ)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._server.forget(self)
            self.sock.close()

    def ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
        if events & selectors.EVENT_READ and self._open:
            self._read()

    def _read(self) -> None:
        try:
            data = self.sock.recv(K_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._input += data
        while self._open:
            line, newline, rest = self._input.partition(b"\n")
            if not newline:
                break
            self._input = rest
            if line.strip():
                self._take(bytes(line))
        if len(self._input) > K_MAX_LINE_BYTES:
            self._server.count("flux_control_lines_too_long_total")
            what = f"a line of more than {K_MAX_LINE_BYTES} bytes"
            self.fail(None, CallError(what, "send one JSON object a line", INVALID_REQUEST))
            self.close()

    def _take(self, line: bytes) -> None:
        identity: Any = None
        try:
            try:
                request = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise CallError(f"no JSON: {error}", "send one JSON object a line", PARSE_ERROR) from None
            if isinstance(request, dict) and isinstance(request.get("id"), str | int | float):
                identity = request["id"]
            method, params = _check_request(request)
        except CallError as error:
            self._server.count("flux_control_bad_lines_total")
            self.fail(identity, error)
            return
        self._server.count("flux_control_calls_total")
        wants_answer = "id" in request

        def reply(result: Any) -> None:
            if isinstance(result, FluxError):
                self._server.count("flux_control_calls_failed_total")
            if not wants_answer:
                return
            if isinstance(result, FluxError):
                self.fail(identity, result)
            else:
                self._send({"jsonrpc": "2.0", "id": identity, "result": result})

        self._server.call(method, params, reply)

    def fail(self, identity: Any, error: FluxError) -> None:
        code = error.code if isinstance(error, CallError) else REFUSED
        answer = {"code": code, "message": error.what, "data": {"cure": error.cure}}
        self._send({"jsonrpc": "2.0", "id": identity, "error": answer})

    def _send(self, answer: dict[str, Any]) -> None:
        if not self._open:
            return
        self._output += msgspec.json.encode(answer, enc_hook=str) + b"\n"
        if len(self._output) > K_MAX_OUTPUT_BYTES:
            self._server.count("flux_control_slow_clients_total")
            self.close()
            return
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self.sock.send(self._output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._output[:sent]
        self._server.modify(self, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._output else 0))


def _check_request(request: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(request, dict):
        raise CallError("a request is an object", "batches are not spoken here", INVALID_REQUEST)
    if request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
        raise CallError("no JSON-RPC 2.0 request", 'it has "jsonrpc": "2.0" and "method"', INVALID_REQUEST)
    if "id" in request and not isinstance(request["id"], str | int | float | None):
        raise CallError("an id is text, a number or null", "", INVALID_REQUEST)
    params = request.get("params", {})
    if not isinstance(params, dict):
        raise CallError("params are an object", "give parameters by their names", INVALID_PARAMS)
    return request["method"], params


def _choose(path: str) -> str:
    """The path that the configuration gives, or the first of the usual places that can be used."""
    if not path:
        place = next((place for place in candidates() if usable(place.parent)), None)
        if place is None:
            raise UserError("there is no place for the control socket", "set control.socket to a path")
        path = str(place)
    if len(path.encode()) > K_MAX_SOCKET_PATH_BYTES:
        raise UserError(
            f"the control socket's path {path} is too long", "set control.socket to a shorter one"
        )
    return path


def _listen(path: str) -> socket.socket:
    """A listening socket at `path`. What an ended Flux left there is removed; a running one's stays."""
    folder = Path(path).parent
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
        if os.path.lexists(path):
            _remove_stale(path)
        before = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
        sock.listen(64)
    except OSError as error:
        sock.close()
        what = (error.strerror or str(error)).lower()
        raise UserError(
            f"can't make the control socket {path}: {what}", "set control.socket to another path"
        ) from None
    except UserError:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise UserError(
            f"{path} is there and is no socket", "remove it, or set control.socket to another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETIMEDOUT):
                raise
    raise UserError(
        f"a Flux is running already at {path}",
        "stop it with `flux stop`, or set control.socket to another path",
    )

"""Calls a running Flux over its control socket: JSON-RPC 2.0, one object a line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from typing import Any

from flux.control.path import default_path
from flux.errors import ControlError

__all__ = ["ControlClient", "default_path"]

K_TIMEOUT_S = 10.0
K_MAX_ANSWER_BYTES = 256 << 20  # of a listing of very many sessions
K_READ_BYTES = 256 << 10


class ControlClient:
    """One call a connection. path: of the socket; empty: where Flux makes it by itself."""

    def __init__(self, path: str = "", timeout_s: float = K_TIMEOUT_S) -> None:
        self.path = path or default_path()
        self._timeout_s = timeout_s

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of `method`. Raises ControlError: nobody is there, no answer, or the call is refused."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(self._timeout_s)
            try:
                sock.connect(self.path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has said why, then
                    sock.sendall(json.dumps(request).encode() + b"\n")
                line = self._read_line(sock)
            except TimeoutError:
                raise ControlError(
                    f"Flux at {self.path} did not answer in {self._timeout_s:g} s", "look at its log"
                ) from None
            except OSError as error:
                raise self._unreachable(error) from None
        return self._result(line)

    def _read_line(self, sock: socket.socket) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            data = sock.recv(K_READ_BYTES)
            if not data:
                raise ControlError(
                    f"Flux at {self.path} closed the connection before it answered", "look at its log"
                )
            line += data
            if len(line) > K_MAX_ANSWER_BYTES:
                raise ControlError(f"the answer has more than {K_MAX_ANSWER_BYTES} bytes", "ask for less")
        return bytes(line)

    def _result(self, line: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(line)
            error = answer.get("error")
            if error is None:
                result = answer["result"]
                if isinstance(result, dict):
                    return result
                raise TypeError
            what, data = str(error["message"]), error.get("data")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ControlError(
                f"what answers at {self.path} is no Flux", "look which program made that socket"
            ) from None
        raise ControlError(what, str(data.get("cure", "")) if isinstance(data, dict) else "")

    def _unreachable(self, error: OSError) -> ControlError:
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
            return ControlError(f"no Flux is running at {self.path}", "start one with `flux serve`")
        if error.errno in (errno.EACCES, errno.EPERM):
            owner = _owner(self.path)
            return ControlError(f"not allowed to use {self.path}", f"run this as {owner} or as root")
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            return ControlError(
                f"Flux at {self.path} closed the connection", "it may have too many clients; try again"
            )
        return ControlError(
            f"can't use {self.path}: {error.strerror or error}", "look whether the path is right"
        )


def _owner(path: str) -> str:
    try:
        return f"the user with uid {os.stat(path).st_uid}"
    except OSError:
        return "the user who started Flux"

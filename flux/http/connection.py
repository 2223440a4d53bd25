"""One HTTP connection: requests in, one after the other; responses out. Its socket may be given away to the
fan-out, after which it is over here."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from flux.http.errors import HttpError, request_timeout
from flux.http.request import Request, RequestParser
from flux.http.response import error_response

K_READ_BYTES = 16384
K_LINGER_BYTES = 262144  # read and thrown away after an error, so that its text is not lost in a reset
K_LINGER_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """max_header_bytes of a request's head; request_timeout_ms from its first byte to its last, and for a
    response to get out; keepalive_ms between requests."""

    max_header_bytes: int = 16384
    request_timeout_ms: int = 10000
    keepalive_ms: int = 30000
    cors_origin: str = "*"


class ConnectionClosed(Exception):
    """The client went away, or can't be written to in time."""


Handler = Callable[["Connection", Request], Awaitable[None]]


class Connection:
    """Serves one accepted, non-blocking socket with run().

    handler: called for each request; it answers by send(), raises HttpError, or takes the socket by detach().
    count: called with each response's status; who answers past respond() calls it too.
    """

    __slots__ = (
        "_handler",
        "_limits",
        "_loop",
        "_parser",
        "_socket",
        "count",
        "draining",
        "head_only",
        "idle",
        "keep_alive",
        "peer",
    )

    def __init__(
        self,
        accepted: socket.socket,
        peer: str,
        handler: Handler,
        limits: ConnectionLimits,
        count: Callable[[int], None],
    ) -> None:
        self._socket: socket.socket | None = accepted
        self._handler = handler
        self._limits = limits
        self.count = count
        self._loop = asyncio.get_running_loop()
        self._parser = RequestParser(limits.max_header_bytes)
        self.peer = peer
        self.keep_alive = True
        self.head_only = False
        self.idle = True
        self.draining = False

    @property
    def stays_open(self) -> bool:
        """Whether another request may follow the answer to this one."""
        return self.keep_alive and not self.draining

    async def run(self) -> None:
        """Until the connection ends or its socket is given away."""
        try:
            served = 0
            while self._socket is not None and self.keep_alive and not self.draining:
                self.idle = True
                request = await self._next_request(first=served == 0)
                if request is None:
                    break
                self.idle = False
                served += 1
                self.head_only = request.method == "HEAD"
                self.keep_alive = request.keep_alive
                await self._answer(request)
        except HttpError as error:
            self.keep_alive = False
            self.head_only = False
            await self._send_error(error)
            await self._linger()
        finally:
            self.close()

    async def _answer(self, request: Request) -> None:
        try:
            await self._handler(self, request)
        except HttpError as error:
            if error.close:
                raise
            await self._send_error(error)

    async def _next_request(self, first: bool) -> Request | None:
        """The next request; None at the end of the connection or of the client's patience."""
        deadline: float | None = None
        while (request := self._parser.take()) is None:
            in_request = self._parser.in_request
            if deadline is None or (in_request and self.idle):
                patient = not in_request and not first
                limit_ms = self._limits.keepalive_ms if patient else self._limits.request_timeout_ms
                deadline = self._loop.time() + limit_ms / 1000
                self.idle = not in_request
            try:
                data = await self._receive(deadline)
            except TimeoutError:
                if in_request:
                    raise request_timeout(self._limits.request_timeout_ms) from None
                return None
            except OSError:
                return None
            if not data:
                return None
            self._parser.feed(data)
        return request

    async def _receive(self, deadline: float) -> bytes:
        """The client's next bytes. Most often they are there already; then no timeout is set up."""
        sock = self._open_socket()
        try:
            return sock.recv(K_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            pass
        async with asyncio.timeout_at(deadline):
            return await self._loop.sock_recv(sock, K_READ_BYTES)

    async def send(self, data: bytes) -> None:
        """Writes all of `data`, or raises ConnectionClosed."""
        sock = self._open_socket()
        try:
            try:
                data = data[sock.send(data) :]
            except (BlockingIOError, InterruptedError):
                pass
            if data:
                async with asyncio.timeout(self._limits.request_timeout_ms / 1000):
                    await self._loop.sock_sendall(sock, data)
        except (TimeoutError, OSError) as error:
            raise ConnectionClosed(str(error)) from None

    async def respond(self, head: bytes, body: bytes, status: int = 200) -> None:
        """A whole response; the body is left out in the answer to HEAD."""
        self.count(status)
        await self.send(head if self.head_only else head + body)

    async def until_gone(self, what: Awaitable[T]) -> T:
        """Waits for `what` and gives its result; raises ConnectionClosed if the client goes away first.

        Bytes that come meanwhile are kept, up to K_READ_BYTES: a client that pipelines is no longer watched.
        """
        waiting = asyncio.ensure_future(what)
        reading = asyncio.ensure_future(self._loop.sock_recv(self._open_socket(), K_READ_BYTES))
        try:
            await asyncio.wait((waiting, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                if reading.exception() is None and reading.result():
                    self._parser.feed(reading.result())
                elif not waiting.done():
                    raise ConnectionClosed("the client went away")
            return await waiting
        finally:
            await _cancel(waiting)
            await _cancel(reading)

    def borrow(self) -> int:
        """The socket's descriptor, for something that sends on it while this connection waits."""
        return self._open_socket().fileno()

    def detach(self) -> int:
        """Gives the socket away; returns its descriptor, which is the caller's to close."""
        fd = self._open_socket().detach()
        self._socket = None
        return fd

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionClosed("closed")
        return self._socket

    async def _send_error(self, error: HttpError) -> None:
        self.count(error.status)
        keep_alive = self.stays_open
        with_body = not self.head_only
        await self.send(
            error_response(error, self._limits.cors_origin, keep_alive=keep_alive, with_body=with_body)
        )

    async def _linger(self) -> None:
        """RFC 9112, 9.6: closing with unread bytes would reset the connection and lose the answer."""
        sock = self._open_socket()
        try:
            sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(K_LINGER_S):
                left = K_LINGER_BYTES
                while left > 0:
                    data = await self._loop.sock_recv(sock, K_READ_BYTES)
                    if not data:
                        break
                    left -= len(data)
        except (TimeoutError, OSError):
            pass


async def _cancel(future: asyncio.Future[T]) -> None:
    if not future.done():
        future.cancel()
        await asyncio.wait((future,))

"""The supervisor's line to a child: one SOCK_SEQPACKET socketpair, JSON messages, bounded both ways."""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

import msgspec

K_MESSAGE_BYTES = 64 << 10  # fits the kernel's default buffers twice
K_QUEUED_MESSAGES = 1024  # that wait for the other side to read
K_MESSAGES_A_TURN = 64  # handled at once; the others wait for the loop's next turn


class Message(msgspec.Struct, omit_defaults=True):
    """A call (id, method, params), its answer (id, and result or error), or a notice (method, params)."""

    id: int = 0
    method: str = ""
    params: dict[str, Any] = {}
    result: Any = None
    error: str = ""


class ChannelClosed(Exception):
    """The other process is gone."""


class Channel:
    """One end; never blocks. `sock` is a connected SOCK_SEQPACKET socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._queue: deque[bytes] = deque()
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        self._decoder = msgspec.json.Decoder(Message)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """The supervisor's end and the child's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()

    @property
    def waiting(self) -> bool:
        """Whether flush() is to be called when the socket can be written."""
        return bool(self._queue)

    def send(self, message: Message) -> bool:
        """Sends, or queues behind what is queued. False: too long, queue full, or nobody there."""
        raw = self._encoder.encode(message)
        if len(raw) > K_MESSAGE_BYTES or len(self._queue) >= K_QUEUED_MESSAGES:
            return False
        self._queue.append(raw)
        try:
            self.flush()
        except ChannelClosed:
            return False
        return True

    def flush(self) -> None:
        """Sends what is queued, as far as there is room. Raises ChannelClosed."""
        while self._queue:
            try:
                self.sock.send(self._queue[0])
            except BlockingIOError:
                return
            except OSError as error:
                self._queue.clear()
                raise ChannelClosed from error
            self._queue.popleft()

    def receive(self) -> list[Message]:
        """What has come, at most K_MESSAGES_A_TURN. Raises ChannelClosed once nothing more can come.

        A message that can't be read is left out: the other end is a Flux of the same version.
        """
        messages: list[Message] = []
        while len(messages) < K_MESSAGES_A_TURN:
            try:
                raw = self.sock.recv(K_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if messages:
                    break
                raise ChannelClosed from error
            if not raw:
                if messages:
                    break
                raise ChannelClosed
            try:
                messages.append(self._decoder.decode(raw))
            except msgspec.MsgspecError:
                continue
        return messages

"""The listening sockets: opened once by the supervisor, one a worker, and kept over a worker's death.

The kernel spreads connections and handshakes over the sockets of one address by a hash over their order,
which so never changes. What comes for a worker that is being respawned waits in its socket.
"""

from __future__ import annotations

import socket

from flux.address import peer_name, split_address
from flux.config.schema import Config
from flux.errors import UserError
from flux.worker.worker import Sockets

K_BACKLOG = 4096  # connections of one worker that wait to be accepted


class Listeners:
    """All listening sockets. Raises UserError that names the address which can't be had."""

    def __init__(self, config: Config, workers: int) -> None:
        self._open: list[socket.socket] = []
        try:
            self.srt = self._group("srt.listen", config.srt.listen, socket.SOCK_DGRAM, workers)
            self.http = self._group("http.listen", config.http.listen, socket.SOCK_STREAM, workers)
            admin = self._group("admin.listen", config.admin.listen, socket.SOCK_STREAM, 1)
        except BaseException:
            self.close()
            raise
        self.admin = admin[0] if admin else None
        if len(self.srt) > 1:
            from flux.cext.udp import steering

            steering.attach(self.srt[0].fileno(), workers)

    def of_worker(self, number: int) -> Sockets:
        """The sockets of worker `number`."""
        return Sockets(
            srt=self.srt[number] if self.srt else None,
            http=self.http[number] if self.http else None,
        )

    def addresses(self) -> dict[str, str]:
        """ "ip:port" of each, as bound; "" for what is not listened on."""
        first = {"srt": self.srt[:1], "http": self.http[:1], "admin": [self.admin] if self.admin else []}
        return {
            name: peer_name(*socks[0].getsockname()[:2]) if socks else "" for name, socks in first.items()
        }

    def close(self) -> None:
        """Closes all; may be called again."""
        for sock in self._open:
            sock.close()

    def close_media(self) -> None:
        """Closes the supervisor's hold on what workers listen on."""
        for sock in (*self.srt, *self.http):
            sock.close()

    def _group(self, key: str, address: str, kind: socket.SocketKind, count: int) -> list[socket.socket]:
        """`count` sockets on one address. If its port is 0, the first one's port is everyone's."""
        group: list[socket.socket] = []
        if not address:
            return group
        host, port = split_address(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for _ in range(count):
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            self._open.append(sock)
            group.append(sock)
            sock.setblocking(False)
            try:
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if count > 1:
                    # A second Flux of the same user would be let into the group, unseen by both.
                    if len(group) == 1:
                        _try(family, kind, host, port)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
                sock.bind((host, port))
                port = sock.getsockname()[1]
                if kind == socket.SOCK_STREAM:
                    sock.listen(K_BACKLOG)
            except OSError as error:
                what = (error.strerror or str(error)).lower()
                raise UserError(
                    f"can't listen on {peer_name(host, port)}: {what}",
                    f"stop what uses it, or set {key} to another address",
                ) from None
        return group


def _try(family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int) -> None:
    """Raises OSError when somebody has that address, which SO_REUSEPORT may hide."""
    with socket.socket(family, kind | socket.SOCK_CLOEXEC) as sock:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind((host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1)

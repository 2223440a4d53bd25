"""One relay: a stream taken from another SRT server, or given to one, for as long as it is configured.

    waiting → connecting → connected → waiting, or backing_off → waiting

A pull waits for nothing, or on demand for a player; a push waits for its stream. What fails is tried again,
after a growing wait, without end.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog

from flux.address import peer_name
from flux.cext.ring import Ring
from flux.config.schema import Config, RelaySettings
from flux.config.secrets import shown_url
from flux.errors import FluxError, PeerError, StreamTakenError
from flux.srt.backoff import Backoff
from flux.srt.caller import Caller, Connection
from flux.srt.figures import player_figures, publisher_figures
from flux.srt.rejection import explain
from flux.srt.relay_url import described, relay_url
from flux.srt.url import SrtUrl
from flux.streams.context import WorkerContext
from flux.streams.registry import StreamRef
from flux.streams.session import READ

log = structlog.get_logger("flux.srt")

WAITING, CONNECTING, CONNECTED, BACKING_OFF = "waiting", "connecting", "connected", "backing_off"
NO_VIEWERS = "no_viewers"
STREAM_ENDED = "stream_ended"  # what Endpoint says when a source's slot is freed

K_LOOK_S = 0.1  # between two looks at a stream that is waited for, or at its viewers
K_RING_TS = 1  # arena.pxd, ring_kind

_REJECTED = re.compile(r"rejected:([0-9]+)")
_PROPER = (NO_VIEWERS, STREAM_ENDED)  # ends after which there is nothing to try again at once
_REASONS = {
    "peer_shutdown": ("the other server ended it", "look there why; it is tried again"),
    "idle_timeout": ("the other server fell silent", "look whether it runs, and at the network"),
    "kicked": ("it was kicked", "take it out of the configuration to end it for good"),
}


class RelayError(PeerError):
    """An attempt failed."""


class Relay:
    """home: whether this worker runs it; the others have it only for their own players to call for it.

    config(): the present one.
    """

    def __init__(
        self,
        settings: RelaySettings,
        context: WorkerContext,
        caller: Caller,
        config: Callable[[], Config],
        home: bool,
    ) -> None:
        self.settings = settings
        self.home = home
        self.state = WAITING
        self.draining = False
        self._context = context
        self._caller = caller
        self._config = config
        self._url: SrtUrl = relay_url(settings)
        self._shown = shown_url(settings.url)
        self._backoff = Backoff(settings.retry_min_ms, settings.retry_max_ms)
        self._since = datetime.now(UTC)
        self._attempts = 0
        self._last_error = ""
        self._connection: Connection | None = None
        self._called = asyncio.Event()
        self._task: asyncio.Task[None]

    def start(self, after: asyncio.Task[None] | None = None) -> None:
        """Begins; after: the task of the relay whose place it takes, which is waited for."""
        self._task = asyncio.create_task(self._run(after))

    def stop(self) -> asyncio.Task[None]:
        """Ends it; its stream is free when the task is done."""
        self._task.cancel()
        return self._task

    def call(self) -> None:
        """A player of this worker waits for the stream."""
        self._context.counters.add("flux_srt_relay_demands_total")
        self._called.set()

    @property
    def connected(self) -> bool:
        """Whether its connection stands."""
        return self.state == CONNECTED

    def describe(self) -> dict[str, Any]:
        """As the control socket and the API show it. since: of the state, ISO 8601."""
        connection = self._connection
        return {
            **described(self.settings),
            "state": self.state,
            "since": self._since.isoformat(timespec="milliseconds"),
            "attempts": self._attempts,
            "last_error": self._last_error,
            "worker": self._context.number,
            "figures": self._figures(connection) if connection is not None and self.connected else {},
        }

    def _figures(self, connection: Connection) -> dict[str, Any]:
        figures = publisher_figures if self.settings.direction == "pull" else player_figures
        return figures(connection.stats())

    def _enter(self, state: str) -> None:
        self.state = state
        self._since = datetime.now(UTC)

    async def _run(self, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
        while True:
            try:
                self._enter(WAITING)
                await self._until_wanted()
                reason = await self._relay()
                if reason in _PROPER:
                    continue
                what, cure = _REASONS.get(reason, (f"the connection ended: {reason}", ""))
                error: FluxError = RelayError(what, cure)
            except StreamTakenError as taken:
                if self._on_demand:
                    continue  # another worker was quicker
                error = taken
            except FluxError as failed:
                error = failed
            except Exception as failed:
                log.exception("relay_failed", relay=self.settings.name)
                error = RelayError(f"an error of ours: {type(failed).__name__}", "look into the log")
            await self._back_off(error)

    @property
    def _on_demand(self) -> bool:
        return self.settings.start == "on_demand"

    # What is waited for.

    async def _until_wanted(self) -> None:
        while self.draining or not self._wanted():
            self._called.clear()
            if self._on_demand and not self.home:
                await self._called.wait()
                continue
            try:
                async with asyncio.timeout(K_LOOK_S):
                    await self._called.wait()
            except TimeoutError:
                pass

    def _wanted(self) -> bool:
        name = self.settings.stream
        found = self._context.streams.find(name)
        if self.settings.direction == "push":
            return found is not None and found.live
        if not self._on_demand:
            return True
        if found is None:
            return self._context.streams.is_waited_for(name)
        # Players that were there before the publisher went are held, and don't wait.
        return self.home and not found.live and self._viewers(found) > 0

    def _viewers(self, ref: StreamRef) -> int:
        return int(self._context.arena.slot(ref.slot)["viewers"])

    async def _back_off(self, error: FluxError) -> None:
        settings = self.settings
        self._last_error = str(error)
        wait_ms = self._backoff.next_ms()
        log.warning(
            "relay_retrying",
            relay=settings.name,
            stream=settings.stream,
            url=self._shown,
            reason=error.what,
            cure=error.cure,
            failures=self._backoff.failures,
            in_ms=wait_ms,
        )
        self._enter(BACKING_OFF)
        await asyncio.sleep(wait_ms / 1000)

    # An attempt.

    async def _relay(self) -> str:
        """Connects, and gives why it ended. Raises FluxErrors when it does not come to that."""
        self._enter(CONNECTING)
        self._attempts += 1
        connected = False
        try:
            if self.settings.direction == "pull":
                self._require_free()
            connection, peer = await self._connect()
            self._connection = connection
            try:
                relay = self._pull if self.settings.direction == "pull" else self._push
                reason = await relay(connection, peer)
                connected = True
            finally:
                connection.close("stopped")
                self._connection = None
        except FluxError as error:
            if not (isinstance(error, StreamTakenError) and self._on_demand):
                self._context.counters.add("flux_srt_relay_failures_total")
            raise
        if connected and reason not in _PROPER:
            self._context.counters.add("flux_srt_relay_lost_total")
        return reason

    def _require_free(self) -> None:
        found = self._context.streams.find(self.settings.stream)
        if found is not None and found.live:
            raise StreamTakenError(
                f"{self.settings.stream} has a publisher here already",
                "give the relay another stream, or kick that publisher",
            )

    async def _connect(self) -> tuple[Connection, str]:
        failure: RelayError | None = None
        for address in await self._addresses():
            try:
                return await self._call(address), peer_name(*address)
            except RelayError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    async def _addresses(self) -> list[tuple[str, int]]:
        """As SrtUrl.addresses, without holding the loop."""
        url = self._url
        try:
            found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise RelayError(
                f"{url.host} is not known: {error.strerror}", "look whether the host is right"
            ) from None
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        return list(dict.fromkeys((str(entry[4][0]), int(entry[4][1])) for entry in found))

    async def _call(self, address: tuple[str, int]) -> Connection:
        url, config = self._url, self._config()
        timeout_ms = url.connect_timeout_ms or config.srt.handshake_timeout_ms
        try:
            connection = self._caller.connect(
                address,
                url.stream_id,
                url.latency_ms,
                config,
                passphrase=url.encryption.passphrase,
                pbkeylen=url.encryption.pbkeylen,
                crypto_mode=url.encryption.crypto_mode,
                enforced_encryption=url.encryption.enforced_encryption,
            )
        except OSError as error:
            raise RelayError(f"no UDP: {error.strerror}", "look whether the network is up") from None
        except RuntimeError as error:
            raise RelayError(str(error), "raise srt.max_connections") from None
        try:
            await asyncio.wait([connection.opened], timeout=timeout_ms / 1000)
        except BaseException:
            connection.close("stopped")
            raise
        if connection.opened.done() and connection.opened.result() is not None:
            return connection
        connection.close("handshake_timeout")
        reason = connection.closed.result()
        rejected = _REJECTED.fullmatch(reason)
        if rejected is not None:
            raise RelayError(*explain(int(rejected[1])))
        raise RelayError(
            f"{peer_name(*address)} did not answer within {timeout_ms} ms",
            "look whether the server runs there, and whether a firewall lets UDP through",
        )

    # Connected.

    async def _pull(self, connection: Connection, peer: str) -> str:
        publication = self._context.streams.publish(
            self.settings.stream,
            "srt",
            peer,
            connection.close,
            lambda: publisher_figures(connection.stats()),
        )
        try:
            if not connection.closed.done():
                connection.endpoint.attach_sink(connection.id, publication.sink)
            return await self._until_over(
                connection, peer, StreamRef(publication.name, publication.slot, publication.generation, True)
            )
        finally:
            connection.close("stopped")
            facts = publisher_figures(connection.stats())
            facts.pop("bytes", None)  # the publication tells them itself
            publication.end(connection.closed.result(), **facts)

    async def _push(self, connection: Connection, peer: str) -> str:
        context = self._context
        ref = context.streams.find(self.settings.stream)
        if ref is None:
            return STREAM_ENDED
        try:
            ring = Ring(context.arena, ref.slot, K_RING_TS)
        except ValueError:
            return STREAM_ENDED
        session = context.sessions.begin(
            ref.name, "srt", READ, peer, connection.close, lambda: player_figures(connection.stats())
        )
        context.arena.add_viewers(ref.slot, 1)
        try:
            if not connection.closed.done():
                connection.endpoint.attach_source(connection.id, ring)
                connection.turn()
            return await self._until_over(connection, peer, None)
        finally:
            connection.close("stopped")
            if context.arena.generation(ref.slot) == ref.generation:
                context.arena.add_viewers(ref.slot, -1)
            facts = player_figures(connection.stats())
            context.sessions.end(session, connection.closed.result(), facts.pop("bytes", None), **facts)

    async def _until_over(self, connection: Connection, peer: str, pulled: StreamRef | None) -> str:
        """Until the connection ends, or is not needed any more; gives why. pulled: the stream it fills."""
        settings = self.settings
        self._enter(CONNECTED)
        since_s = watched_s = time.monotonic()
        self._last_error = ""
        self._context.counters.add("flux_srt_relay_connects_total")
        self._count_connected(1)
        log.info(
            "relay_connected",
            relay=settings.name,
            direction=settings.direction,
            stream=settings.stream,
            url=self._shown,
            peer=peer,
        )
        try:
            while not connection.closed.done():
                await asyncio.wait([connection.closed], timeout=K_LOOK_S)
                if pulled is None or not (self._on_demand or self.draining):
                    continue
                now_s = time.monotonic()
                linger_ms = 0 if self.draining else settings.on_demand_linger_ms
                if self._viewers(pulled):
                    watched_s = now_s
                elif now_s - watched_s > linger_ms / 1000:
                    connection.close(NO_VIEWERS)
        finally:
            connection.close("stopped")
            self._count_connected(-1)
            lasted_s = time.monotonic() - since_s
            if lasted_s >= settings.stable_ms / 1000:
                self._backoff.reset()
            reason = connection.closed.result()
            tell = log.info if reason in (*_PROPER, "stopped") else log.warning
            tell(
                "relay_lost",
                relay=settings.name,
                stream=settings.stream,
                peer=peer,
                reason=reason,
                seconds=round(lasted_s, 1),
            )
        return reason

    def _count_connected(self, difference: int) -> None:
        counters = self._context.counters
        name = "flux_srt_relays_connected"
        counters.set(name, counters.get(name) + difference)

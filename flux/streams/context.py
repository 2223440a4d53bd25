"""What a worker hands to each protocol's service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flux.config.schema import Config
    from flux.observe.counters import Counters
    from flux.streams.registry import StreamRegistry
    from flux.streams.session import SessionTable


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """number: the worker's place in the arena. workers: how many there are.

    reactor: flux.cext.reactor.Reactor. arena: flux.cext.arena.Arena.
    """

    number: int
    arena: Any
    reactor: Any
    counters: Counters
    sessions: SessionTable
    streams: StreamRegistry
    config: Config
    workers: int = 1


class Service(Protocol):
    """A protocol in a worker. Made with its listening socket and a WorkerContext."""

    def start(self) -> None:
        """Begins to accept."""

    def stop_accepting(self) -> None:
        """Takes nothing new; what there is goes on."""

    def reconfigure(self, config: Config) -> None:
        """Takes over what may change while running."""

    async def close(self) -> None:
        """Ends everything now."""

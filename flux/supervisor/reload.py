"""Reads the configuration in a short-lived process, so that a slow file can't hold the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flux.config.load import load_config
from flux.config.schema import Config
from flux.errors import FluxError
from flux.srt.encryption import require_library
from flux.srt.relay_url import check_relays
from flux.supervisor.timers import Timer
from flux.worker.channel import Channel, ChannelClosed, Message

if TYPE_CHECKING:
    from flux.supervisor.supervisor import Supervisor


class ConfigReader:
    """One reading. finish(config, ""), or finish(None, why not), is called once."""

    def __init__(self, supervisor: Supervisor, finish: Callable[[Config | None, str], None]) -> None:
        self._supervisor = supervisor
        self._finish: Callable[[Config | None, str], None] | None = finish
        self._process: Any = None
        self._channel: Channel
        self._deadline: Timer

    def start(self) -> None:
        supervisor = self._supervisor
        timeout_ms = supervisor.config.supervisor.reload_timeout_ms
        try:
            self._process, self._channel = supervisor.fork("config reader", self._read, (), None)
        except OSError as error:
            self._end(None, f"no process to read it in: {error}")
            return
        supervisor.register(self._channel, self._hear)
        self._deadline = supervisor.timers.after(
            timeout_ms / 1000, lambda: self._give_up(f"not read after {timeout_ms} ms")
        )

    def _read(self, channel: Channel) -> None:
        """In the process of its own."""
        try:
            config = load_config(self._supervisor.config_path, self._supervisor.overrides)
            require_library(config.srt)
            check_relays(config)
            channel.send(Message(method="config", result=config.between_processes()))
        except FluxError as error:
            channel.send(Message(method="config", error=str(error)))

    def _hear(self, _events: int) -> None:
        try:
            for message in self._channel.receive():
                if message.error:
                    self._end(None, message.error)
                else:
                    self._end(Config.model_validate_json(message.result), "")
        except ChannelClosed:
            self._give_up("the process that read it has died")

    def _give_up(self, why: str) -> None:
        self.kill()
        self._end(None, why)

    def _end(self, config: Config | None, error: str) -> None:
        finish, self._finish = self._finish, None
        if finish is None:
            return
        if self._process is not None:
            self._deadline.cancel()
            self._supervisor.unregister(self._channel)
            self._channel.close()
            self._process.join()
            self._process.close()
        finish(config, error)

    def kill(self) -> None:
        if self._finish is not None and self._process is not None:
            self._process.kill()

"""A place in the process tree, and the process that has it now."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import structlog

from flux.worker.channel import Channel, ChannelClosed, Message

log = structlog.get_logger("flux.supervisor")

# A place's state. WAITING: for the end of a respawn delay. ENDED: nobody is to have it any more.
WAITING, STARTING, RUNNING, DRAINING, STOPPING, ENDED = (
    "waiting",
    "starting",
    "running",
    "draining",
    "stopping",
    "ended",
)

K_FIRST_BACKOFF_S = 0.1  # after the second of two quick deaths

Answer = Callable[[Any, str], None]  # (result, "") or (None, what went wrong)


class Child:
    """One of the supervisor's children. number: its place in the arena. run(channel): what its process does.

    sockets: what it listens on; all other descriptors are closed in it.
    """

    def __init__(self, name: str, number: int, run: Callable[[Channel], None], sockets: list[Any]) -> None:
        self.name = name
        self.number = number
        self.run = run
        self.sockets = sockets
        self.state = WAITING
        self.process: Any = None
        self.channel: Channel
        self.pid = 0
        self.starts = 0
        self.started_s = 0.0
        self.died_s = 0.0
        self.was_ready = False  # ever: a place whose first process never was is a mistake, not an accident
        self.last_words = ""  # why the process says that it failed
        self._quick_deaths = 0
        self._asked: dict[int, Answer] = {}
        self._asks = 0

    @property
    def is_worker(self) -> bool:
        """Whether it is a worker's place, not the admin's."""
        return self.name.startswith("worker")

    def has_begun(self, process: Any, channel: Channel) -> None:
        """A process was forked for this place."""
        self.process, self.channel, self.pid = process, channel, process.pid
        self.state = STARTING
        self.starts += 1
        self.started_s = time.monotonic()
        self.last_words = ""

    def is_ready(self) -> None:
        """The process says that it serves."""
        if self.state == STARTING:
            self.state = RUNNING
        self.was_ready = True

    def has_ended(self) -> int:
        """Lets go of a process that is over; gives its exit code as multiprocess does."""
        code = int(self.process.exitcode)
        self.channel.close()
        self.process.close()
        self.process, self.pid = None, 0
        self.died_s = time.monotonic()
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer(None, f"{self.name} has died")
        return code

    def respawn_delay_s(self, first_s: float, most_s: float, stable_s: float) -> float:
        """How long to wait after the death just now: `first_s`, and ever longer while deaths are quick."""
        if self.died_s - self.started_s >= stable_s:
            self._quick_deaths = 0
        self._quick_deaths += 1
        if self._quick_deaths == 1:
            return first_s
        return min(max(first_s, K_FIRST_BACKOFF_S) * 2.0 ** min(self._quick_deaths - 2, 20), most_s)

    def signal(self, number: signal.Signals) -> None:
        """Not after its end is known: the pid may be another's by then."""
        if self.process is not None and self.process.exitcode is None:
            os.kill(self.pid, number)

    def tell(self, method: str, **params: Any) -> bool:
        """A notice; no answer is wanted."""
        return self.process is not None and self.channel.send(Message(method=method, params=params))

    def ask(self, method: str, params: dict[str, Any], answer: Answer) -> int:
        """Calls answer() once: with the result, or once none can come. Gives a number for give_up()."""
        self._asks += 1
        if self.process is None or not self.channel.send(Message(self._asks, method, params)):
            answer(None, f"{self.name} takes no questions")
        else:
            self._asked[self._asks] = answer
        return self._asks

    def give_up(self, ask: int) -> bool:
        """The answer has not come in time. False when it has."""
        answer = self._asked.pop(ask, None)
        if answer is not None:
            answer(None, f"{self.name} did not answer in time")
        return answer is not None

    def flush(self) -> None:
        """Sends on what the child had no room for."""
        if self.process is not None:
            try:
                self.channel.flush()
            except ChannelClosed:
                return  # its end will be told by SIGCHLD

    def receive(self) -> list[Message]:
        """The notices that have come; answers go to those who asked."""
        try:
            messages = self.channel.receive()
        except ChannelClosed:
            return []  # its end will be told by SIGCHLD
        notices = []
        for message in messages:
            if not message.id:
                notices.append(message)
                continue
            answer = self._asked.pop(message.id, None)
            if answer is not None:
                answer(message.result, message.error)
        return notices

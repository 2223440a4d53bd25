"""The supervisor: one thread and one loop, so that it can fork at any moment.

Signals only put a byte into a socket; the loop decides. spawn_, reap_, drain_ and kill_ are its verbs. It
knows nothing of media and of HTTP: it keeps the listeners, the arena and the processes.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import multiprocess
import setproctitle
import structlog

from flux._version import __version__
from flux.cext.arena import Arena
from flux.cext.counters import NAMES
from flux.config.diff import Change, compare
from flux.config.schema import Config
from flux.errors import FluxError, UserError
from flux.observe import logging
from flux.observe.counters import Counters
from flux.observe.rates import StreamRates
from flux.process import (
    close_all_but,
    die_with,
    exit_text,
    notify_systemd,
    raise_file_limit,
    reset_signals,
)
from flux.streams.links import announcement
from flux.supervisor import child as states
from flux.supervisor.child import Child
from flux.supervisor.control import ControlServer
from flux.supervisor.listeners import Listeners
from flux.supervisor.methods import Methods
from flux.supervisor.reload import ConfigReader
from flux.supervisor.timers import Timers
from flux.worker import worker
from flux.worker.channel import Channel, Message

log = structlog.get_logger("flux.supervisor")

K_ADMIN = 62  # places in the arena
K_SUPERVISOR = 63
K_LOOK_S = 0.2  # between two looks at heartbeats and at idle streams
K_SAMPLE_S = 1.0  # between two samples of the streams' rates
K_STOPPED_S = (
    1.0  # a look so late means that this process was stopped itself, and its children perhaps with it
)
K_MAX_WORKERS = 56
EXIT_FAILED = 1  # of a child
EXIT_START_FAILED = 3

SIGNALS = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
)
_GAUGES = [number for number, (name, _) in NAMES.items() if not name.endswith("_total")]


def _usable_cpus(config: Config) -> list[int]:
    """The CPUs that workers are pinned to, in turn."""
    ours = sorted(os.sched_getaffinity(0))
    missing = sorted(set(config.cpus) - set(ours))
    if missing:
        raise UserError(f"cpus: this process may not use CPU {missing[0]}", f"it may use {ours}")
    return list(config.cpus) or ours


def _make_arena(config: Config) -> Any:
    arena = config.arena
    try:
        return Arena.create(
            slots=arena.streams,
            frame_ring_bytes=arena.frame_ring_bytes,
            wire_ring_bytes=arena.wire_ring_bytes,
            hls_bytes=arena.hls_bytes,
            index_entries=arena.index_entries,
        )
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise UserError(
            f"no arena for {arena.streams} streams: {what}", "lower arena.streams or arena.hls_bytes"
        ) from None


def _note_signal(_number: int, _frame: Any) -> None:
    """A handler is there so that the signal's number is written to the wakeup descriptor."""


class Supervisor:
    """Runs Flux with `config`. config_path and overrides: where it was read from, for reading it again."""

    def __init__(self, config: Config, config_path: str | None = None, overrides: Sequence[str] = ()) -> None:
        self.config = config
        self.config_path = config_path
        self.overrides = list(overrides)
        self.state = "starting"
        self.since = datetime.now(UTC)
        self.started_s = time.monotonic()
        self.cpus: list[int] = []
        self.children: list[Child] = []
        self.timers = Timers()
        self.rates = StreamRates()
        self.exit_code = 0
        self._pid = os.getpid()
        self._fork = multiprocess.get_context("fork")
        self._reader: ConfigReader | None = None
        self._looked_s = self.started_s
        self._handlers: dict[int, Callable[[], None]] = {
            signal.SIGCHLD: self.reap_children,
            signal.SIGTERM: self.on_terminate,
            signal.SIGINT: self.on_terminate,
            signal.SIGHUP: self.on_hangup,
            signal.SIGUSR1: self.on_reopen,
        }

    def run(self) -> int:
        """Until the end; gives the exit code. Raises UserError as serve() says."""
        setproctitle.setproctitle("flux: supervisor")
        logging.configure(self.config.log.level, self.config.log.format, self.config.log.file)
        logging.name_process("supervisor")
        raise_file_limit()
        # Everything a worker needs is imported before the first fork, and what is there by then is never
        # looked at by a collector: forks are quick, and their pages stay shared.
        worker.preload(self.config)
        gc.collect()
        gc.freeze()
        self._open()
        try:
            for child in self.children:
                self.spawn_child(child)
            self.timers.every(K_LOOK_S, self._look_after)
            self.timers.every(K_SAMPLE_S, self._sample)
            while any(child.state != states.ENDED for child in self.children):
                for key, events in self._selector.select(self.timers.wait_s()):
                    if key.fd in self._selector.get_map():  # not if a callback before has ended it
                        self._guard(key.data, events)
                while (due := self.timers.due()) is not None:
                    self._guard(due)
        finally:
            self._close()
        return self.exit_code

    def _guard(self, run: Callable[..., None], *args: Any) -> None:
        """A mistake in one thing that the supervisor does must not end all processes."""
        try:
            run(*args)
        except Exception:
            log.exception("supervisor_mistake")

    # The beginning and the end.

    def _open(self) -> None:
        config = self.config
        self.cpus = _usable_cpus(config)
        workers = config.workers or min(len(self.cpus), K_MAX_WORKERS)
        self.listeners = Listeners(config, workers)
        self.addresses = self.listeners.addresses()
        self._selector = selectors.DefaultSelector()
        try:
            self.arena = _make_arena(config)
            self.arena.join(K_SUPERVISOR)
            self.counters = Counters(self.arena.my_counters)
            self.control = ControlServer(
                config.control.socket,
                self._selector,
                self.counters,
                config.control.max_clients,
                Methods(self).dispatch,
            )
        except BaseException:
            self.listeners.close()
            self._selector.close()
            raise
        self._take_signals()
        for number in range(workers):
            sockets = self.listeners.of_worker(number)
            run = self._worker(number, sockets)
            self.children.append(
                Child(f"worker {number}", number, run, [s for s in sockets if s is not None])
            )
        if self.listeners.admin is not None:
            self.children.append(Child("admin", K_ADMIN, self._run_admin, [self.listeners.admin]))
        facts = {"version": __version__, "pid": self._pid, "config": self.config_path or "none"}
        log.info("flux_starting", workers=workers, **facts)

    def _close(self) -> None:
        self.kill_children()
        self.control.close()
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        self.listeners.close()
        self._selector.close()
        self._wakeup.close()
        self._wakeup_end.close()
        self.arena.close()
        log.info("flux_stopped", exit_code=self.exit_code)

    def _take_signals(self) -> None:
        self._wakeup, self._wakeup_end = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_end.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._on_signals)
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _note_signal)

    def _on_signals(self, _events: int) -> None:
        for number in self._wakeup.recv(4096):
            self._handlers[number]()

    # Children.

    def fork(
        self, name: str, run: Callable[[Channel], None], sockets: Iterable[Any], number: int | None
    ) -> tuple[Any, Channel]:
        """A new process, of that place in the arena if any, and the supervisor's end of its channel."""
        ours, theirs = Channel.pair()
        # Not a signal must reach the child while it has our handlers and our wakeup descriptor.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process = self._fork.Process(
                target=self._in_child, args=(name, run, sockets, number, theirs, mask), name=name
            )
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()
        return process, ours

    def _in_child(
        self,
        name: str,
        run: Callable[[Channel], None],
        sockets: Iterable[Any],
        number: int | None,
        channel: Channel,
        mask: set[signal.Signals],
    ) -> None:
        die_with(self._pid)
        reset_signals(SIGNALS)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # What a terminal sends to its foreground group is the supervisor's to pass on.
        os.setpgid(0, 0)
        keep = {self.arena.fd, *self.arena.doorbells, channel.fileno(), logging.log_fd()}
        close_all_but(keep | {sock.fileno() for sock in sockets})
        setproctitle.setproctitle(f"flux: {name}")
        logging.name_process(name)
        if number is not None:
            self.arena.join(number)
        try:
            run(channel)
        except Exception as error:
            if isinstance(error, FluxError):
                reason = str(error)
                log.error("process_failed", reason=reason)
            else:
                reason = f"{type(error).__name__}: {error}"
                log.exception("process_failed")
            channel.send(Message(method="failed", params={"reason": reason}))
            raise SystemExit(EXIT_FAILED) from None

    def _worker(self, number: int, sockets: worker.Sockets) -> Callable[[Channel], None]:
        def run(channel: Channel) -> None:
            if self.config.pin_workers:
                os.sched_setaffinity(0, {self.cpus[number % len(self.cpus)]})
            workers = sum(child.is_worker for child in self.children)
            worker.run(self.arena, self.config, sockets, channel, workers)

        return run

    def _run_admin(self, channel: Channel) -> None:
        """In the admin process. At each heartbeat it looks for the supervisor's notices as well."""
        from flux.admin.server import run

        is_ready = False

        def heartbeat() -> None:
            nonlocal is_ready
            self.arena.heartbeat(time.monotonic_ns() // 1000)
            if not is_ready:
                is_ready = channel.send(Message(method="ready"))
            for message in channel.receive():
                if message.method == "reload":
                    settings = Config.model_validate_json(message.params["config"]).log
                    logging.configure(settings.level, settings.format, settings.file)
                elif message.method == "reopen_logs":
                    logging.reopen()

        listener = self.listeners.admin
        assert listener is not None
        run(listener, self.arena, self.config, self.control.path, heartbeat)

    def spawn_child(self, child: Child) -> None:
        """Forks a process for a place that has none."""
        if self.state == "stopping":
            child.state = states.ENDED
            return
        try:
            process, channel = self.fork(child.name, child.run, child.sockets, child.number)
        except OSError as error:
            log.error("fork_failed", process_name=child.name, reason=str(error))
            child.started_s = child.died_s = time.monotonic()
            self._respawn_later(child)
            return
        child.has_begun(process, channel)
        self._selector.register(channel, selectors.EVENT_READ, lambda _events: self._hear(child))
        log.info("process_started", name=child.name, child=child.pid)

    def _hear(self, child: Child) -> None:
        for message in child.receive():
            if message.method == "ready":
                child.is_ready()
                after = (
                    {} if not child.died_s else {"after_ms": round(1000 * (time.monotonic() - child.died_s))}
                )
                log.info("process_ready", name=child.name, child=child.pid, **after)
                self._is_up()
            elif message.method == "failed":
                child.last_words = str(message.params.get("reason", ""))

    def _is_up(self) -> None:
        """Once: every process is ready for the first time."""
        if self.state != "starting" or any(child.state != states.RUNNING for child in self.children):
            return
        self.state = "running"
        log.info("flux_ready", **self.addresses, control=self.control.path)
        demo = self.config.demo.stream if self.config.demo.enabled else ""
        try:
            print(announcement(self.addresses, demo), flush=True)
        except OSError:
            sys.stdout = None  # nobody reads it
        notify_systemd("READY=1")

    def reap_children(self) -> None:
        """Takes in every child that has ended, and decides what becomes of its place."""
        for child in self.children:
            if child.process is not None and child.process.exitcode is not None:
                self._reap(child)
        if self.state == "draining" and all(c.state == states.ENDED for c in self.children if c.is_worker):
            self.stop_children()

    def _reap(self, child: Child) -> None:
        self._hear(child)
        self._selector.unregister(child.channel)
        how = child.has_ended()
        lost = self.arena.process_died(child.number, time.monotonic_ns() // 1000)
        slab = self.arena.counters(child.number)
        slab[_GAUGES] = 0  # what grows stays, so that sums never fall
        self.counters.add("flux_supervisor_streams_lost_total", len(lost))
        facts = {"name": child.name, "how": exit_text(how), "streams_lost": len(lost)}
        if child.state in (states.DRAINING, states.STOPPING) or self.state in ("draining", "stopping"):
            child.state = states.ENDED
            log.info("process_ended", **facts)
        elif not child.was_ready:
            child.state = states.ENDED
            self._fail(child, child.last_words or exit_text(how))
        else:
            self.counters.add("flux_supervisor_deaths_total")
            log.error("process_died", **facts, **({"reason": child.last_words} if child.last_words else {}))
            self._respawn_later(child)

    def _respawn_later(self, child: Child) -> None:
        settings = self.config.supervisor
        delay_s = child.respawn_delay_s(
            settings.respawn_delay_ms / 1000, settings.respawn_max_delay_ms / 1000, settings.stable_ms / 1000
        )
        child.state = states.WAITING
        if delay_s <= 0:
            self.spawn_child(child)
            return
        log.warning("respawn_delayed", name=child.name, delay_ms=round(1000 * delay_s))
        self.timers.after(delay_s, lambda: self.spawn_child(child) if child.state == states.WAITING else None)

    def _fail(self, child: Child, reason: str) -> None:
        """A place whose first process never got ready would not do better the next time: all is stopped."""
        if self.exit_code == 0:
            self.exit_code = EXIT_START_FAILED
            log.error(
                "start_failed", name=child.name, reason=reason, cure="mend what it says and start again"
            )
        self.stop_children()

    # Looking after them.

    def _look_after(self) -> None:
        now_us = time.monotonic_ns() // 1000
        now_s = now_us / 1e6
        was_stopped = now_s - self._looked_s > K_LOOK_S + K_STOPPED_S
        self.arena.heartbeat(now_us)
        if not was_stopped:
            for child in self.children:
                child.flush()
                self._kill_hung(child, now_s)
        gone = self.arena.expire_idle(now_us, self.config.streams.idle_grace_ms * 1000)
        self.counters.add("flux_supervisor_streams_retired_total", len(gone))
        self._looked_s = time.monotonic()

    def _kill_hung(self, child: Child, now_s: float) -> None:
        settings = self.config.supervisor
        if child.state == states.STARTING:
            age_s, limit_ms = now_s - child.started_s, settings.boot_timeout_ms
        elif child.state in (states.RUNNING, states.DRAINING):
            age_s, limit_ms = self.heartbeat_age_s(child, now_s), settings.heartbeat_timeout_ms
        else:
            return
        if child.process is not None and age_s * 1000 > limit_ms:
            self.counters.add("flux_supervisor_hung_total")
            log.error(
                "process_hung",
                name=child.name,
                child=child.pid,
                state=child.state,
                age_ms=round(1000 * age_s),
            )
            child.last_words = (
                f"not ready after {limit_ms} ms" if not child.was_ready else "its heartbeat stopped"
            )
            child.signal(signal.SIGKILL)

    def heartbeat_age_s(self, child: Child, now_s: float) -> float:
        """Seconds since the child said that it is alive; 0 while it has no process."""
        if child.process is None:
            return 0.0
        beat_s: float = self.arena.process_info(child.number)["heartbeat_us"] / 1e6
        return max(0.0, now_s - max(beat_s, child.started_s))

    def _sample(self) -> None:
        self.rates.sample(self.arena.streams(), time.monotonic())

    # Draining and stopping.

    def on_terminate(self) -> None:
        """TERM or INT: drain; a second one: stop now; a third one waits for nobody."""
        if self.state in ("starting", "running"):
            self.drain_children()
        elif self.state == "draining":
            self.stop_children()
        else:
            self.kill_children()

    def drain_children(self) -> None:
        """Nothing new is taken; workers end as their sessions do, and all that is left at the deadline."""
        if self.state not in ("starting", "running"):
            return
        self.state = "draining"
        timeout_s = self.config.supervisor.drain_timeout_ms / 1000
        log.info("drain_started", timeout_s=timeout_s)
        notify_systemd("STOPPING=1")
        self.listeners.close_media()
        for child in self.children:
            if not child.is_worker:
                continue
            if child.process is None:
                child.state = states.ENDED
            else:
                child.state = states.DRAINING
                child.tell("drain")
        self.timers.after(timeout_s, self._end_drain)
        self.reap_children()

    def _end_drain(self) -> None:
        if self.state == "draining":
            log.warning(
                "drain_timed_out", cure="raise supervisor.drain_timeout_ms if sessions should get longer"
            )
            self.stop_children()

    def stop_children(self) -> None:
        """Everybody ends now; who has not after supervisor.stop_timeout_ms is killed."""
        if self.state == "stopping":
            return
        self.state = "stopping"
        for child in self.children:
            if child.process is None:
                child.state = states.ENDED
            else:
                child.state = states.STOPPING
                if child.is_worker:
                    child.tell("stop")
                else:
                    child.signal(signal.SIGTERM)
        self.timers.after(self.config.supervisor.stop_timeout_ms / 1000, self.kill_children)

    def kill_children(self) -> None:
        """SIGKILL to all that are left."""
        for child in self.children:
            if child.process is not None:
                log.warning("process_killed", name=child.name, child=child.pid)
                child.signal(signal.SIGKILL)
        if self._reader is not None:
            self._reader.kill()

    # Logs and configuration.

    def on_reopen(self) -> None:
        """USR1: the log file was moved away."""
        if not logging.reopen():
            log.info(
                "logs_not_reopened", reason="they go to standard error", cure="set log.file to log to a file"
            )
            return
        for child in self.children:
            child.tell("reopen_logs")
        log.info("logs_reopened")

    def on_hangup(self) -> None:
        """HUP: read the configuration again."""
        self.reload(lambda _change, _error: None)

    def reload(self, done: Callable[[Change | None, str], None]) -> None:
        """Reads the configuration in a child, takes over what can be, and calls done(change, error)."""
        if self._reader is not None:
            done(None, "the configuration is being read already")
            return

        def finish(config: Config | None, error: str) -> None:
            self._reader = None
            if config is None:
                self.counters.add("flux_supervisor_reloads_refused_total")
                log.error("reload_refused", reason=error)
                done(None, error)
            else:
                done(self._take_over(config), "")

        self._reader = ConfigReader(self, finish)
        self._reader.start()

    def _take_over(self, config: Config) -> Change:
        change = compare(self.config, config)
        self.config = change.config
        settings = self.config.log
        logging.configure(settings.level, settings.format, settings.file)
        self.control.max_clients = self.config.control.max_clients
        text = self.config.between_processes()
        for child in self.children:
            child.tell("reload", config=text)
        self.counters.add("flux_supervisor_reloads_total")
        log.info("config_reloaded", changed=change.changed)
        if change.needs_restart:
            log.warning("restart_needed", keys=change.needs_restart)
        return change

    def ask(self, child: Child, method: str, params: dict[str, Any], answer: states.Answer) -> None:
        """Asks a child; answer() is called once, after control.timeout_ms at the latest."""
        ask = child.ask(method, params, answer)

        def give_up() -> None:
            if child.give_up(ask):
                self.counters.add("flux_supervisor_asked_in_vain_total")

        self.timers.after(self.config.control.timeout_ms / 1000, give_up)

    # For the reader of configurations.

    def register(self, channel: Channel, run: Callable[[int], None]) -> None:
        self._selector.register(channel, selectors.EVENT_READ, run)

    def unregister(self, channel: Channel) -> None:
        self._selector.unregister(channel)

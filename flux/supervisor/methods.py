"""What the control socket can be asked."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from flux._version import __version__
from flux.cext.counters import NAMES
from flux.config.diff import Change
from flux.errors import FluxError
from flux.streams.registry import since_text
from flux.supervisor import child as states
from flux.supervisor.child import Child
from flux.supervisor.control import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, CallError, Reply

if TYPE_CHECKING:
    from flux.supervisor.supervisor import Supervisor

log = structlog.get_logger("flux.control")

_RELAY_STATES = ("waiting", "backing_off", "connecting", "connected")
_SESSION = re.compile(r"w(\d{1,2})-\d+")


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _Stream(msgspec.Struct, forbid_unknown_fields=True):
    stream: str = ""


class _Kick(msgspec.Struct, forbid_unknown_fields=True):
    session: str = ""
    stream: str = ""


class Methods:
    """Each replies at once, or when the workers have answered."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._methods: dict[str, tuple[type[msgspec.Struct], Callable[[Any, Reply], None]]] = {
            "version": (_Nothing, self._version),
            "status": (_Nothing, self._status),
            "streams": (_Nothing, self._streams),
            "sessions": (_Stream, self._sessions),
            "relays": (_Nothing, self._relays),
            "kick": (_Kick, self._kick),
            "stats": (_Nothing, self._stats),
            "drain": (_Nothing, self._drain),
            "reload": (_Nothing, self._reload),
            "stop": (_Nothing, self._stop),
        }

    def dispatch(self, method: str, params: dict[str, Any], reply: Reply) -> None:
        """Calls reply() once, at once or later, with the result or with a FluxError."""
        if method not in self._methods:
            known = ", ".join(self._methods)
            reply(CallError(f"there is no method {method[:60]}", f"there are {known}", METHOD_NOT_FOUND))
            return
        kind, run = self._methods[method]
        try:
            asked = msgspec.convert(params, kind)
        except msgspec.ValidationError as error:
            takes = ", ".join(kind.__struct_fields__) or "nothing"
            reply(CallError(f"{method}: {error}", f"it takes {takes}", INVALID_PARAMS))
            return
        try:
            run(asked, reply)
        except FluxError as error:
            reply(error)
        except Exception as error:  # a mistake of ours must not end the supervisor
            log.exception("call_failed", method=method)
            reply(CallError(f"{method} failed: {type(error).__name__}", "look at the log", INTERNAL_ERROR))

    def _version(self, _: _Nothing, reply: Reply) -> None:
        reply({"version": __version__, "python": platform.python_version(), "pid": self._supervisor._pid})

    def _status(self, _: _Nothing, reply: Reply) -> None:
        supervisor = self._supervisor
        now_s = time.monotonic()
        running = supervisor.state in ("starting", "running")
        reply(
            {
                "state": "running" if running else "draining",
                "since": supervisor.since.isoformat(timespec="milliseconds"),
                "uptime_s": round(now_s - supervisor.started_s, 3),
                "pid": supervisor._pid,
                "config": supervisor.config_path or "",
                "listeners": supervisor.addresses,
                "processes": [self._describe(child, now_s) for child in supervisor.children],
                "arena": {
                    "slots": supervisor.arena.slots,
                    "used": len(supervisor.arena.streams()),
                    "memory_bytes": supervisor.arena.memory_bytes,
                },
            }
        )

    def _describe(self, child: Child, now_s: float) -> dict[str, Any]:
        return {
            "name": child.name,
            "number": child.number,
            "pid": child.pid,
            "state": child.state,
            "restarts": max(0, child.starts - 1),
            "heartbeat_age_ms": round(1000 * self._supervisor.heartbeat_age_s(child, now_s)),
            "sessions": self._counter(child.number, "flux_worker_sessions"),
        }

    def _counter(self, number: int, name: str) -> int:
        return int(self._supervisor.arena.counters(number)[_NUMBERS[name]])

    def _streams(self, _: _Nothing, reply: Reply) -> None:
        rates = self._supervisor.rates
        reply(
            {
                "streams": [
                    {
                        **facts,
                        "worker": facts["owner"],
                        "since": since_text(facts["since_us"]),
                        **rates.of(facts),
                    }
                    for facts in self._supervisor.arena.streams()
                ]
            }
        )

    def _stats(self, _: _Nothing, reply: Reply) -> None:
        supervisor = self._supervisor
        numbers = {child.name: child.number for child in supervisor.children}
        numbers["supervisor"] = supervisor.arena.process
        slabs = {name: supervisor.arena.counters(number).tolist() for name, number in numbers.items()}
        reply(
            {
                "counters": {name: sum(slab[n] for slab in slabs.values()) for n, (name, _) in NAMES.items()},
                "processes": {
                    process: {name: slab[n] for n, (name, _) in NAMES.items()}
                    for process, slab in slabs.items()
                },
            }
        )

    def _sessions(self, asked: _Stream, reply: Reply) -> None:
        def finish(sessions: list[dict[str, Any]], missing: list[str]) -> None:
            sessions.sort(key=lambda session: session["since"])
            reply({"sessions": sessions, **({"missing": missing} if missing else {})})

        self._gather("sessions", {"stream": asked.stream}, finish)

    def _relays(self, _: _Nothing, reply: Reply) -> None:
        """Each once: an on-demand one is told of by the worker that has gone farthest with it."""

        def finish(found: list[dict[str, Any]], missing: list[str]) -> None:
            found.sort(key=lambda relay: _RELAY_STATES.index(relay["state"]))
            best = {relay["name"]: relay for relay in found}
            names = [relay.name for relay in self._supervisor.config.relays if relay.name in best]
            reply({"relays": [best[name] for name in names], **({"missing": missing} if missing else {})})

        self._gather("relays", {}, finish)

    def _gather(
        self,
        method: str,
        params: dict[str, Any],
        finish: Callable[[list[dict[str, Any]], list[str]], None],
    ) -> None:
        """What `method` lists, page by page from all workers, and the names of who does not answer."""
        found: list[dict[str, Any]] = []
        missing: list[str] = []
        workers = self._workers()
        left = len(workers)

        def turn(child: Child, after: int) -> None:
            def answer(page: Any, error: str) -> None:
                nonlocal left
                if error:
                    missing.append(child.name)
                else:
                    found.extend(page[method])
                    if page["after"]:
                        turn(child, page["after"])
                        return
                left -= 1
                if left == 0:
                    finish(found, sorted(missing))

            self._supervisor.ask(child, method, {**params, "after": after}, answer)

        if not workers:
            finish(found, missing)
        for child in workers:
            turn(child, 0)

    def _kick(self, asked: _Kick, reply: Reply) -> None:
        if bool(asked.session) == bool(asked.stream):
            raise CallError(
                "kick takes a session or a stream", 'as in {"session": "w0-000001"}', INVALID_PARAMS
            )
        workers = self._workers()
        if asked.session:
            named = _SESSION.fullmatch(asked.session)
            workers = [child for child in workers if named is not None and child.number == int(named[1])]
        left = len(workers)
        kicked = 0
        failures: list[str] = []

        def answer(count: Any, error: str) -> None:
            nonlocal left, kicked
            kicked += 0 if error else count
            failures.extend([error] if error else [])
            left -= 1
            if left == 0:
                finish()

        def finish() -> None:
            if kicked:
                reply({"kicked": kicked})
            elif failures:
                reply(CallError("; ".join(failures), "try again"))
            elif asked.session:
                reply(CallError(f"there is no session {asked.session}", "`flux sessions` lists them"))
            else:
                reply(
                    CallError(f"nobody publishes or plays {asked.stream}", "`flux sessions` lists who does")
                )

        if not workers:
            finish()
        for child in workers:
            self._supervisor.ask(child, "kick", {"session": asked.session, "stream": asked.stream}, answer)

    def _workers(self) -> list[Child]:
        return [
            child
            for child in self._supervisor.children
            if child.is_worker and child.state in (states.RUNNING, states.DRAINING)
        ]

    def _drain(self, _: _Nothing, reply: Reply) -> None:
        reply({"ok": True})
        self._supervisor.drain_children()

    def _stop(self, _: _Nothing, reply: Reply) -> None:
        reply({"ok": True})
        self._supervisor.stop_children()

    def _reload(self, _: _Nothing, reply: Reply) -> None:
        def done(change: Change | None, error: str) -> None:
            if change is None:
                reply(CallError(error, "mend it and reload again; Flux goes on with what it had"))
            else:
                reply({"changed": change.changed, "needs_restart": change.needs_restart})

        self._supervisor.reload(done)


_NUMBERS = {name: number for number, (name, _) in NAMES.items()}

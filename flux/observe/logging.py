"""Logs: one line a fact, to be read by people on a terminal and by programs elsewhere.

An event is a word (`process_started`), its facts are keys. Each line is one write(), so that processes which
share a file or a pipe don't mix their lines.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from flux.errors import UserError

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _Output:
    """Where lines go: standard error, or a file that reopen() opens anew after it was moved away."""

    def __init__(self) -> None:
        self.path = ""
        self.fd = 2

    def open(self, path: str) -> None:
        if path == self.path:
            return
        if path:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            except OSError as error:
                raise UserError(
                    f"can't log to {path}: {error.strerror}", "set log.file to a path that can be written"
                ) from None
        if self.fd != 2:
            os.close(self.fd)
        self.path, self.fd = path, fd if path else 2

    def reopen(self) -> bool:
        if not self.path:
            return False
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        return True

    def write(self, line: str) -> None:
        try:
            os.write(self.fd, line.encode("utf-8", "replace") + b"\n")
        except OSError:
            return  # a full disk or a closed pipe must not stop the media


_output = _Output()


class _Logger:
    """What structlog writes to; its name is the part of Flux that logs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        _output.write(line)

    debug = info = warning = error = critical = exception = msg


def _make_logger(*args: Any) -> _Logger:
    return _Logger(args[0] if args else "flux")


def _add_name(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.setdefault("logger", getattr(logger, "name", "flux"))
    return event


def _order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """When, how grave and what first; then the facts as they were given."""
    first = {
        key: event.pop(key) for key in ("timestamp", "level", "logger", "process", "event") if key in event
    }
    return {**first, **event}


def _for_people(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Milliseconds will do, and who speaks is more to them than which part of the program does."""
    event["timestamp"] = event["timestamp"][:-3]
    event["logger"] = event.pop("process", event["logger"])
    return event


def _as_json(event: Mapping[str, Any], **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


class _FromStdlib(logging.Handler):
    """Libraries that log by Python's logging: their records become lines like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        facts: MutableMapping[str, Any] = {"message": record.getMessage()}
        if record.exc_info:
            facts["exc_info"] = record.exc_info
        log.log(min(max(record.levelno, 10), 50) // 10 * 10, "library_message", **facts)


def configure(level: str = "info", format: str = "auto", file: str = "") -> None:
    """Sets up logging for this process and those that it forks; may be called again to change it.

    level: of LEVELS. format: "console", "json", or "auto" for console on a terminal. file: path, or "" for
    standard error. Raises UserError when the file can't be opened.
    """
    _output.open(file)
    console = format == "console" or (format == "auto" and not file and os.isatty(2))
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_name,
    ]
    if console:
        processors += [
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False),
            _for_people,
            structlog.dev.ConsoleRenderer(
                sort_keys=False,
                colors=not file and os.isatty(2) and "NO_COLOR" not in os.environ,
                pad_event_to=24,
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
    else:
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _order,
            structlog.processors.JSONRenderer(serializer=_as_json),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_make_logger,
        cache_logger_on_first_use=False,  # a changed level is to hold for loggers that are in use
    )
    root = logging.getLogger()
    root.handlers[:] = [_FromStdlib()]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(not sys.warnoptions)


def name_process(name: str) -> None:
    """Each line of this process says its name from now on."""
    structlog.contextvars.bind_contextvars(process=name)


def reopen() -> bool:
    """Opens the log file anew, after it was rotated. False: lines go to standard error, nothing was done."""
    return _output.reopen()


def log_fd() -> int:
    """The descriptor that lines go to."""
    return _output.fd

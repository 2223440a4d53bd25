"""The one hierarchy of errors: each says what was wrong, where, and what to do."""

from __future__ import annotations


class FluxError(Exception):
    """Base of all errors that Flux raises on purpose.

    what: what was wrong, and where. cure: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, cure: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}" if self.cure else self.what


class UserError(FluxError):
    """Bad input from a user: one clear line and exit code 2."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration that can't be used: unknown key, wrong type, value out of range."""


class StreamNameError(UserError):
    """A stream name outside `[A-Za-z0-9._~-]` and `/`."""


class StreamTakenError(FluxError):
    """A second publisher asked for a name that has a live one."""


class StreamNotFoundError(FluxError):
    """Nobody publishes under that name."""


class LimitError(FluxError):
    """A configured bound was reached: streams, sessions, buffers."""


class ControlError(FluxError):
    """The control socket could not be reached, or refused the call."""


class PeerError(FluxError):
    """The other side of a connection broke its protocol or went away."""

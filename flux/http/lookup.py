"""Streams by name, with refusals as HTTP answers."""

from __future__ import annotations

from flux.errors import LimitError, StreamNameError, StreamNotFoundError
from flux.http.connection import Connection
from flux.http.errors import HttpError, stream_not_found, unavailable
from flux.streams.context import WorkerContext
from flux.streams.names import check_name
from flux.streams.registry import StreamRef

_HINT = "publish it first, or look whether the name is right"


def find_stream(context: WorkerContext, name: str) -> StreamRef | None:
    """The stream, or None while nobody publishes it. Raises a 400 for a name that can't be one."""
    try:
        return context.streams.find(check_name(name))
    except StreamNameError as error:
        raise HttpError(400, "bad_stream_name", error.what, error.cure) from None


async def wait_for_stream(
    context: WorkerContext, connection: Connection, name: str, timeout_ms: int
) -> StreamRef:
    """The stream, at once or when it is published, while the client waits.

    Raises 400, 404 after `timeout_ms`, 503 when too many wait; ConnectionClosed when the client goes away.
    """
    found = find_stream(context, name)
    if found is not None:
        return found
    if timeout_ms <= 0:
        raise stream_not_found(name, _HINT)
    try:
        return await connection.until_gone(context.streams.wait(name, timeout_ms))
    except StreamNotFoundError:
        raise stream_not_found(name, _HINT) from None
    except LimitError as error:
        raise unavailable("too_many_waiting", error.what, error.cure) from None

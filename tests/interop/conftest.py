"""Fixtures of the tests with real clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.interop.media import Clip, make_clip
from tests.interop.server import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def media() -> Callable[..., Clip]:
    """media(codec, seconds=10): a clip, made once and kept in tests/media."""
    return cache(make_clip)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for a module's tests."""
    with Server() as running:
        yield running


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """start_server({"http.write_interval_ms": 0, …}): a server for this test only; it ends with the test."""
    with ExitStack() as stack:

        def start(settings: dict[str, Any] | None = None) -> Server:
            return stack.enter_context(Server(settings))

        yield start

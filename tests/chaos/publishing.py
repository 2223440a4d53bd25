"""Publishers that come back, each a process of its own so that one can be ended at any moment."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import multiprocess

from flux.errors import FluxError
from flux.srt.client import publish_file


def _publish(path: Path, url: str) -> None:
    with contextlib.suppress(FluxError, KeyboardInterrupt):
        publish_file(path, url, latency_ms=120)
    os._exit(0)


class Publisher:
    """Sends the file at `path` to `url`, from its beginning each time. restarts: times it began anew."""

    def __init__(self, name: str, path: Path, url: str) -> None:
        self.name = name
        self.restarts = -1
        self._path = path
        self._url = url
        self._process: Any = None
        self.restart()

    def restart(self) -> None:
        self.stop()
        self.restarts += 1
        context = multiprocess.get_context("fork")
        self._process = context.Process(target=_publish, args=(self._path, self._url), daemon=True)
        self._process.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._process = None

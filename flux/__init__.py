"""Flux: a live-media server for cameras and broadcasters."""

import os

from flux._version import __version__

__all__ = ["__version__"]

# numpy's OpenBLAS starts a thread a CPU when it is loaded, and a process that forks must have one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

"""Flux: a live-media server for cameras and broadcasters."""

from flux._version import __version__

__all__ = ["__version__"]

"""Streams and sessions of a worker: where protocols meet."""

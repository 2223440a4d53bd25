"""Stream names: `app/name`, any depth."""

from __future__ import annotations

import re

from flux.config.validate import K_MAX_NAME_BYTES, is_stream_name
from flux.errors import StreamNameError

_FORBIDDEN = re.compile(r"[^A-Za-z0-9._~/-]")
_CURE = "a name is parts of A-Z a-z 0-9 . _ ~ - joined by /, as in live/cam1"


def check_name(name: str) -> str:
    """Gives `name` back. Raises StreamNameError that says what is wrong with it."""
    if is_stream_name(name):
        return name
    if not name:
        what = "the stream name is empty"
    elif len(name) > K_MAX_NAME_BYTES:
        what = f"the stream name has more than {K_MAX_NAME_BYTES} bytes"
    elif (bad := _FORBIDDEN.search(name)) is not None:
        what = f"the stream name {name[:60]!a} has {bad.group()!a} in it"
    else:
        what = f'the stream name "{name[:60]}" has a part that is empty, "." or ".."'
    raise StreamNameError(what, _CURE)

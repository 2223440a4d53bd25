"""Where the control socket is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SYSTEM = Path("/run/flux/control.sock")


def candidates() -> list[Path]:
    """The places of a socket that no setting names, the first that can be used first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [SYSTEM]
    if runtime:
        places.append(Path(runtime) / "flux" / "control.sock")
    ours = Path(tempfile.gettempdir()) / f"flux-{os.getuid()}"
    # Anybody can make a folder there by our name, and answer our calls.
    if not os.path.lexists(ours) or (not ours.is_symlink() and ours.stat().st_uid == os.getuid()):
        places.append(ours / "control.sock")
    return places


def default_path() -> str:
    """The path at which a client looks: where there is a socket, or else where one would be made."""
    places = candidates()
    there = (place for place in places if place.is_socket())
    possible = (place for place in places if usable(place.parent))
    return str(next(there, None) or next(possible, SYSTEM))


def usable(folder: Path) -> bool:
    """Whether a socket can be made in that folder, which may have to be made first."""
    while not folder.exists():
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)

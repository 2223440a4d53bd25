"""The process tree: listeners, forks, signals, drain, control socket."""

from __future__ import annotations

from collections.abc import Sequence

from flux.config.schema import Config


def serve(config: Config, config_path: str | None = None, overrides: Sequence[str] = ()) -> int:
    """Runs Flux until its end; gives the exit code.

    config_path and overrides: what `config` was loaded from, for reloading it. Raises UserError when an
    address or the control socket can't be had.
    """
    from flux.supervisor.supervisor import Supervisor

    return Supervisor(config, config_path, overrides).run()

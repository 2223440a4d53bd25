"""`flux serve` and `flux check`."""

from __future__ import annotations

import argparse

from pydantic import BaseModel, SecretStr

from flux.cli.tables import as_json
from flux.config.load import flatten, load_config
from flux.config.schema import RelaySettings
from flux.config.secrets import shown_url
from flux.srt.encryption import require_library
from flux.srt.relay_url import check_relays


def serve(args: argparse.Namespace) -> int:
    """`flux serve`: runs Flux in the foreground; gives its exit code."""
    overrides = [*args.overrides, "demo.enabled=true"] if args.demo else args.overrides
    config = load_config(args.config, overrides)
    require_library(config.srt)
    check_relays(config)
    from flux.supervisor import serve as run

    return run(config, args.config, overrides)


def check(args: argparse.Namespace) -> int:
    """`flux check`: reads a configuration and tells what it would set."""
    config = load_config(args.config, args.overrides)
    require_library(config.srt)
    check_relays(config)
    settings = flatten(config)
    if args.json:
        print(as_json({key: _without_secrets(value) for key, value in settings.items()}))
        return 0
    defaults = flatten(load_config())
    changed = {key: value for key, value in settings.items() if value != defaults[key]}
    print(f"{args.config or 'the default configuration'} is good; {_count(len(changed))} not the default's")
    for key, value in changed.items():
        print(f"  {key} = {_shown(value)}")
    return 0


def _without_secrets(value: object) -> object:
    """Asterisks in the place of secrets."""
    if isinstance(value, dict):
        return {key: _without_secrets(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [_without_secrets(part) for part in value]
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value) if isinstance(value, SecretStr) else value


def _count(number: int) -> str:
    return f"{number} setting is" if number == 1 else f"{number} settings are"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(part)}" for key, part in value.items()) or "(none)"
    if isinstance(value, tuple):
        return ", ".join(_shown(part) for part in value) or "(none)"
    if isinstance(value, RelaySettings):
        return f"{value.name} ({value.direction} {value.stream}, {shown_url(value.url)})"
    return str(value) or '""'

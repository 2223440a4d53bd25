"""The configuration as a file that explains itself: each setting with default, bounds and meaning."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from flux.config.diff import needs_restart
from flux.config.schema import Config

_HEAD = """\
# The configuration of Flux: every setting, with its default. A file needs only what differs from these.
#
#   flux check --config FILE     tells whether it is good
#   flux reload                  takes it over while running, as SIGHUP does
#
# What stands in brackets are a setting's bounds, and "restart" where a change waits for the next start.
"""


def as_yaml() -> str:
    """YAML of all settings; reading it gives the defaults."""
    lines = [_HEAD]
    sections = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            sections.append((name, section))
        else:
            lines += _setting(name, name, field, "")
    for name, section in sections:
        lines += [f"# {section.__doc__}", f"{name}:"]
        for key, field in section.model_fields.items():
            lines += _setting(f"{name}.{key}", key, field, "  ")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _setting(path: str, name: str, field: FieldInfo, indent: str) -> list[str]:
    notes = "; ".join(_notes(path, field))
    text = field.description or f"The {name} of it."
    comment = f"{indent}# {text}" + (f" [{notes}]" if notes else "")
    lines = [comment, *_items(field), f"{indent}{name}: {_value(field.get_default())}"]
    return lines if indent else [*lines, ""]


def _items(field: FieldInfo) -> list[str]:
    """Of a list of sections, a comment for each of their settings."""
    kinds = get_args(field.annotation)
    if not kinds or not isinstance(kinds[0], type) or not issubclass(kinds[0], BaseModel):
        return []
    lines = []
    for name, item in kinds[0].model_fields.items():
        default = "" if item.is_required() else f" {_value(item.get_default())}"
        notes = "; ".join(_notes("", item))
        lines.append(f"#   {name}:{default}  # {item.description}" + (f" [{notes}]" if notes else ""))
    return lines


def _notes(path: str, field: FieldInfo) -> list[str]:
    least = next((item.ge for item in field.metadata if isinstance(item, Ge)), None)
    most = next((item.le for item in field.metadata if isinstance(item, Le)), None)
    notes = []
    if get_origin(field.annotation) is Literal:
        notes.append(", ".join(str(choice) for choice in get_args(field.annotation)))
    if least is not None and most is not None:
        notes.append(f"{least} to {most}")
    elif least is not None:
        notes.append(f"{least} or more")
    if needs_restart(path):
        notes.append("restart")
    return notes


def _value(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return json.dumps(list(value) if isinstance(value, tuple) else value)


if __name__ == "__main__":
    print(as_yaml(), end="")

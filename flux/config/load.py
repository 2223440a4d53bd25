"""Reads the configuration: embedded defaults, a file over them, and overrides over that."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from flux.config.schema import Config
from flux.config.validate import problems
from flux.errors import ConfigError

K_MAX_FILE_BYTES = 1 << 20
K_NEAR = 0.6  # how much alike two keys must be for one to be proposed for the other
_SECRETS = ("srt.passphrase", "srt.passphrases", "relays")


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """The configuration of the file at `path` (None: the defaults), with `overrides` such as
    "http.listen=127.0.0.1:0" on top.

    The suffix tells what the file is: .yaml, .yml, .toml or .json. Raises ConfigError that names the file,
    the key, and what to do.
    """
    values: dict[str, Any] = {}
    file = ""
    if path is not None:
        file = f"{path}: "
        values = _read(Path(path))
        _check_keys(values, Config, (), file)
    overridden = {_override(values, override) for override in overrides}

    def where(key: str) -> str:
        return key if key in overridden else f"{file}{key}"

    config = _validate(values, where)
    for key, what, cure in problems(config):
        raise ConfigError(f"{where(key)}: {what}", cure)
    return config


def keys(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting by its dotted key."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        section = _section(field)
        if section is None:
            found[prefix + name] = field
        else:
            found.update(keys(section, f"{prefix}{name}."))
    return found


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error rather than the later one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'"{key}" is there twice', problem_mark=key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[Any, Any]:
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".toml", ".json"):
        raise ConfigError(f"{path}: its suffix does not tell what it is", "name it .yaml, .toml or .json")
    try:
        with path.open("rb") as file:
            raw = file.read(K_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: {(error.strerror or str(error)).lower()}", "give --config a file that can be read"
        ) from None
    if len(raw) > K_MAX_FILE_BYTES:
        raise ConfigError(f"{path}: more than {K_MAX_FILE_BYTES} bytes", "this is no configuration of Flux")
    try:
        text = raw.decode()
        values: Any
        if suffix == ".toml":
            values = tomllib.loads(text)
        elif suffix == ".json":
            values = json.loads(text)
        else:
            values = yaml.load(text, _Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}:" if mark is not None else ""
        raise ConfigError(f"{path}:{line} {error.problem or error}", "mend the YAML there") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        kind = {".toml": "TOML", ".json": "JSON"}.get(suffix, "YAML")
        what = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path}: {what}", f"mend the {kind} there") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: sections were expected at the top", 'write it as "http:" and below it "  listen: …"'
        )
    return values


def _check_keys(values: dict[str, Any], model: type[BaseModel], at: tuple[str, ...], where: str) -> None:
    for name, value in values.items():
        path = (*at, str(name))
        field = model.model_fields.get(name) if isinstance(name, str) else None
        if field is None:
            raise _unknown(".".join(path), where)
        section = _section(field)
        if section is None:
            continue
        if not isinstance(value, dict):
            inside = ", ".join(section.model_fields)
            raise ConfigError(
                f"{where}{'.'.join(path)}: a section was expected, not {_shown(value)}", f"it has {inside}"
            )
        _check_keys(value, section, path, where)


def _unknown(key: str, where: str) -> ConfigError:
    every = list(keys())
    near = difflib.get_close_matches(key, every, 1, K_NEAR)
    if not near:  # the right name in the wrong section
        near = [other for other in every if other.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    if near:
        cure = f"did you mean {near[0]}?"
    else:
        section = Config.model_fields.get(key.partition(".")[0])
        model = _section(section) if section is not None else None
        cure = "known are " + ", ".join((model or Config).model_fields)
    return ConfigError(f"{where}{key}: no such setting", cure)


def _override(values: dict[str, Any], override: str) -> str:
    """Puts "key=text" into `values`, the text read as the setting's type wants it; gives the key."""
    key, equals, text = override.partition("=")
    key, text = key.strip(), text.strip()
    if not equals:
        raise ConfigError(f'"{override}" sets nothing', 'write it as "http.listen=127.0.0.1:8080"')
    field = keys().get(key)
    if field is None:
        raise _unknown(key, "")
    value: Any = text
    if get_origin(field.annotation) is tuple:
        value = [part.strip() for part in text.strip("[]()").split(",") if part.strip()]
    try:
        value = TypeAdapter[Any](cast(Any, field.annotation)).validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"{key}: {_message(error)}{_instead(key, text)}", _help(field)) from None
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    *sections, name = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[name] = value
    return key


def _validate(values: dict[str, Any], where: Callable[[str], str]) -> Config:
    try:
        # By way of JSON: strict about types, and a list is taken for a tuple.
        return Config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        parts = [part for part in first["loc"] if isinstance(part, str)]
        key = _path(first["loc"])
        field = keys().get(".".join(parts))
        if field is not None:
            cure = _help(field)
        elif (items := _items(keys().get(parts[0]))) is not None and len(parts) > 1:
            cure = _item_help(items, parts[1])
        else:
            cure = "mend it there"
        raise ConfigError(f"{where(key)}: {_message(error)}{_instead(key, first['input'])}", cure) from None


_MESSAGES = {
    "greater_than_equal": "it must be at least {ge}",
    "less_than_equal": "it must be at most {le}",
    "int_type": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "bool_type": "it must be true or false",
    "bool_parsing": "it must be true or false",
    "string_type": "it must be text",
    "tuple_type": "it must be a list",
    "model_type": "it must be a section of settings",
    "missing": "it is missing",
    "extra_forbidden": "no such setting",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must have at most {max_length} characters",
    "string_pattern_mismatch": "it must be of A-Z a-z 0-9 . _ ~ -",
    "too_long": "there can be at most {max_length}",
    "dict_type": "it must be a section of names and texts",
    "literal_error": "it must be {expected}",
}


def _message(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    form = _MESSAGES.get(first["type"])
    return form.format(**first.get("ctx", {})) if form else first["msg"]


def _path(location: tuple[int | str, ...]) -> str:
    """ "relays[0].url"; a number at the end is left out."""
    path = ""
    for part in location[:-1] if isinstance(location[-1], int) else location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _items(field: FieldInfo | None) -> type[BaseModel] | None:
    """What a setting is a list of, if that has settings of its own."""
    kinds = get_args(field.annotation) if field is not None else ()
    return kinds[0] if kinds and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel) else None


def _item_help(items: type[BaseModel], name: str) -> str:
    field = items.model_fields.get(name)
    if field is None:
        near = difflib.get_close_matches(name, items.model_fields, 1, K_NEAR)
        return f"did you mean {near[0]}?" if near else "known are " + ", ".join(items.model_fields)
    return (field.description or "").rstrip(".") if field.is_required() else _help(field)


def _help(field: FieldInfo) -> str:
    text = (field.description or "").rstrip(".")
    return f"its default is {_shown(field.get_default())} ({text})"


def _instead(key: str, value: Any) -> str:
    """Of a value that can't be used, what it is; nothing of one that is or holds a secret."""
    return "" if key.startswith(_SECRETS) else f", not {_shown(value)}"


def _shown(value: Any, most: int = 60) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= most else text[: most - 1] + "…"


def flatten(config: Config) -> dict[str, Any]:
    """Every setting's value by its dotted key."""
    found: dict[str, Any] = {}
    for key in keys():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        found[key] = value
    return found


def unflatten(values: dict[str, Any]) -> Config:
    """The configuration in which every setting has the value of its dotted key; the opposite of flatten()."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section = tree
        *sections, name = key.split(".")
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return Config.model_validate(tree)

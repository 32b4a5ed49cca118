"""YAML and `key=value` in, frozen Settings out; every error in one message, each with the name that was near."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lora_med.config.names import nearest
from lora_med.config.schema import Settings
from lora_med.errors import InputMissingError, SettingsError


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses duplicate keys and reads 1e-4 as a number, as YAML 1.2 does."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem=f"key {key!r} is not a plain word", problem_mark=key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"key {key!r} stands on lines {seen[key]} and {line}", problem_mark=key_node.start_mark
            )
        seen[key] = line
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


def _number(loader: _StrictLoader, node: yaml.ScalarNode) -> object:
    text = loader.construct_scalar(node)
    if node.style is None:
        try:
            return float(text) if any(c.isdigit() for c in text) and "e" in text.lower() and "_" not in text else text
        except ValueError:
            return text
    return text


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:str", _number)


def _load_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise SettingsError(f"not valid YAML: {error.problem}", where=place) from error


def _section(path: Sequence[str | int]) -> type[BaseModel] | None:
    """The settings class that holds the key at `path`, or None inside a free-form value."""
    model: Any = Settings
    for key in path[:-1]:
        field = model.model_fields.get(str(key)) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return None
        model = field.annotation
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _put(values: dict[str, Any], path: list[str], value: object, argument: str) -> None:
    for key in path[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise SettingsError(f"`{argument}`: {key!r} is a value, not a section", where="the command line")
    values[path[-1]] = value


def _override(values: dict[str, Any], argument: str) -> None:
    key, sign, text = argument.partition("=")
    if not sign or not key.strip():
        raise SettingsError(
            f"{argument!r} is not of the form section.key=value",
            where="the command line",
            fix="for example train.learning_rate=1e-4",
        )
    _put(values, key.strip().split("."), _load_yaml(text, f"the command line: {argument}") if text else None, argument)


def _known(section: type[BaseModel], name: str) -> str:
    here = list(section.model_fields)
    near = nearest(name, here)
    if near:
        return f"did you mean `{near}`?"
    for title, field in Settings.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found = nearest(name, inner.model_fields)
            if found == name or (found and section is Settings):
                return f"did you mean `{title}.{found}`?"
    return f"known: {', '.join(here)}"


def _describe(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(str(item) for item in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(item) for item in typing.get_args(annotation))
    return "nothing" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _line(error: Any) -> str:
    path = [
        key for key in error["loc"] if not (isinstance(key, str) and ("[" in key or key in ("float", "int", "literal")))
    ]
    dotted = ".".join(str(key) for key in path) or "the file"
    section = _section(path)
    if error["type"] == "extra_forbidden" and section is not None:
        return f"unknown key `{dotted}`: {_known(section, str(path[-1]))}"
    message = error["msg"].removeprefix("Value error, ")
    field = section.model_fields.get(str(path[-1])) if section is not None and path else None
    wanted = f"; wanted: {_describe(field.annotation)}" if field is not None and error["type"] != "value_error" else ""
    got = "" if error["type"] == "value_error" else f" (got {error['input']!r})"
    return f"`{dotted}`: {message}{got}{wanted}"


def parse(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file (or the defaults alone) with `section.key=value` overrides on top.

    Raises:
        InputMissingError: the file is not there.
        SettingsError: all that is wrong, one line each: key path, value got, what would be right, near name.
    """
    values: Any = {}
    where = "the command line"
    if path is not None:
        where = str(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise InputMissingError(
                f"cannot read the settings file: {error.strerror}",
                where=where,
                fix="ls recipes/configs shows those that ship",
            ) from error
        values = _load_yaml(text, where) or {}
        if not isinstance(values, dict):
            raise SettingsError(f"the file holds a {type(values).__name__}, not sections", where=where)
        values = {key: {} if value is None and key in Settings.model_fields else value for key, value in values.items()}
    for argument in overrides:
        _override(values, argument)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = list(dict.fromkeys(_line(item) for item in error.errors()))
        count = "1 setting is wrong" if len(lines) == 1 else f"{len(lines)} settings are wrong"
        raise SettingsError(
            count + ":\n  " + "\n  ".join(lines), where=where, fix="lora-med config schema lists every key"
        ) from error

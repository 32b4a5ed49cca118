"""YAML and `key=value` in, frozen Settings out; every error in one message, each with the name that was near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_med.config.explain import explain
from lora_med.config.read import COMMAND_LINE, Keys, put_override, read_file
from lora_med.config.schema import Settings
from lora_med.config.shipped import find_config
from lora_med.errors import InputMissingError, SettingsError


def _without(values: Any, path: Keys) -> Any:
    """A copy of nested `values` without what stands at `path`; of a list, all of it; at no key is everything."""
    if not path:
        return {}
    first, rest = path[0], path[1:]
    left = {key: value for key, value in values.items() if key != first}
    if rest and isinstance(values.get(first), dict):
        left[first] = _without(values[first], rest)
    return left


def _by_line(line: str) -> int:
    number = line.removeprefix("line ").partition(":")[0]
    return int(number) if number.isdigit() else 1_000_000


def _check(values: dict[str, Any], places: Mapping[Keys, str], where: str) -> Settings:
    """The settings that `values` make.

    Pydantic checks a section as a whole only once each of its fields is right; so what is wrong is noted, left out,
    and the rest checked again, until nothing more is found.
    """
    lines: list[str] = []
    left = values
    while True:
        try:
            settings = Settings.model_validate(left)
        except ValidationError as error:
            found = explain(error.errors(), left, places)
            lines += found.values()
            for path in found:
                left = _without(left, path)
            continue
        if not lines:
            return settings
        count = "1 setting is wrong" if len(lines) == 1 else f"{len(lines)} settings are wrong"
        raise SettingsError(
            "\n  ".join([f"{count}:", *sorted(lines, key=_by_line)]),
            where=where,
            fix="`lora-med config schema` lists every key",
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"the settings file is not UTF-8 text (byte {error.start})", where=str(path), fix="save it as UTF-8"
        ) from error
    except OSError as error:
        raise InputMissingError(
            f"cannot read the settings file: {error.strerror}",
            where=str(path),
            fix="`lora-med config list` shows those that ship",
        ) from error


def parse(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file (or the defaults alone) with `section.key=value` overrides on top.

    `path` may be the name of a file that ships, such as `micro_pubmed`.

    Raises:
        InputMissingError: the file is not there.
        SettingsError: all that is wrong, one line each: place, key, value got, what would be right, near name.
    """
    where = COMMAND_LINE if path is None else str(path)
    values, places = ({}, {}) if path is None else read_file(_text(find_config(path)), where)
    for argument in overrides:
        put_override(values, places, argument)
    return _check(values, {} if path is None else places, where)

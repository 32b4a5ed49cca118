"""YAML and `key=value` in, frozen Settings out; every error in one message, each with a near name."""

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
    """A copy of nested `values` without the value at `path`. An item of a list removes the list."""
    if not path:
        return {}
    first, rest = path[0], path[1:]
    remaining = {key: value for key, value in values.items() if key != first}
    if rest and isinstance(values.get(first), dict):
        remaining[first] = _without(values[first], rest)
    return remaining


def _line_number(message: str) -> int:
    number = message.removeprefix("line ").partition(":")[0]
    return int(number) if number.isdigit() else 1_000_000  # what came from the command line is shown last


def _check(values: dict[str, Any], lines: Mapping[Keys, str], where: str) -> Settings:
    """The settings that `values` make.

    Pydantic checks a section as a whole only when all its fields are right. So each wrong value is noted and removed,
    and the rest is checked again until no error remains.
    """
    messages: list[str] = []
    remaining = values
    while True:
        try:
            settings = Settings.model_validate(remaining)
        except ValidationError as error:
            explained = explain(error.errors(), remaining, lines)
            messages += explained.values()
            for path in explained:
                remaining = _without(remaining, path)
            continue
        if not messages:
            return settings
        count = "1 setting is wrong" if len(messages) == 1 else f"{len(messages)} settings are wrong"
        raise SettingsError(
            "\n  ".join([f"{count}:", *sorted(messages, key=_line_number)]),
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
            fix="check the path; `lora-med config list` names the files that ship",
        ) from error


def parse(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file (or the defaults alone) with `section.key=value` overrides on top.

    `path` may be the name of a file that ships, such as `micro_pubmed`.

    Raises:
        InputMissingError: the file does not exist.
        SettingsError: every error, one a line: line of the file, key, value, what is right, near name.
    """
    where = COMMAND_LINE if path is None else str(path)
    values, lines = ({}, {}) if path is None else read_file(_text(find_config(path)), where)
    for argument in overrides:
        put_override(values, lines, argument)
    return _check(values, {} if path is None else lines, where)

"""YAML and `key=value` in, plain values out, with the line of each: strict where YAML is lax.

A text field takes its value as written: `revision: 1234567`, `name: on` and `output_dir: 1e5` need no quotes.
In other fields `1e-4` is a number, as in YAML 1.2.
"""

from __future__ import annotations

import re
import types
import typing
from typing import Any

import yaml
from pydantic import BaseModel

from lora_med.config.schema import Settings
from lora_med.errors import SettingsError

Keys = tuple[str | int, ...]
_NUMBER = re.compile(r"[-+]?(\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+")
COMMAND_LINE = "the command line"
_TAG = "tag:yaml.org,2002:"


def branches(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation alone."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return tuple(b for a in typing.get_args(annotation) for b in branches(a)) if is_union else (_bare(annotation),)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def is_section(annotation: Any) -> bool:
    """Whether it is one of the settings' sections (or all of them)."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def inside(annotation: Any, key: str | int) -> Any:
    """The type of `key` in a value of that type; Any if it is not declared."""
    for branch in branches(annotation):
        origin, arguments = typing.get_origin(branch), typing.get_args(branch)
        if is_section(branch):
            field = branch.model_fields.get(str(key))
            return field.annotation if field is not None else Any
        if origin is dict and isinstance(key, str):
            return arguments[1]
        if origin is list and isinstance(key, int):
            return arguments[0]
    return Any


def wanted_at(path: Keys) -> Any:
    """The type that the settings declare at `path`."""
    annotation: Any = Settings
    for key in path:
        annotation = inside(annotation, key)
    return annotation


def _wants_text(annotation: Any) -> bool:
    return not set(branches(annotation)) - {str, type(None)} and annotation is not type(None)


def _wrong(problem: str | None, mark: yaml.Mark | None, where: str, line: int | None = None) -> SettingsError:
    number = line or (mark.line + 1 if mark is not None else None)
    line_of_file = f"{where}:{number}" if number and where != COMMAND_LINE else where
    fix = "check the indentation, brackets and quotes around that line"
    return SettingsError(f"not valid YAML: {problem}", where=line_of_file, fix=fix)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML would read as a number."""


_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"^{_NUMBER.pattern}$"), list("+-.0123456789"))


def to_yaml(values: Any) -> str:
    """`values` as YAML that reads back the same."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Reader:
    """Reads one text; `lines` collects the line of each value."""

    def __init__(self, where: str, lines: dict[Keys, str]) -> None:
        self.where = where
        self.lines = lines

    def read(self, text: str, path: Keys) -> Any:
        """The value of `text`, for `path` of the settings."""
        loader = None
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            return None if node is None else self._value(loader, node, path)
        except yaml.MarkedYAMLError as error:
            raise _wrong(error.problem, error.problem_mark, self.where) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise _wrong("a character that is not text", None, self.where, line) from error
        except RecursionError as error:
            raise _wrong("it refers to itself, or is nested too deep", None, self.where) from error
        finally:
            if loader is not None:
                loader.dispose()

    def _line(self, mark: yaml.Mark) -> str:
        return COMMAND_LINE if self.where == COMMAND_LINE else f"line {mark.line + 1}"

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, path: Keys) -> Any:
        self.lines[path] = self._line(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(loader, node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._value(loader, item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(loader, node, wanted_at(path))
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not allowed", problem_mark=node.start_mark)

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            mark, key = key_node.start_mark, key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{_TAG}str":
                shown = key if isinstance(key, str) else "of several values"
                raise yaml.MarkedYAMLError(problem=f"the key {shown} is not a plain word", problem_mark=mark)
            if key in first_lines:
                twice = f"the key {key!r} is on lines {first_lines[key]} and {mark.line + 1}"
                raise yaml.MarkedYAMLError(problem=twice, problem_mark=mark)
            first_lines[key] = mark.line + 1
            values[key] = self._value(loader, value_node, (*path, key))
            self.lines[(*path, key)] = self._line(mark)
        return values


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode, wanted: Any) -> Any:
    plain, text = node.style is None, node.value
    if node.tag == f"{_TAG}null":
        is_empty_section = not text and any(map(is_section, branches(wanted)))
        return {} if is_empty_section and type(None) in branches(wanted) else None
    if plain and _wants_text(wanted):
        return text
    if plain and _NUMBER.fullmatch(text):
        return float(text)
    is_switch = node.tag == f"{_TAG}bool" and not {bool, Any} & set(branches(wanted))  # `max_steps: yes` is not 1
    if is_switch or node.tag == f"{_TAG}timestamp" or (":" in text and node.tag in (f"{_TAG}int", f"{_TAG}float")):
        return text  # 12:30 is no number to anyone but YAML 1.1, and a date has no JSON
    return loader.construct_object(node)


def read_file(text: str, where: str) -> tuple[dict[str, Any], dict[Keys, str]]:
    """The values of a settings file, and the line of each by its path.

    Raises:
        SettingsError: it is not YAML, has a key twice, or holds no sections.
    """
    lines: dict[Keys, str] = {}
    values = _Reader(where, lines).read(text, ())
    if values is not None and not isinstance(values, dict):
        raise SettingsError(
            f"the file holds {'a list' if isinstance(values, list) else 'one value'}, not sections",
            where=where,
            fix="start with a section, such as `train:`, and indent its settings",
        )
    empty = {key for key, value in (values or {}).items() if value is None and is_section(wanted_at((key,)))}
    return {key: {} if key in empty else value for key, value in (values or {}).items()}, lines


def put_override(values: dict[str, Any], lines: dict[Keys, str], argument: str) -> None:
    """Set the value of `section.key=value` in `values`, over the value that is there.

    Raises:
        SettingsError: it is not of that form, or its value is not YAML.
    """
    name, sign, text = argument.partition("=")
    path: Keys = tuple(name.strip().split("."))
    if not sign or not all(path):
        raise SettingsError(
            f"{argument!r} is not of the form section.key=value",
            where=COMMAND_LINE,
            fix="for example train.learning_rate=1e-4",
        )
    inner = values
    for depth, key in enumerate(path[:-1], 1):
        if inner.get(str(key)) is None:
            inner[str(key)] = {}
        inner = inner[str(key)]
        if not isinstance(inner, dict):
            parent = ".".join(map(str, path[:depth]))
            raise SettingsError(f"`{argument}`: `{parent}` is a value, not a section", where=COMMAND_LINE)
    raw = _wants_text(wanted_at(path)) and text.strip()[:1] not in ("", "'", '"') and text.strip() not in ("null", "~")
    lines[path] = COMMAND_LINE
    try:
        inner[str(path[-1])] = text if raw else _Reader(COMMAND_LINE, lines).read(text, path)
    except SettingsError as error:
        raise SettingsError(f"`{argument}`: {error.what}", where=COMMAND_LINE, fix="put the value in quotes") from error

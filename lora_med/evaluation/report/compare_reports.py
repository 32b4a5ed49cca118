"""Two reports side by side: the paired difference where the items are the same, and what was not the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.errors import DataError, InputMissingError, IntegrityError
from lora_med.evaluation.measures import Change, Numbers, changes
from lora_med.evaluation.report.write_report import SCHEMA
from lora_med.evaluation.results import BASE
from lora_med.evaluation.scorers.registry import measures_of
from lora_med.files import read_json

SAME = ("scoring", "source", "split", "template", "asked")


@dataclass(frozen=True)
class Line:
    """One measure of one subject in both reports; `change` is second less first, None where the items differ."""

    what: str
    first_subject: str
    second_subject: str
    measure: str
    lower_is_better: bool | None
    first: float
    second: float
    change: Change | None


@dataclass(frozen=True)
class SideBySide:
    """All lines, and remarks on what was not the same: base, quantization, items, tasks of one report alone."""

    lines: tuple[Line, ...]
    remarks: tuple[str, ...]


def side_by_side(first: Path | str, second: Path | str, *, samples: int = 10_000, seed: int = 42) -> SideBySide:
    """Compare two reports that `lora-med eval` wrote.

    Args:
        first, second: their folders, or their report.json.

    Raises:
        InputMissingError: no report there.
        IntegrityError: it is none of ours.
        DataError: the two have no task in common.
    """
    one, other = _load(Path(first)), _load(Path(second))
    found: list[Line] = []
    remarks: list[str] = []
    for entry in one.entries:
        same = next((match for match in other.entries if all(match[key] == entry[key] for key in SAME)), None)
        name = f"{entry['source']}, {entry['template']}"
        if same is None:
            remarks.append(f"{name}, {entry['split']}: in the first report alone")
            continue
        remarks += _remarks(name, entry, same)
        found += _lines(name, _Scored(one.folder, entry), _Scored(other.folder, same), samples, seed)
    if not found:
        raise DataError("the two reports have no task in common", where=str(second), fix="score both on one source")
    return SideBySide(tuple(found), tuple(remarks))


@dataclass(frozen=True)
class _Report:
    folder: Path
    entries: Sequence[Mapping[str, Any]]


def _load(path: Path) -> _Report:
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise InputMissingError("no report.json there", where=str(path), fix="name a folder that lora-med eval wrote")
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise IntegrityError("not a report of lora-med eval", where=str(file), fix="name its folder or its report.json")
    return _Report(file.parent, content["evaluations"])


class _Scored:
    """One evaluation of a report, with the items beside it."""

    def __init__(self, folder: Path, entry: Mapping[str, Any]) -> None:
        self.entry = entry
        path = folder / str(entry["items_file"])
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.items: list[dict[str, Any]] = [json.loads(line) for line in lines]

    @property
    def subjects(self) -> dict[str, Mapping[str, Any]]:
        return {one["adapter"] or BASE: one for one in self.entry["subjects"]}

    def comparable(self, other: _Scored) -> bool:
        """Whether both scored the same items in the same columns."""
        mine, theirs = ([(one["uid"], one.get("answer")) for one in scored.items] for scored in (self, other))
        return bool(mine) and mine == theirs and self.entry["layout"] == other.entry["layout"]

    def table(self, subject: str) -> Numbers:
        """Items x columns, as the measures read them."""
        scores = [one[BASE] if subject == BASE else one["adapters"][subject] for one in self.items]
        return np.array([one["sums"] for one in scores], dtype=np.float64)


def _remarks(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    differing = [key for key in ("weights", "quantization", "dtype") if one["base"].get(key) != other["base"].get(key)]
    found = [f"{name}: the base's {key} is {one['base'].get(key)} and {other['base'].get(key)}" for key in differing]
    if one["items"] != other["items"]:
        found.append(f"{name}: {one['items']} items and {other['items']}")
    return found


def _lines(name: str, one: _Scored, other: _Scored, samples: int, seed: int) -> list[Line]:
    paired = one.comparable(other)
    known = {measure["name"]: measure for measure in one.entry["measures"]}
    found = []
    for mine, theirs in _pairs(list(one.subjects), list(other.subjects)):
        changed = _changes(one, mine, other, theirs, samples, seed) if paired else {}
        values = one.subjects[mine]["values"], other.subjects[theirs]["values"]
        for measure in (measure for measure in known if all(measure in value for value in values)):
            found.append(
                Line(
                    name,
                    mine,
                    theirs,
                    known[measure]["label"],
                    known[measure]["lower_is_better"],
                    values[0][measure]["value"],
                    values[1][measure]["value"],
                    changed.get(measure),
                )
            )
    return found


def _pairs(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
    """Subjects of one name; where no adapter has its like, each adapter with each."""
    shared = [(name, name) for name in first if name in second]
    if any(name != BASE for name, _ in shared):
        return shared
    return shared + [(one, other) for one in first for other in second if BASE not in (one, other)]


def _changes(one: _Scored, mine: str, other: _Scored, theirs: str, samples: int, seed: int) -> dict[str, Change]:
    measures = measures_of(one.entry["scoring"], one.entry["layout"])
    tables = one.table(mine), other.table(theirs)
    if np.array_equal(*tables):
        samples = 1  # equal answers: the difference is zero in every resample
    groups = [item["group"] for item in one.items]
    return changes(measures, *tables, groups, samples=samples, seed=seed)

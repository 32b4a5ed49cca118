"""Two reports side by side: the paired difference where the items are the same, and what differs otherwise."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.data.record import shown_uid
from lora_med.errors import DataError, InputMissingError, IntegrityError
from lora_med.evaluation.measures import Change, Numbers, changes
from lora_med.evaluation.report.write_report import SCHEMA
from lora_med.evaluation.results import BASE
from lora_med.evaluation.scorers.registry import measures_of
from lora_med.files import read_json

TASK_KEYS = ("scoring", "source", "split", "template", "asked")


@dataclass(frozen=True)
class Line:
    """One measure of one subject in both reports; `change` is second minus first, None where the items differ."""

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
    """All lines, and remarks on what differs: base, quantization, items, tasks that only one report has."""

    lines: tuple[Line, ...]
    remarks: tuple[str, ...]


def side_by_side(first: Path | str, second: Path | str, *, samples: int = 10_000, seed: int = 42) -> SideBySide:
    """Compare two reports that `lora-med eval` wrote.

    Args:
        first, second: their folders, or their report.json.

    Raises:
        InputMissingError: there is no report.
        IntegrityError: the file is not a report of lora-med.
        DataError: the reports have no task in common.
    """
    before, after = _load(Path(first)), _load(Path(second))
    lines: list[Line] = []
    remarks: list[str] = []
    for entry in before.entries:
        match = next((each for each in after.entries if all(each[key] == entry[key] for key in TASK_KEYS)), None)
        name = f"{entry['source']}, {entry['template']}"
        if match is None:
            remarks.append(f"{name}, {entry['split']}: only in the first report")
            continue
        remarks += _remarks(name, entry, match)
        lines += _lines(name, _Scored(before.folder, entry), _Scored(after.folder, match), samples, seed)
    if not lines:
        raise DataError(
            "the two reports have no task in common", where=str(second), fix="evaluate both on the same source"
        )
    return SideBySide(tuple(lines), tuple(remarks))


@dataclass(frozen=True)
class _Report:
    folder: Path
    entries: Sequence[Mapping[str, Any]]


def _load(path: Path) -> _Report:
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise InputMissingError("there is no report.json", where=str(path), fix="name a folder of lora-med eval")
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise IntegrityError("not a report of lora-med eval", where=str(file), fix="name its folder or its report.json")
    return _Report(file.parent, content["evaluations"])


class _Scored:
    """One evaluation of a report with the scores of its items."""

    def __init__(self, folder: Path, entry: Mapping[str, Any]) -> None:
        self.entry = entry
        path = folder / str(entry["items_file"])
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.items: list[dict[str, Any]] = [json.loads(line) for line in lines]

    @property
    def subjects(self) -> dict[str, Mapping[str, Any]]:
        return {subject["adapter"] or BASE: subject for subject in self.entry["subjects"]}

    def comparable(self, other: _Scored) -> bool:
        """Whether both scored the same items in the same columns."""
        mine, theirs = (
            [(shown_uid(item["uid"], scored.entry["access"]), item.get("answer")) for item in scored.items]
            for scored in (self, other)
        )
        return bool(mine) and mine == theirs and self.entry["layout"] == other.entry["layout"]

    def table(self, subject: str) -> Numbers:
        """The table of items x columns that the measures read."""
        scores = [item[BASE] if subject == BASE else item["adapters"][subject] for item in self.items]
        return np.array([score["sums"] for score in scores], dtype=np.float64)


def _remarks(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    bases = first["base"], second["base"]
    differing = [key for key in ("weights", "quantization", "dtype") if bases[0].get(key) != bases[1].get(key)]
    remarks = [f"{name}: the base's {key} is {bases[0].get(key)} and {bases[1].get(key)}" for key in differing]
    if first["items"] != second["items"]:
        remarks.append(f"{name}: {first['items']} items and {second['items']}")
    return remarks


def _lines(name: str, first: _Scored, second: _Scored, samples: int, seed: int) -> list[Line]:
    paired = first.comparable(second)
    known = {measure["name"]: measure for measure in first.entry["measures"]}
    lines = []
    for subject, other in _pairs(list(first.subjects), list(second.subjects)):
        changed = _changes(first, subject, second, other, samples, seed) if paired else {}
        values = first.subjects[subject]["values"], second.subjects[other]["values"]
        for measure in (measure for measure in known if all(measure in value for value in values)):
            lines.append(
                Line(
                    name,
                    subject,
                    other,
                    known[measure]["label"],
                    known[measure]["lower_is_better"],
                    values[0][measure]["value"],
                    values[1][measure]["value"],
                    changed.get(measure),
                )
            )
    return lines


def _pairs(first: Sequence[str], second: Sequence[str]) -> list[tuple[str, str]]:
    """Subjects with the same name; where no adapter has a namesake, every adapter with every other one."""
    shared = [(name, name) for name in first if name in second]
    if any(name != BASE for name, _ in shared):
        return shared
    return shared + [pair for pair in itertools.product(first, second) if BASE not in pair]


def _changes(first: _Scored, subject: str, second: _Scored, other: str, samples: int, seed: int) -> dict[str, Change]:
    measures = measures_of(first.entry["scoring"], first.entry["layout"])
    tables = first.table(subject), second.table(other)
    if np.array_equal(*tables):
        samples = 1  # equal answers: the difference is zero in every resample
    groups = [item["group"] for item in first.items]
    return changes(measures, *tables, groups, samples=samples, seed=seed)

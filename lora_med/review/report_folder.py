"""A report folder of `lora-med eval`, opened to read: its evaluations and the line of each item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.evaluation.report.write_report import SCHEMA
from lora_med.evaluation.results import BASE
from lora_med.files import read_json, readable, sha256_file

TEXTS = ("access", "scoring", "source", "template", "split", "items_file")
COMPARED: dict[str, Any] = {
    **dict.fromkeys(("source", "template", "adapter", "measure", "test", "verdict"), str),
    **dict.fromkeys(("p_value", "adjusted"), (int, float, type(None))),
}
RATED: dict[str, Any] = {
    **dict.fromkeys(("study", "source", "split", "template", "adapter", "against", "created"), str),
    "win_difference": dict,
    "sentences": list,
}
NEEDED: dict[str, type] = {
    **dict.fromkeys(TEXTS, str),
    "items": int,
    "layout": dict,
    "measures": list,
    "subjects": list,
}


@dataclass(frozen=True)
class ReportEvaluation:
    """One evaluation of a report: its entry of report.json, and its items from the file that the entry names."""

    folder: Path
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def items_path(self) -> Path:
        """The file of the items."""
        return self.folder / str(self.entry["items_file"])

    @property
    def adapters(self) -> tuple[str, ...]:
        """The adapters that were scored, in the report's order."""
        return tuple(subject["adapter"] for subject in self.entry["subjects"] if subject["adapter"] is not None)

    @property
    def access(self) -> str:
        """The access class of the items."""
        return str(self.entry["access"])

    @property
    def name(self) -> str:
        """Source, split and template, for a reader."""
        return f"{self.entry['source']}, {self.entry['split']}, {self.entry['template']}"

    @cached_property
    def items(self) -> tuple[Mapping[str, Any], ...]:
        """The items in the report's order.

        Raises:
            InputMissingError: the file is not there.
            IntegrityError: a line is not an item; the message names the line, never its text.
        """
        path = self.items_path
        with readable(path):
            lines = path.read_bytes().splitlines()
        items = tuple(_item(line, f"{path}:{number}", self.adapters) for number, line in enumerate(lines, 1))
        if len(items) != self.entry["items"] or not items:
            raise IntegrityError(
                f"the file has {len(items):,} items, and report.json says {self.entry['items']}",
                where=str(path),
                fix="run lora-med eval again",
            )
        return items

    @property
    def sha256(self) -> str:
        """The hash of the items' file."""
        return sha256_file(self.items_path)


@dataclass(frozen=True)
class ReportFolder:
    """A report: its folder, the content of report.json and its evaluations."""

    folder: Path
    content: Mapping[str, Any] = field(repr=False)
    evaluations: tuple[ReportEvaluation, ...]

    @property
    def title(self) -> str:
        """The report's heading."""
        return str(self.content.get("title", ""))

    @property
    def p_values(self) -> tuple[float, ...]:
        """The p-values of the comparisons that the report makes: further tests count among them."""
        known = (each.get("p_value") for each in self.content.get("comparisons", []))
        return tuple(float(each) for each in known if each is not None)

    @property
    def sha256(self) -> str:
        """The hash of report.json."""
        return sha256_file(self.folder / "report.json")


def open_report(path: Path | str) -> ReportFolder:
    """The report in a folder, or of a report.json.

    Raises:
        InputMissingError: there is no report.
        IntegrityError: the file is not a report of lora-med, or an entry of it lacks what a report has.
    """
    path = Path(path)
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise InputMissingError("there is no report.json", where=str(path), fix="name a folder of lora-med eval")
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise _not_a_report(str(file))
    entries = content.get("evaluations")
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise _not_a_report(f"{file}, evaluations")
    for name, fields in (("comparisons", COMPARED), ("ratings", RATED)):
        listed = content.get(name, [])
        if not isinstance(listed, list) or not all(_has(each, fields) for each in listed):
            raise _not_a_report(f"{file}, {name}")
    return ReportFolder(file.parent, content, tuple(ReportEvaluation(file.parent, entry) for entry in entries))


def outputs_of(item: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
    """What an item's line holds of the base or of one adapter."""
    return item[BASE] if subject == BASE else item["adapters"][subject]


def written_by(item: Mapping[str, Any], subject: str) -> str | None:
    """The text that a subject wrote for an item; None where the report holds none."""
    written = outputs_of(item, subject).get("written")
    return written if isinstance(written, str) else None


def choose_evaluation(report: ReportFolder, template: str | None) -> ReportEvaluation:
    """The evaluation with that template, or the only one of the report.

    Raises:
        SettingsError: there is none, or there are several.
    """
    matches = [each for each in report.evaluations if template in (None, each.entry["template"])]
    if len(matches) == 1:
        return matches[0]
    known = ", ".join(str(each.entry["template"]) for each in report.evaluations)
    problem = "has several evaluations" if matches else f"has no evaluation with the template {template!r}"
    raise SettingsError(f"the report {problem}; its templates: {known}", where="--template", fix="name one of them")


def choose_adapter(evaluation: ReportEvaluation, name: str | None) -> str:
    """The adapter of that name, or the only one of the evaluation.

    Raises:
        SettingsError: there is none, or there are several.
    """
    matches: Sequence[str] = [each for each in evaluation.adapters if name in (None, each)]
    if len(matches) == 1:
        return matches[0]
    problem = "scored several adapters" if matches else f"scored no adapter named {name!r}"
    known = ", ".join(evaluation.adapters) or "none"
    raise SettingsError(f"the report {problem}; its adapters: {known}", where="--adapter", fix="name one of them")


def _item(line: bytes, where: str, adapters: Sequence[str]) -> Mapping[str, Any]:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("not valid JSON", where=where, fix="run lora-med eval again") from error
    subjects = item.get("adapters") if isinstance(item, dict) else None
    outputs = [item.get(BASE), *(subjects.get(name) for name in adapters)] if isinstance(subjects, dict) else [None]
    if not all(map(_is_output, outputs)) or not isinstance(item.get("uid"), str) or "group" not in item:
        raise IntegrityError("not an item of a report", where=where, fix="run lora-med eval again")
    return item


def _is_output(outputs: object) -> bool:
    sums = outputs.get("sums") if isinstance(outputs, dict) else None
    return isinstance(sums, list) and bool(sums) and all(isinstance(each, int | float) for each in sums)


def _has(entry: object, fields: Mapping[str, Any]) -> TypeGuard[dict[str, Any]]:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in fields.items())


def _is_entry(entry: object) -> bool:
    if not _has(entry, NEEDED):
        return False
    name = entry["items_file"]
    is_plain = bool(name) and Path(name).name == name
    return is_plain and all(isinstance(each, dict) and "adapter" in each for each in entry["subjects"])


def _not_a_report(where: str) -> IntegrityError:
    return IntegrityError("not a report of lora-med eval", where=where, fix="name its folder or its report.json")

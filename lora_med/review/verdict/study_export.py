"""The ratings of an unsealed study as files for other programs.

| file | holds |
|---|---|
| export.json | plan, seed, the event that unsealed it, hashes of texts and sealed sides |
| ratings.jsonl, ratings.csv | one row for each rating that counts, its sides opened |
| pairs.jsonl | `prompt`, `chosen`, `rejected` of each item with a winner, as preference training reads them |
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_med.data.record import SHOWN_CLASSES
from lora_med.errors import NotPermittedError
from lora_med.files import read_json, write_atomic, write_json
from lora_med.folders import fresh_folder
from lora_med.review.blind.rating import AXES, Rating
from lora_med.review.blind.rating_log import RatingLog, unsealed
from lora_med.review.blind.study import SEALED, Study
from lora_med.review.verdict.observations import Observation, observe

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet reads as the beginning of a formula
NAMES = {1: "adapter", -1: "other", 0: "equal"}


def export_study(study: Study, out: Path) -> dict[str, int]:
    """Write the files into the new folder `out`; returns how many ratings and pairs they hold.

    Raises:
        NotPermittedError: the study is sealed, or its items are credentialed: their text is in no export.
        OutputError, DiskError: the folder is not empty or cannot be written.
    """
    if study.plan["access"] not in SHOWN_CLASSES:
        raise NotPermittedError(
            f"the items are {study.plan['access']}, so nothing of them is exported",
            where=str(study.folder),
            fix="lora-med review verdict STUDY gives the counts and intervals",
        )
    event = unsealed(study)
    if event is None:
        raise NotPermittedError(
            "the study is sealed", where=str(study.folder), fix='lora-med review unseal STUDY --reason "..."'
        )
    ratings = RatingLog(study).current()
    observations = observe(study, ratings)
    rows = [_row(study, each, ratings[each.assignment.id]) for each in observations]
    pairs = list(preference_pairs(study, observations))
    with fresh_folder(out) as folder:
        about = {"plan": dict(study.plan), "seed": read_json(study.folder / SEALED)["seed"], "unsealed": event}
        write_json(folder / "export.json", about)
        write_atomic(folder / "ratings.jsonl", _lines(rows))
        write_atomic(folder / "ratings.csv", _csv(rows))
        write_atomic(folder / "pairs.jsonl", _lines(pairs))
    return {"ratings": len(rows), "pairs": len(pairs)}


def preference_pairs(study: Study, observations: list[Observation]) -> Iterator[dict[str, str]]:
    """The chosen and the rejected answer of each item that one side won, over its ratings without hidden repeats."""
    totals: Counter[int] = Counter()
    for each in observations:
        if each.assignment.kind != "repeat" and each.outcome is not None:
            totals[each.assignment.item] += each.outcome
    for number, total in sorted(totals.items()):
        item = study.items[number]
        both = (item.adapter_text, item.other_text) if total > 0 else (item.other_text, item.adapter_text)
        if total:
            yield {"uid": item.uid, "prompt": item.prompt, "chosen": both[0], "rejected": both[1]}


def harmless(text: str) -> str:
    """The text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.lstrip(" \n").startswith(FORMULA) else text


def _row(study: Study, observation: Observation, rating: Rating) -> dict[str, Any]:
    assignment = observation.assignment
    item = study.items[assignment.item]
    return {
        "uid": item.uid,
        "rater": assignment.rater,
        "position": assignment.position,
        "kind": assignment.kind,
        "stratum": item.stratum,
        "adapter_side": assignment.adapter_side,
        "choice": observation.category,
        **{name: NAMES[observation.axes[name]] if name in observation.axes else "" for name in AXES},
        "comment": rating.comment,
        "marks": [
            {"of": "adapter" if mark.side == assignment.adapter_side else "other", "start": mark.start}
            | {"end": mark.end, "kind": mark.kind}
            for mark in rating.marks
        ],
    }


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    names = list(rows[0]) if rows else ["uid"]
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


def _cell(value: object) -> str:
    return harmless(json.dumps(value) if isinstance(value, list | Mapping) else str(value))

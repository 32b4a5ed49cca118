"""Pairs of answers from a report: of two that were written for one item, the one whose claims the source supports.

The answers are those of a report on a validation split, of the base and of adapters. The check is that of
metrics/faithfulness.py. An answer is chosen over another only if it has fewer unsupported claims and no fewer supported
ones, so nothing is won by saying less. What learns from such pairs learns to pass the check. So the check is never its
score: each row says so, and so does the card of an adapter that is trained on them.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.data.record import Record, shown_uid
from lora_med.data.shapes.preferences import FAITHFULNESS, mined_by
from lora_med.errors import DataError, InputMissingError, IntegrityError, NotPermittedError, SettingsError
from lora_med.evaluation.report.write_report import SCHEMA
from lora_med.evaluation.results import BASE
from lora_med.evaluation.scorers.writing_answers import source_of
from lora_med.files import read_json, readable
from lora_med.metrics.faithfulness import faithfulness
from lora_med.prompts.render import render
from lora_med.prompts.row import Row

WRITING, VALIDATION = "writing", "validation"
GROUP = "pairs of "  # before the name of a record's group
AGAIN = "lora-med eval --split validation --template TEMPLATE, with an adapter"


@dataclass(frozen=True)
class WrittenAnswers:
    """The evaluation of a report that holds written answers: its facts, and each item's answers by subject."""

    source: str
    template: str
    access: str
    adapters: tuple[str, ...]
    answers: Mapping[str, Mapping[str, str]] = field(repr=False)  # uid as the report shows it -> subject -> text


@dataclass(frozen=True)
class MinedPairs:
    """Rows of a preference file, and how many items gave none, by reason."""

    rows: list[dict[str, Any]] = field(repr=False)
    items: int
    left_out: Mapping[str, int]


def read_written(report: Path) -> WrittenAnswers:
    """The written answers of a report folder, by item.

    Raises:
        InputMissingError: there is no report.
        IntegrityError: it is not a report of lora-med, or its items are not those that it counts.
        SettingsError: the report is on the test split, or nothing was written for it.
        NotPermittedError: the class of the data does not let a report hold texts.
    """
    file = report / "report.json" if report.is_dir() else report
    if not file.is_file():
        raise InputMissingError("there is no report.json", where=str(report), fix="name a folder of lora-med eval")
    content = read_json(file)
    evaluations = content.get("evaluations") if isinstance(content, dict) else None
    if not isinstance(evaluations, list) or content.get("schema") != SCHEMA:
        raise IntegrityError("this is not a report of lora-med eval", where=str(file), fix=AGAIN)
    written = [entry for entry in evaluations if isinstance(entry, dict) and entry.get("scoring") == WRITING]
    if len(written) != 1:
        raise SettingsError(
            f"the report has {len(written)} evaluations with the scoring {WRITING!r}; pairs are made of exactly one",
            where=str(file),
            fix=AGAIN,
        )
    entry = written[0]
    if entry.get("split") != VALIDATION:
        raise SettingsError(
            f"the report is on the split {entry.get('split')!r}: what learns from its pairs would have seen the test",
            where=str(file),
            fix=AGAIN,
        )
    return _answers(entry, file)


def _answers(entry: Mapping[str, Any], file: Path) -> WrittenAnswers:
    path = file.parent / str(entry.get("items_file"))
    with readable(path):
        lines = path.read_bytes().splitlines()
    try:
        items = [json.loads(line) for line in lines]
        answers = {item["uid"]: _by_subject(item) for item in items}
        subjects = tuple(each["adapter"] for each in entry["subjects"] if each["adapter"] is not None)
        facts = str(entry["source"]), str(entry["template"]), str(entry["access"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError("a line is not an item of a report", where=str(path), fix=AGAIN) from error
    if len(lines) != entry.get("items"):
        raise IntegrityError(
            f"the file has {len(lines)} items, and report.json says {entry.get('items')}", where=str(path), fix=AGAIN
        )
    if not any(answers.values()):
        raise NotPermittedError(
            f"the report holds no texts: the access class of its data is {facts[2]}",
            where=str(path),
            fix="only reports on open data hold the answers",
        )
    return WrittenAnswers(*facts, subjects, answers)


def _by_subject(item: Mapping[str, Any]) -> dict[str, str]:
    subjects = {BASE: item[BASE], **item["adapters"]}
    return {name: facts["written"] for name, facts in subjects.items() if isinstance(facts.get("written"), str)}


def mine_pairs(written: WrittenAnswers, records: Sequence[Record]) -> MinedPairs:
    """Pairs of the answers to the records, at most one for each item.

    Args:
        records: those that the report scored, with their texts; others are not used.

    Raises:
        DataError: none of the report's items is among the records.
    """
    by_uid = {shown_uid(record.uid, written.access): record for record in records}
    known = [uid for uid in written.answers if uid in by_uid]
    if not known:
        raise DataError(
            f"none of the report's {len(written.answers):,} items is among the {len(records):,} records",
            where="--data",
            fix="name the files that were evaluated",
        )
    left_out: Counter[str] = Counter({"not_among_records": len(written.answers) - len(known)})
    rows: list[dict[str, Any]] = []
    for uid, row in zip(known, render([by_uid[uid] for uid in known], written.template, "drop"), strict=True):
        record = by_uid[uid]
        texts = list(dict.fromkeys(text.strip() for text in written.answers[uid].values() if text.strip()))
        best = _best(source_of(record, row), texts)
        if best is None:
            left_out["same_answers" if len(texts) < 2 else "no_better_answer"] += 1
        else:
            rows.append(_row(record, row, *best))
    return MinedPairs(rows, len(written.answers), {reason: count for reason, count in left_out.items() if count})


def _best(source: str, texts: Sequence[str]) -> tuple[str, str] | None:
    """Of the pairs of which one is better by the check, that with the largest difference in unsupported claims."""
    counts = {text: faithfulness(source, text) for text in texts}

    def candidates() -> Iterator[tuple[int, str, str]]:
        for chosen, rejected in itertools.permutations(texts, 2):
            better, worse = counts[chosen], counts[rejected]
            says_as_much = better.facts - better.faults >= worse.facts - worse.faults
            if better.faults < worse.faults and says_as_much:
                yield worse.faults - better.faults, chosen, rejected

    best = max(candidates(), key=lambda each: each[0], default=None)
    return None if best is None else (best[1], best[2])


def _row(record: Record, row: Row, chosen: str, rejected: str) -> dict[str, Any]:
    """A row of a preference file, which `custom` reads back: the prompt as the model saw it.

    The group has another name than the record's: all records are of one split, and the rows must be split again.
    """
    lead = row.completion[: len(row.completion) - len(row.completion.lstrip())]
    names = {
        "uid": record.uid,
        "group": f"{GROUP}{record.group}",
        "source": record.source,
        "mined_by": mined_by(FAITHFULNESS),
    }
    if not row.turns:
        return {**names, "kind": "pair", "prompt": row.prompt, "chosen": lead + chosen, "rejected": lead + rejected}
    turns = [{"role": role, "content": content} for role, content in row.turns[:-1]]
    sides = {
        side: [{"role": "assistant", "content": text}] for side, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {**names, "kind": "conversation", "prompt": turns, **sides}

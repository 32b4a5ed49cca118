"""A report of invented notes, written by write_report, and the file of the records that were answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from lora_med.evaluation.measures import changes, values
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.results import Evaluation, Item, Subject
from lora_med.evaluation.scorers.writing_answers import COLUMN_OF, WritingItem, writing_measures, writing_table

DRUGS = ("aspirin", "warfarin", "metformin", "ibuprofen", "digoxin")
Answer = Callable[[int, str, int], str]


def note(number: int) -> tuple[str, str, int]:
    """Drug, source text and dose of the item with this number."""
    drug, dose = DRUGS[number % len(DRUGS)], 10 * (number + 1)
    return drug, f"Doctor: Which drug? Patient: I take {drug} {dose} mg daily. I have no fever.", dose


def base_answer(number: int, drug: str, dose: int) -> str:
    """A wrong dose in every third item."""
    return f"The patient takes {drug} {dose + (5 if number % 3 == 0 else 0)} mg. Fever is present."


def adapter_answer(number: int, drug: str, dose: int) -> str:
    return f"The patient takes {drug} {dose} mg daily. No fever."


def make_report(
    folder: Path,
    count: int = 40,
    base: Answer = base_answer,
    adapters: dict[str, Answer] | None = None,
    access: str = "open",
) -> tuple[Path, Path]:
    """The folder of the report, and the JSON lines of its records."""
    numbers = range(count)
    made = [note(number) for number in numbers]
    references = [f"Takes {drug} {dose} mg daily; no fever." for drug, _, dose in made]
    answers: dict[str | None, Answer] = {None: base, **({"notes": adapter_answer} if adapters is None else adapters)}
    written = {name: tuple(answer(n, made[n][0], made[n][2]) for n in numbers) for name, answer in answers.items()}
    items = [
        WritingItem(f"u{n}", f"g{n}", (1,), source, reference, 8)
        for n, ((_, source, _), reference) in enumerate(zip(made, references, strict=True))
    ]
    measures, groups = writing_measures(), [item.group for item in items]
    tables = {name: writing_table(items, texts) for name, texts in written.items()}
    subjects = tuple(
        Subject(
            adapter=name,
            values=values(measures, table, groups, samples=200, seed=1),
            changes={} if name is None else changes(measures, tables[None], table, groups, samples=200, seed=1),
            table=table,
            facts=tuple({"words": len(text.split())} for text in written[name]),
            seconds=1.0,
            written=written[name] if access != "credentialed" else (),
        )
        for name, table in tables.items()
    )
    evaluation = Evaluation(
        scoring="writing",
        source="custom",
        split="test",
        template="pair",
        access=access,
        base={"name": "micro", "revision": None, "weights": "ab", "quantization": "none", "dtype": "float32"},
        items=tuple(Item(item.uid, item.group) for item in items),
        measures=measures,
        subjects=subjects,
        bootstrap_samples=200,
        seed=1,
        layout={"columns": list(COLUMN_OF)},
        created="2026-01-02T03:04:05Z",
    )
    report = write_report([evaluation], folder / "report", title="Notes, base and adapter")
    data = folder / "records.jsonl"
    data.write_text("".join(json.dumps(_record(item)) + "\n" for item in items), encoding="utf-8")
    return report.json.parent, data


def _record(item: WritingItem) -> dict[str, str]:
    fields = {"uid": item.uid, "group": item.group, "source": "custom", "kind": "pair"}
    return {**fields, "input": item.source, "output": item.reference}

"""What was asked for each item of a report: its prompt and reference, read again from the evaluated files by uid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import shown_uid
from lora_med.errors import DataError
from lora_med.prompts.render import render
from lora_med.review.report_folder import ReportEvaluation


@dataclass(frozen=True)
class ItemText:
    """The prompt that was answered, as text, and the reference answer."""

    prompt: str
    reference: str


def read_item_texts(evaluation: ReportEvaluation, paths: Sequence[str]) -> dict[str, ItemText]:
    """uid as the report shows it -> its prompt and reference, for the items that the files hold.

    Raises:
        InputMissingError, DataError: the files cannot be read, or none of the report's items is in them.
    """
    source = find_source(str(evaluation.entry["source"]))
    wanted = {item["uid"] for item in evaluation.items}
    records = [
        record
        for record in read_records(source, find_inputs(source, paths), ReadOptions(), access=evaluation.access)
        if shown_uid(record.uid, evaluation.access) in wanted
    ]
    if not records:
        raise DataError(
            f"none of the report's {len(wanted):,} items is in these files",
            where=f"--data {' '.join(paths)}",
            fix="name the files that were evaluated",
        )
    texts = {}
    for row in render(records, str(evaluation.entry["template"]), "drop"):
        prompt = row.prompt or "\n\n".join(content for _, content in row.turns[:-1])
        texts[shown_uid(row.uid, evaluation.access)] = ItemText(prompt.strip(), row.completion.strip())
    return texts

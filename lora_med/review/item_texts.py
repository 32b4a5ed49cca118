"""What was asked for each item of a report: its prompt and reference, read again from the evaluated files by uid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadNotes, ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Pair, Question, Record, shown_uid
from lora_med.errors import DataError, InputMissingError
from lora_med.prompts.render import render
from lora_med.review.report_folder import ReportEvaluation


@dataclass(frozen=True)
class ItemText:
    """The prompt that was answered, as text, the reference answer, and the subject where the source names one.

    Of a question that is the exam's subject, of a pair the section that was asked for.
    """

    prompt: str
    reference: str
    subject: str = ""


@dataclass(frozen=True)
class ItemReading:
    """How the evaluated files are read: as the adapter's card has it, such as which column holds the question."""

    options: ReadOptions = field(default_factory=ReadOptions)
    skip_bad: bool = False

    def again(self) -> ReadOptions:
        """The options for one more reading: notes are filled while reading, so each reading has its own."""
        return replace(self.options, notes=ReadNotes())


def read_item_texts(
    evaluation: ReportEvaluation, paths: Sequence[str], reading: ItemReading | None = None
) -> dict[str, ItemText]:
    """uid as the report shows it -> its prompt and reference, for the items that the files hold.

    Raises:
        InputMissingError, DataError: the files cannot be read, or none of the report's items is in them.
    """
    source = find_source(str(evaluation.entry["source"]))
    wanted = {item["uid"] for item in evaluation.items}
    how = reading or ItemReading()
    every = read_records(
        source, find_inputs(source, paths), how.again(), skip_bad=how.skip_bad, access=evaluation.access
    )
    records = [record for record in every if shown_uid(record.uid, evaluation.access) in wanted]
    if not records:
        raise DataError(
            f"none of the report's {len(wanted):,} items is in these files",
            where=f"--data {' '.join(paths)}",
            fix="name the files that were evaluated",
        )
    subjects = {record.uid: _subject(record) for record in records}
    texts = {}
    for row in render(records, str(evaluation.entry["template"]), "drop"):
        prompt = row.prompt or "\n\n".join(content for _, content in row.turns[:-1])
        texts[shown_uid(row.uid, evaluation.access)] = ItemText(
            prompt.strip(), row.completion.strip(), subjects[row.uid]
        )
    return texts


def read_fitting_texts(evaluation: ReportEvaluation, paths: Sequence[str], reading: ItemReading) -> dict[str, ItemText]:
    """As `read_item_texts`, where some of the files may be those of another evaluation.

    Raises:
        InputMissingError, DataError: none of them can be read as this evaluation's, or holds one of its items.
    """
    try:
        return read_item_texts(evaluation, paths, reading)
    except (DataError, InputMissingError):
        texts: dict[str, ItemText] = {}
        for path in paths if len(paths) > 1 else ():
            with suppress(DataError, InputMissingError):
                texts |= read_item_texts(evaluation, [path], reading)
        if not texts:
            raise
        return texts


def _subject(record: Record) -> str:
    if isinstance(record, Question):
        return record.subject
    return record.section if isinstance(record, Pair) else ""

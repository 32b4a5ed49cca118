"""MIMIC-III's notes: NOTEEVENTS.csv or .csv.gz, one Passage for each note, the patient as group.

Credentialed: PhysioNet's license applies to the notes and, by its rule of 24 April 2024, to models made from them.
Johnson et al. 2016, https://doi.org/10.1038/sdata.2016.35; https://physionet.org/content/mimiciii/1.4. Columns, in
either case: ROW_ID, SUBJECT_ID, CATEGORY, ISERROR, TEXT, and others that are not read. A note that the hospital flagged
as an error is dropped as marked_error. `[**...**]` becomes a typed tag (data/formats/placeholders.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.clinical_notes import note
from lora_med.data.formats.placeholders import tagged_mimic3
from lora_med.data.formats.row_fields import Empty, identifier_of, optional_text_of, outcomes, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Passage


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The notes of the files. Drops: marked_error, no_text; with an error: bad, and those of the row formats."""
    return outcomes(inputs, _note, options.table)


def _note(values: Mapping[str, Any], position: str) -> Passage:
    row = {name.lower(): value for name, value in values.items()}
    number, patient = identifier_of(row, "row_id"), identifier_of(row, "subject_id")
    if optional_text_of(row, "iserror").strip() in ("1", "1.0"):
        raise Empty("marked_error")
    if not optional_text_of(row, "text").strip():
        raise Empty("no_text")
    kind = optional_text_of(row, "category")
    return note(f"mimic3:{number}", f"mimic3:{patient}", "mimic3", kind, tagged_mimic3(text_of(row, "text")))

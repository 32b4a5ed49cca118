"""MIMIC-IV-Note: discharge.csv.gz and radiology.csv.gz, one Passage for each note, the patient as group.

Credentialed: PhysioNet's license applies to the notes and, by its rule of 24 April 2024, to models made from them.
Johnson et al. 2023, https://doi.org/10.13026/1n74-ne17. Columns: note_id, subject_id, note_type, text, and others that
are not read. `___` becomes `[REDACTED]` (data/formats/placeholders.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.clinical_notes import note
from lora_med.data.formats.placeholders import tagged_mimic4
from lora_med.data.formats.row_fields import Empty, identifier_of, optional_text_of, outcomes, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Passage

KINDS = {"DS": "Discharge summary", "AD": "Discharge summary, addendum", "RR": "Radiology report"}
KINDS |= {"AR": "Radiology report, addendum"}


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The notes of the files. Drops: no_text; with an error: bad, and those of the row formats."""
    return outcomes(inputs, _note, options.table)


def _note(values: Mapping[str, Any], position: str) -> Passage:
    name, patient = identifier_of(values, "note_id"), identifier_of(values, "subject_id")
    if not optional_text_of(values, "text").strip():
        raise Empty("no_text")
    kind = optional_text_of(values, "note_type").strip()
    text = tagged_mimic4(text_of(values, "text"))
    return note(f"mimic4_note:{name}", f"mimic4:{patient}", "mimic4_note", KINDS.get(kind, kind), text)

"""MTS-Dialog: part of a doctor's conversation with a patient, and the section of the note that was written from it.

CSV with ID, section_header, section_text, dialogue; cells hold line breaks. The files of the correlation study (ID,
Dialogue, Reference Summary, Automatic Summary) give the reference as the target, each pair once. License CC BY 4.0.
Ben Abacha et al. 2023, https://aclanthology.org/2023.eacl-main.168. The published files are the splits. Short notes
("Noncontributory.") recur in several files, so the group is the dialogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.row_fields import lines, optional_text_of, outcomes, stem, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Pair

STUDY = {"Dialogue": "dialogue", "Reference Summary": "section_text"}


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The dialogues of the inputs, each with its section. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _pair, options.table)


def _pair(values: Mapping[str, Any], position: str) -> Pair:
    fields = {STUDY.get(name, name): value for name, value in values.items()}
    dialogue, note = (lines(text_of(fields, field)) for field in ("dialogue", "section_text"))
    section = optional_text_of(fields, "section_header").strip()
    return Pair(f"mts_dialog:{position}", stem(dialogue), "mts_dialog", dialogue, note, section)

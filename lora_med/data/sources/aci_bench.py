"""ACI-Bench: the transcript of a whole visit, and the clinical note that was written from it.

CSV with dataset, encounter_id, dialogue, note; and the challenge's JSON rows (src, tgt, file). License CC BY 4.0. Yim
et al. 2023, https://doi.org/10.1038/s41597-023-02487-3. The published files are the splits; actors play the visits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.row_fields import lines, outcomes, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Pair

CHALLENGE = {"src": "dialogue", "tgt": "note", "file": "encounter_id"}


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The visits of the inputs, each with its note. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _pair, options.table)


def _pair(values: Mapping[str, Any], position: str) -> Pair:
    fields = {CHALLENGE.get(name, name): value for name, value in values.items()}
    visit = text_of(fields, "encounter_id").strip()
    return Pair(
        f"aci_bench:{visit}", visit, "aci_bench", lines(text_of(fields, "dialogue")), lines(text_of(fields, "note"))
    )

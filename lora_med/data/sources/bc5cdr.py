"""BC5CDR: 1,500 PubMed abstracts with annotated chemicals and diseases, PubTator format (500 each: train, dev, test).

Types: Chemical, Disease. Nested and composite mentions are kept; relations (CID) are not read. The corpus states no
license; it names public research only. Li et al. 2016, https://doi.org/10.1093/database/baw068.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lora_med.data.formats.entities.pubtator import read_pubtator
from lora_med.data.outcome import Input, Outcome, ReadOptions


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The annotated abstracts of the files. Drops with an error: bad, damaged_file."""
    return read_pubtator(inputs, "bc5cdr", options.table.encoding)

"""NCBI disease corpus: 793 PubMed abstracts with annotated diseases, in PubTator's format (593, 100, 100).

Types: SpecificDisease, DiseaseClass, Modifier, CompositeMention. The training file contains one abstract twice; the
second is counted as a duplicate. License: public domain, a work of the US government. Dogan et al. 2014,
https://doi.org/10.1016/j.jbi.2013.12.006.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lora_med.data.formats.entities.pubtator import read_pubtator
from lora_med.data.outcome import Input, Outcome, ReadOptions


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The annotated abstracts of the files. Drops with an error: bad, damaged_file."""
    return read_pubtator(inputs, "ncbi_disease", options.table.encoding)

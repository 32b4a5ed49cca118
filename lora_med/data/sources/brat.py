"""brat: folders of texts (.txt), each with its annotations beside it (.ann); each pair is one Annotated.

The mentions (T lines) are read. Relations, events, attributes, normalizations and notes are left out and counted. So
are a mention in several pieces and one that does not fit its text. A text without an .ann is refused by name: nobody
said that it holds no mention. An empty .ann says so. The group is the file. License and access class are those of the
corpus: state them in the section `adapter` of the settings. For n2c2's files in this format use the source `n2c2`.
Format: https://brat.nlplab.org/standoff.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lora_med.data.formats.entities.standoff import pair_names, pairs, read_brat
from lora_med.data.outcome import Again, Input, Outcome, ReadOptions


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The documents of the folders. Drops: no_text; with an error: bad, not_annotated, no_text_file, damaged_file."""

    def again() -> Iterator[Outcome]:
        text_pairs = pairs([path for path in inputs if isinstance(path, Path)], ".ann")
        yield from read_brat(text_pairs, pair_names(text_pairs), "brat", options.table.encoding)

    return Again(again)

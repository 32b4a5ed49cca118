"""Records to the documents a trainer takes: held in memory, or of a stream read again at every pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records
from lora_med.models.base import Base
from lora_med.prompts.render import render_stream
from lora_med.prompts.tokens import Tokens, chunk, tokenise_rows
from lora_med.training.preflight import Checked, is_plain, preflight

BLOCK = 256
CHECKED_OF_A_STREAM = 1000


@dataclass(frozen=True)
class DocumentStream:
    """Documents no longer than `max_length`, rendered and tokenised anew at every pass over the records.

    Running text is chunked; a longer answer is left out, never cut.
    """

    records: Iterable[Any]
    template: str
    tokenizer: Any
    max_length: int

    def __iter__(self) -> Iterator[Tokens]:
        for document in tokenise_stream(self.records, self.template, self.tokenizer):
            if len(document.input_ids) <= self.max_length:
                yield document
            elif is_plain(document):
                yield from chunk(document, self.max_length)


def tokenise_stream(records: Iterable[Any], template: str, tokenizer: Any) -> Iterator[Tokens]:
    """One document a record, whole, tokenised some hundred at a time."""
    rows = render_stream(records, template)
    while block := list(itertools.islice(rows, BLOCK)):
        yield from tokenise_rows(block, tokenizer)


def read_documents(
    records: Records, template: str, base: Base, train: TrainSettings, *, access: str, what: str = "training"
) -> Checked:
    """The documents of a split, checked by `preflight`; of a stream, the first 1,000 are.

    Raises:
        SettingsError: the template takes another kind of record.
        PreflightError: see `preflight`.
    """
    whole = tokenise_stream(records, template, base.tokenizer)
    if isinstance(records, Sequence):
        return preflight(list(whole), base, train, access=access, what=what)
    head = preflight(list(itertools.islice(whole, CHECKED_OF_A_STREAM)), base, train, access=access, what=what)
    stream = DocumentStream(records, template, base.tokenizer, train.max_length)
    if what != "training":  # validation is read often, and small
        return Checked(list(stream), head.report)
    return Checked(stream, {**head.report, "streamed": True})

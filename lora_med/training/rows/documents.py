"""Records to the documents a trainer takes: held in memory, or of a stream read again at every pass."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records
from lora_med.files import sha256_file
from lora_med.models.base import Base
from lora_med.models.fingerprint import TOKENIZER_CONFIG
from lora_med.prompts.fit import chunk, fit_rows
from lora_med.prompts.render import render_stream
from lora_med.prompts.row import TooLong
from lora_med.prompts.tokens import Tokens
from lora_med.training.rows.preflight import Checked, preflight
from lora_med.training.rows.token_cache import load, prepared_path, save

logger = logging.getLogger(__name__)

BLOCK = 256
CHECKED_OF_A_STREAM = 1000


@dataclass(frozen=True)
class DocumentStream:
    """Documents no longer than `max_length`, rendered and tokenized anew at every pass over the records.

    Running text is chunked; a longer answer is left out, never cut, and said in the log at the first, second, fourth...
    """

    records: Iterable[Any]
    template: str | Mapping[str, str]
    tokenizer: Any
    max_length: int
    too_long: TooLong | None

    def __iter__(self) -> Iterator[Tokens]:
        left_out = 0
        for document in _documents(self.records, self.template, self.tokenizer, self.max_length, self.too_long):
            if len(document.input_ids) <= self.max_length:
                yield document
            elif document.running and document.too_long == "chunk_by_section":
                yield from chunk(document, self.max_length)
            else:
                left_out += 1
                if left_out.bit_count() == 1:
                    logger.warning(
                        "left out of the stream: %d longer than %d so far, now uid %s of %d tokens",
                        left_out,
                        self.max_length,
                        document.uid,
                        len(document.input_ids),
                    )


def _documents(
    records: Iterable[Any], template: str | Mapping[str, str], tokenizer: Any, max_length: int, too_long: TooLong | None
) -> Iterator[Tokens]:
    """One document a record, contexts shortened where they may be, tokenized some hundred at a time."""
    rows = render_stream(records, template, too_long)
    while block := list(itertools.islice(rows, BLOCK)):
        yield from fit_rows(block, tokenizer, max_length)


def read_documents(
    records: Records,
    template: str | Mapping[str, str],
    base: Base,
    train: TrainSettings,
    *,
    access: str,
    what: str = "training",
    key: str | None = None,
) -> Checked:
    """The documents of a split, fitted to `train.max_length` and checked by `preflight`.

    Of a training stream the first 1,000 are checked.

    Args:
        template: a template's name; of a mixture, each source's name mapped to one.
        access: class of the data; rows of a credentialed source are not shown.
        what: the split's name, for messages.
        key: what tells the data from any other (`data_key`): then they are kept in `train.output_dir`, and a second run
            takes them from there; None keeps nothing.

    Raises:
        SettingsError: the template takes another kind of record, or cannot be fitted as `train.too_long` says.
        PreflightError: see `preflight`.
    """
    whole = _documents(records, template, base.tokenizer, train.max_length, train.too_long)
    if isinstance(records, Sequence):
        documents = _kept(whole, base, train, what, key) if key is not None else list(whole)
        return preflight(documents, base, train, access=access, what=what)
    if what != "training":  # validation is read often, and small
        return preflight(list(whole), base, train, access=access, what=what)
    head = preflight(list(itertools.islice(whole, CHECKED_OF_A_STREAM)), base, train, access=access, what=what)
    stream = DocumentStream(records, template, base.tokenizer, train.max_length, train.too_long)
    return Checked(stream, {**head.report, "streamed": True})


def tokenizer_settings(base: Base) -> str:
    """SHA-256 of tokenizer_config.json, or '': whether a text begins with BOS may stand in it alone."""
    file = base.folder / TOKENIZER_CONFIG
    return sha256_file(file) if file.is_file() else ""


def _kept(documents: Iterable[Tokens], base: Base, train: TrainSettings, what: str, key: str) -> list[Tokens]:
    """The documents as an earlier run kept them; else made now, and kept."""
    marks = base.fingerprint
    tokenizer = [marks.tokenizer, marks.template, tokenizer_settings(base)]
    path = prepared_path(Path(train.output_dir), key, what, *tokenizer, train.max_length, train.too_long)
    found = load(path)
    if found is None:
        found = list(documents)
        save(path, found)
    else:
        logger.info("%s: %d documents as an earlier run prepared them", what, len(found))
    return found

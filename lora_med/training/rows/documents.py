"""Records to the documents of a trainer: a list in memory, or a stream that is read again at every pass."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records
from lora_med.data.record import shown_uid
from lora_med.files import sha256_file
from lora_med.models.base import Base
from lora_med.models.fingerprint import TOKENIZER_CONFIG
from lora_med.prompts.fit import chunk, fit_rows
from lora_med.prompts.render import render_stream
from lora_med.prompts.row import TooLong
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows.preflight import Checked, preflight
from lora_med.training.rows.token_cache import load, prepared_path, save

logger = logging.getLogger(__name__)

BLOCK = 256
CHECKED_OF_A_STREAM = 1000


@dataclass(frozen=True)
class DocumentStream:
    """Documents no longer than `max_length`, rendered and tokenized again at every pass over the records.

    Running text is chunked. A row with a longer answer is left out, never cut; the log reports the first, second,
    fourth and so on.
    """

    records: Iterable[Any]
    template: str | Mapping[str, str]
    tokenizer: Any
    max_length: int
    too_long: TooLong | None
    access: str = "open"  # of the data: decides how a uid is logged

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
                        shown_uid(document.uid, self.access),
                        len(document.input_ids),
                    )


def _documents(
    records: Iterable[Any], template: str | Mapping[str, str], tokenizer: Any, max_length: int, too_long: TooLong | None
) -> Iterator[Tokens]:
    """One document per record, contexts shortened where this is allowed, tokenized in blocks of 256."""
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

    Of a training stream only the first 1,000 are checked.

    Args:
        template: a template's name; for a mixture, a mapping of each source's name to one.
        access: class of the data; rows of a credentialed source are not shown.
        what: the split's name, for messages.
        key: identifies the data (`data_key`). The documents are cached under it in `train.output_dir` for a second
            run. None caches nothing.

    Raises:
        SettingsError: the template takes another kind of record, or cannot be fitted as `train.too_long` says.
        PreflightError: see `preflight`.
    """
    all_documents = _documents(records, template, base.tokenizer, train.max_length, train.too_long)
    if isinstance(records, Sequence):
        documents = _cached(all_documents, base, train, what, key) if key is not None else list(all_documents)
        return preflight(documents, base, train, access=access, what=what)
    if what != "training":  # validation is read often, and small
        return preflight(list(all_documents), base, train, access=access, what=what)
    head = preflight(list(itertools.islice(all_documents, CHECKED_OF_A_STREAM)), base, train, access=access, what=what)
    stream = DocumentStream(records, template, base.tokenizer, train.max_length, train.too_long, access)
    return Checked(stream, {**head.report, "streamed": True})


def tokenizer_settings(base: Base) -> str:
    """SHA-256 of tokenizer_config.json, or '': it may be the only file that says whether a text begins with BOS."""
    file = base.folder / TOKENIZER_CONFIG
    return sha256_file(file) if file.is_file() else ""


def _cached(documents: Iterable[Tokens], base: Base, train: TrainSettings, what: str, key: str) -> list[Tokens]:
    """The documents from the cache of an earlier run; else computed now, and cached."""
    marks = base.fingerprint
    tokenizer = [marks.tokenizer, marks.template, tokenizer_settings(base)]
    path = prepared_path(Path(train.output_dir), key, what, *tokenizer, train.max_length, train.too_long)
    cached = load(path)
    if cached is not None:
        logger.info("%s: %d documents from the cache of an earlier run", what, len(cached))
        return cached
    tokenized = list(documents)
    save(path, tokenized)
    return tokenized

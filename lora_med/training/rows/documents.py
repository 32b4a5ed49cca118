"""Records to the documents of a trainer: a list in memory, or a stream that is read again at every pass."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records, Stream
from lora_med.files import sha256_file
from lora_med.models.base import Base
from lora_med.models.fingerprint import TOKENIZER_CONFIG
from lora_med.models.tokens.vocabulary import tokens_of
from lora_med.prompts.fit import Refused, fit_stream
from lora_med.prompts.render import render_stream
from lora_med.prompts.row import AssistantTurns, TooLong
from lora_med.prompts.templates.templates import find_template
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import SHOWN_UIDS
from lora_med.training.rows.preflight import Checked, preflight
from lora_med.training.rows.stored_stream import StoredStream
from lora_med.training.rows.token_cache import prepared_path
from lora_med.training.rows.token_shards import (
    LeftOut,
    ShardedDocuments,
    Tokenizing,
    TooLongRow,
    fitted,
    with_left_out,
)

logger = logging.getLogger(__name__)

CHECKED_OF_A_STREAM = 1000
BYTES_A_GB = 1e9


@dataclass(frozen=True)
class DocumentStream:
    """Documents no longer than `max_length`, rendered and tokenized again at every pass over the records.

    Running text is chunked. A row with a longer answer is left out, never cut; the log reports the first, second,
    fourth and so on. `skip_bad` leaves out rows that the base's chat template refuses.
    """

    records: Iterable[Any]
    template: str | Mapping[str, str]
    tokenizer: Any
    max_length: int
    too_long: TooLong | None
    assistant_turns: AssistantTurns = "last"
    skip_bad: bool = False
    access: str = "open"  # of the data: decides how a uid is logged

    def __iter__(self) -> Iterator[Tokens]:
        return with_left_out(self.rows(), LeftOut(self.max_length, self.access))

    def rows(self) -> Iterator[Tokens | TooLongRow]:
        """The documents, and in their place those that are too long."""
        refused = Refused(self.skip_bad)
        rows = render_stream(self.records, self.template, self.too_long, self.assistant_turns)
        for document in fit_stream(rows, self.tokenizer, self.max_length, refused):
            parts = fitted(document, self.max_length)
            yield from [TooLongRow(document.uid, len(document.input_ids))] if parts is None else parts
        refused.log("stream")


def read_documents(
    records: Records,
    template: str | Mapping[str, str],
    base: Base,
    train: TrainSettings,
    *,
    access: str,
    what: str = "training",
    key: str | None = None,
    skip_bad: bool = False,
) -> Checked:
    """The documents of a split, fitted to `train.max_length` and checked by `preflight`.

    Of a training stream only the first 1,000 are checked. Where `key` is given, its documents are stored in token
    shards at the first pass, and later passes read them there.

    Args:
        template: a template's name; for a mixture, a mapping of each source's name to one.
        access: class of the data; rows of a credentialed source are not shown.
        what: the split's name, for messages.
        key: identifies the data of a stream (`data_key`), whose shards are then in `train.output_dir`.
        skip_bad: leave out and count the rows that the base's chat template refuses.

    Raises:
        SettingsError: the template takes another kind of record, or cannot be fitted as `train.too_long` says.
        DataError: the base's chat template refuses a row, and `skip_bad` is false.
        PreflightError: see `preflight`.
    """
    refused = Refused(skip_bad)
    fitting = base.tokenizer, train.max_length
    rows = render_stream(records, template, train.too_long, train.assistant_turns)
    if isinstance(records, Sequence) or what != "training":
        documents = list(fit_stream(rows, *fitting, refused))
        return _with_refused(preflight(documents, base, train, access=access, what=what), refused, what)
    first = list(itertools.islice(fit_stream(rows, *fitting, refused), CHECKED_OF_A_STREAM))
    head = _with_refused(preflight(first, base, train, access=access, what=what), refused, what)
    stream = DocumentStream(records, template, *fitting, train.too_long, train.assistant_turns, skip_bad, access)
    if key is None:
        return Checked(stream, {**head.report, "streamed": True})
    marks, folder = tokenizer_marks(base), Path(train.output_dir)
    options = [template, train.max_length, train.too_long, train.assistant_turns, skip_bad]
    stored = _sharded(records, template, base, train, access) or StoredStream(
        stream, prepared_path(folder, "stream", key, *marks, *options), train.tokenized_disk_gb * BYTES_A_GB
    )
    return Checked(stored, {**head.report, "streamed": True})


def _sharded(
    records: Records, template: str | Mapping[str, str], base: Base, train: TrainSettings, access: str
) -> ShardedDocuments | None:
    """The documents from token shards, where the records are known file by file and no row can be refused."""
    names = {template} if isinstance(template, str) else set(template.values())
    name = names.pop()
    if names or not isinstance(records, Stream) or not records.parts or find_template(name).by_base:
        return None
    how = Tokenizing(name, base.tokenizer, train.max_length, train.too_long, train.assistant_turns, access)
    most = train.tokenized_disk_gb * BYTES_A_GB
    return ShardedDocuments(records.parts, how, Path(train.output_dir), tokenizer_marks(base), most)


def tokenizer_marks(base: Base) -> list[str]:
    """What identifies the tokenizer of a base, its settings and its chat template."""
    marks = base.fingerprint
    known = tokens_of(base.model)
    own = [] if known is None else [json.dumps(known.ids)]
    return [marks.tokenizer, marks.template, tokenizer_settings(base), base.chat_template or "", *own]


def _with_refused(checked: Checked, refused: Refused, what: str) -> Checked:
    """The documents with the rows that the base's chat template refused in their report, if there are any."""
    if not refused.uids:
        return checked
    refused.log(what)
    counts = {"rows_refused": len(refused.uids), "uids_refused": refused.uids[:SHOWN_UIDS]}
    return Checked(checked.documents, checked.report | counts)


def tokenizer_settings(base: Base) -> str:
    """SHA-256 of tokenizer_config.json, or '': it may be the only file that says whether a text begins with BOS."""
    file = base.folder / TOKENIZER_CONFIG
    return sha256_file(file) if file.is_file() else ""

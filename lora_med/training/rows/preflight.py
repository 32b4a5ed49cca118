"""Preflight, before any time on a GPU: would these rows train what is meant?

Each check prevents a run that looks healthy and is not: nothing to learn from, an answer that never ends, two
beginnings, an answer cut in the middle. Refused rows are named by uid and count, never by their text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from lora_med.config.schema import TrainSettings
from lora_med.data.record import shown_uid
from lora_med.models.base import Base
from lora_med.models.generation import stop_ids
from lora_med.processes.launch import rank
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import SHOWN_ROWS, Examined
from lora_med.training.preparation.verdict import log_report, refuse_bad, refuse_long
from lora_med.visible import visible

SHOWN_TOKENS = 60  # of the beginning of a long row, and as many of its end


@dataclass(frozen=True)
class Checked:
    """Documents fit to train on, none longer than max_length, and the report on their lengths (JSON values)."""

    documents: Iterable[Tokens]
    report: dict[str, Any]

    @property
    def streamed(self) -> bool:
        """Whether they are read again at every pass."""
        return not isinstance(self.documents, Sequence)

    def sample(self, rows: int = 64) -> list[list[int]]:
        """Token ids of the first documents, for an initialization that looks at data (EVA)."""
        return [document.input_ids for document in itertools.islice(iter(self.documents), rows)]


def preflight(
    documents: Sequence[Tokens], base: Base, train: TrainSettings, *, access: str, what: str = "training"
) -> Checked:
    """The documents to train on: running text chunked to max_length, rows with longer answers left out.

    Args:
        documents: complete documents, from `tokenize_rows` or `fit_rows`.
        base: its tokenizer and generation settings define the beginning and the end of a row.
        train: `max_length` and `allow_rows_dropped` are used; each document itself says what else is allowed.
        access: class of the data; if it is credentialed, uids are hashed, else three training rows are shown on stderr.
        what: the split's name, for messages.

    Raises:
        PreflightError: no rows; nothing trained in a row; a row that does not end in a stop token, or ends in one that
            is not trained; a doubled beginning; or more rows over max_length than allowed.
    """
    examined = Examined(frozenset(stop_ids(base.model, base.tokenizer)), base.tokenizer.bos_token_id, train.max_length)
    retained = [row for document in documents for row in examined.add(document)]

    def shown(uid: str) -> str:
        return shown_uid(uid, access)

    refuse_bad(examined, what, shown)
    if what == "training":
        show_rows(documents, base.tokenizer, access=access)
    report = examined.report(shown)
    log_report(report, what, train.max_length)
    refuse_long(examined, what, train.allow_rows_dropped, shown)
    return Checked(retained, report)


def show_rows(documents: Sequence[Tokens], tokenizer: Any, *, access: str, width: int | None = None) -> None:
    """Print three rows on stderr, trained tokens in green; print nothing from a credentialed source."""
    if rank() or access == "credentialed":
        return
    console = Console(stderr=True, width=width)
    for document in documents[:SHOWN_ROWS]:
        console.print(color_row(document, tokenizer))


def color_row(document: Tokens, tokenizer: Any) -> Text:
    """The row's text, trained tokens black on green, others dim; the middle of a long row is left out."""
    text = Text(f"{visible(document.uid, one_line=True)}: ", style="bold")
    pairs = list(zip(document.input_ids, document.trained, strict=True))
    pieces = [pairs] if len(pairs) <= 2 * SHOWN_TOKENS else [pairs[:SHOWN_TOKENS], pairs[-SHOWN_TOKENS:]]
    for number, piece in enumerate(pieces):
        if number:
            text.append(f" [... {len(pairs) - 2 * SHOWN_TOKENS} tokens ...] ", style="bold")
        # Neighbors of one color are decoded together, so that a character of several tokens stays complete.
        for trained, group in itertools.groupby(piece, lambda pair: pair[1]):
            spelled = visible(tokenizer.decode([token for token, _ in group]))
            text.append(spelled, "black on green" if trained else "dim")
    return text

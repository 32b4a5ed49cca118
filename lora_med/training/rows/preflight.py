"""Preflight, before any time on a GPU: would these rows train what is meant?

Each check prevents a run that looks healthy and is not: nothing to learn from, an answer that never ends, two
beginnings, an answer cut in the middle. Refused rows are named by uid and count, never by their text.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from lora_med.config.schema import TrainSettings
from lora_med.data.record import shown_uid
from lora_med.errors import PreflightError
from lora_med.models.base import Base
from lora_med.models.generation import stop_ids
from lora_med.prompts.fit import chunk, lost_tokens, quantiles
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.run import rank
from lora_med.visible import visible

SHOWN_ROWS = 3
SHOWN_UIDS = 5
SHOWN_TOKENS = 60  # of the beginning of a long row, and as many of its end
logger = logging.getLogger(__name__)


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
    _refuse_bad_rows(documents, base, what, access)
    if what == "training":
        show_rows(documents, base.tokenizer, access=access)
    retained: list[Tokens] = []
    chunked: list[str] = []
    dropped: list[Tokens] = []
    for document in documents:
        if len(document.input_ids) <= train.max_length:
            retained.append(document)
        elif document.running and document.too_long == "chunk_by_section":
            chunked.append(document.uid)
            retained.extend(chunk(document, train.max_length))
        else:
            dropped.append(document)
    report = _report(documents, retained, chunked, dropped, access)
    _log_report(report, what, train.max_length)
    refused = [document for document in dropped if document.too_long != "drop"]
    if len(refused) > train.allow_rows_dropped * len(documents):
        uids = _uids([shown_uid(row.uid, access) for row in refused])
        raise PreflightError(
            f"{len(refused)} of {len(documents)} rows are longer than max_length {train.max_length}, and an answer is "
            f"never cut; longest {max(len(row.input_ids) for row in refused)}; {uids}",
            where=f"the {what} split",
            fix="raise train.max_length, or set train.too_long: drop leaves them out, trim_context shortens contexts",
        )
    return Checked(retained, report)


def _uids(uids: Sequence[str]) -> str:
    more = f" and {len(uids) - SHOWN_UIDS} more" if len(uids) > SHOWN_UIDS else ""
    return f"uid {', '.join(uids[:SHOWN_UIDS])}{more}"


def _refuse_bad_rows(documents: Sequence[Tokens], base: Base, what: str, access: str) -> None:
    tokenizer = base.tokenizer
    stops = set(stop_ids(base.model, tokenizer))
    begin = tokenizer.bos_token_id
    silent = [row.uid for row in documents if not any(row.trained[1:])]
    endless = [row.uid for row in documents if row.input_ids and not _ends(row, stops)]
    doubled = [row.uid for row in documents if begin is not None and row.input_ids[:2] == [begin, begin]]
    for uids, problem, fix in (
        (silent, "have no token to learn from", "the completion is empty, or the template marks nothing as trained"),
        (
            endless,
            f"do not end in a trained stop token (one of {sorted(stops)}), so the model would never learn to stop",
            "the template must train the token that ends generation",
        ),
        (doubled, "begin twice", "the template writes the beginning-of-text token that the tokenizer adds"),
    ):
        if uids:
            raise PreflightError(
                f"{len(uids)} of {len(documents)} rows {problem}: {_uids([shown_uid(uid, access) for uid in uids])}",
                where=f"the {what} split",
                fix=fix,
            )
    if not documents:
        raise PreflightError("there are no rows", where=f"the {what} split", fix="lora-med data preview --config FILE")


def _ends(row: Tokens, stops: set[int]) -> bool:
    """Whether the last trained token ends generation, and nothing but text of a chat template follows it."""
    end = row.answer_end
    return end > 0 and row.input_ids[end - 1] in stops


def _report(
    documents: Sequence[Tokens],
    retained: Sequence[Tokens],
    chunked: Sequence[str],
    dropped: Sequence[Tokens],
    access: str,
) -> dict[str, Any]:
    answers = sum(sum(row.trained) for row in documents)
    lost = sum(sum(row.trained) for row in dropped)
    trimmed, context_lost = lost_tokens(documents)
    return {
        "documents": len(documents),
        "rows": len(retained),
        "tokens": sum(len(row.input_ids) for row in retained),
        "trained_tokens": sum(sum(row.trained) for row in retained),
        "length_quantiles": quantiles([len(row.input_ids) for row in documents]),
        "documents_chunked": len(chunked),
        "rows_trimmed": trimmed,
        "context_tokens_lost": context_lost,
        "rows_dropped": len(dropped),
        "tokens_dropped": sum(len(row.input_ids) for row in dropped),
        "share_of_answer_tokens_lost": round(lost / answers, 6) if answers else 0.0,
        "uids_chunked": [shown_uid(uid, access) for uid in chunked[:SHOWN_UIDS]],
        "uids_dropped": [shown_uid(row.uid, access) for row in dropped[:SHOWN_UIDS]],
    }


def _log_report(report: dict[str, Any], what: str, max_length: int) -> None:
    lengths = ", ".join(f"{name} {value}" for name, value in report["length_quantiles"].items())
    logger.info(
        "%s: %d documents, %d tokens (%d trained); lengths %s",
        what,
        report["documents"],
        report["tokens"],
        report["trained_tokens"],
        lengths,
    )
    if report["documents_chunked"]:
        logger.info("  %d longer than %d are chunked, no token lost", report["documents_chunked"], max_length)
    if report["rows_trimmed"]:
        logger.warning(
            "  the contexts of %d are shortened: %d tokens lost", report["rows_trimmed"], report["context_tokens_lost"]
        )
    if report["rows_dropped"]:
        logger.warning(
            "  %d longer than %d left out: %.2f%% of the answer tokens; %s",
            report["rows_dropped"],
            max_length,
            100 * report["share_of_answer_tokens_lost"],
            _uids(report["uids_dropped"]),
        )


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

"""Whether rows may be trained on, from the facts of their documents, and the lines of the log about their lengths."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from lora_med.errors import PreflightError
from lora_med.training.preparation.examined import SHOWN_UIDS, Examined

logger = logging.getLogger(__name__)


def refuse_bad(examined: Examined, what: str, shown: Callable[[str], str]) -> None:
    """Refuse rows that would train something other than what is meant, by uid and count, never by their text.

    Args:
        what: the split's name, for the message.
        shown: what may be shown of a uid.

    Raises:
        PreflightError: no rows; nothing trained in a row; a row that does not end in a stop token, or ends in one that
            is not trained; or a doubled beginning.
    """
    documents = len(examined.lengths)
    stops = sorted(examined.stops)
    for uids, problem, fix in (
        (
            examined.silent,
            "have no token to learn from",
            "the completion is empty, or the template marks nothing as trained",
        ),
        (
            examined.endless,
            f"do not end in a trained stop token (one of {stops}), so the model would never learn to stop",
            "the template must train the token that ends generation",
        ),
        (
            examined.doubled,
            "begin twice",
            "the template writes the beginning-of-text token that the tokenizer adds",
        ),
    ):
        if uids.count:
            message = f"{uids.count} of {documents} rows {problem}: {uids.listed(shown)}"
            raise PreflightError(message, where=f"the {what} split", fix=fix)
    if not documents:
        fix = "lora-med data preview --config FILE"
        if what == "validation":
            fix = "more records, a larger data.validation_share, or 0 to validate nothing"
        raise PreflightError("there are no rows", where=f"the {what} split", fix=fix)


def refuse_long(examined: Examined, what: str, allow_dropped: float, shown: Callable[[str], str]) -> None:
    """Refuse rows of which more than the share `allow_dropped` would be left out for their length.

    Raises:
        PreflightError: there are more.
    """
    documents = len(examined.lengths)
    if examined.refused.count > allow_dropped * documents:
        raise PreflightError(
            f"{examined.refused.count} of {documents} rows are longer than max_length {examined.max_length}, and an "
            f"answer is never cut; longest {examined.longest_refused}; {examined.refused.listed(shown)}",
            where=f"the {what} split",
            fix="raise train.max_length, or set train.too_long: drop leaves them out, trim_context shortens contexts",
        )


def log_report(report: Mapping[str, Any], what: str, max_length: int) -> None:
    """Log the lengths of the rows and what was chunked, shortened or left out."""
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
        uids: list[str] = report["uids_dropped"]
        more = f" and {report['rows_dropped'] - len(uids)} more" if report["rows_dropped"] > SHOWN_UIDS else ""
        logger.warning(
            "  %d longer than %d left out: %.2f%% of the answer tokens; uid %s",
            report["rows_dropped"],
            max_length,
            100 * report["share_of_answer_tokens_lost"],
            ", ".join(uids) + more,
        )

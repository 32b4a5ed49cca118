"""Rows of preferences: the chosen and the rejected answer after the same prompt, two documents in one row.

Neither prompt nor answer is cut. A pair with a side that is too long, or whose sides are the same tokens, is left out
and counted; both sides go together.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from statistics import fmean
from typing import Any, ClassVar

from lora_med.data.record import Pair, Record, digest, each_answer
from lora_med.errors import DataError, PreflightError
from lora_med.prompts.fit import QUANTILES, Refused, fit_stream, quantiles
from lora_med.prompts.render import render_stream
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import Examined, Uids
from lora_med.training.preparation.row_kinds import Conclusion, TextRows
from lora_med.training.preparation.verdict import refuse_bad

logger = logging.getLogger(__name__)
FIRST_SHOWN = 2  # documents: the two sides of the first pair
ONE_WAY, OTHER_WAY = 1, 2


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A preference as tokens: its record, and the two documents that differ in their answers alone."""

    record: Pair
    chosen: Tokens
    rejected: Tokens

    @property
    def prompt(self) -> list[int]:
        """The tokens before the answers: those that both documents begin with, none of them trained."""
        first, second = self.chosen, self.rejected
        both = zip(first.input_ids, second.input_ids, first.trained, second.trained, strict=False)
        shared = takewhile(lambda each: each[0] == each[1] and not (each[2] or each[3]), both)
        return [token for token, *_ in shared]


@dataclass
class PairFacts:
    """The facts of pairs in order; `examined` are the documents of those that were not left out.

    `directions` maps a digest of a prompt with its two answers to which of the two was preferred: one, the other, both.
    """

    examined: Examined
    pairs: int = 0
    too_long: Uids = field(default_factory=Uids)
    longest: int = 0
    same_tokens: Uids = field(default_factory=Uids)
    refused: Uids = field(default_factory=Uids)
    chosen: array[int] = field(default_factory=lambda: array("i"))
    rejected: array[int] = field(default_factory=lambda: array("i"))
    directions: dict[int, int] = field(default_factory=dict)

    def merge(self, later: PairFacts) -> None:
        """Add the facts of the blocks that follow."""
        self.examined.merge(later.examined)
        self.pairs += later.pairs
        self.longest = max(self.longest, later.longest)
        for mine, theirs in (
            (self.too_long, later.too_long),
            (self.same_tokens, later.same_tokens),
            (self.refused, later.refused),
        ):
            mine.merge(theirs)
        self.chosen.extend(later.chosen)
        self.rejected.extend(later.rejected)
        for key, ways in later.directions.items():
            self.directions[key] = self.directions.get(key, 0) | ways

    def note_direction(self, record: Pair) -> None:
        """Remember which of two answers was preferred."""
        first, second = sorted((record.output, record.rejected))
        key = digest("\x1f".join((*(text for turn in record.history for text in turn), record.input, first, second)))
        self.directions[key] = self.directions.get(key, 0) | (ONE_WAY if record.output == first else OTHER_WAY)

    @property
    def contradicted(self) -> int:
        """How many pairs of answers were preferred both ways."""
        return sum(ways == ONE_WAY | OTHER_WAY for ways in self.directions.values())


@dataclass(frozen=True)
class PairRows:
    """Rows of preferences, each answer rendered and checked as a row of text is (`text`)."""

    text: TextRows
    documents_a_row: ClassVar[int] = 2

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt with one of its answers."""
        return self.text.max_length

    def marks(self) -> list[object]:
        """All that decides the rows beside their records and the tokenizer."""
        return ["pairs", *self.text.marks()]

    def no_facts(self) -> PairFacts:
        """The facts of no block."""
        return PairFacts(self.text.no_facts().examined)

    def block(self, records: Sequence[Record]) -> tuple[list[Tokens], PairFacts]:
        """The documents of a block, chosen and rejected in turn, and their facts.

        Raises:
            SettingsError: the template takes another kind of record.
            DataError: a record is no preference; or the base's chat template refuses a row, and bad rows are not
                skipped.
        """
        facts = self.no_facts()
        pairs = self.pairs(records, facts)
        return [side for pair in pairs for side in (pair.chosen, pair.rejected)], facts

    def pairs(self, records: Sequence[Record], facts: PairFacts) -> list[TokenPair]:
        """The pairs of a block that are trained or compared; the others are counted in `facts`. Raises as `block`."""
        return [pair for pair in self._tokenized(records, facts) if self._is_usable(pair, facts)]

    def _tokenized(self, records: Sequence[Record], facts: PairFacts) -> Iterator[TokenPair]:
        preferences = [_preference(record, self.text.shown_uid(record.uid)) for record in records]
        facts.pairs += len(preferences)
        try:
            documents = self._documents(preferences)
        except DataError:
            if not self.text.skip_bad:
                raise
            for preference in preferences:
                try:
                    yield TokenPair(preference, *self._documents([preference]))
                except DataError:
                    facts.refused.add(preference.uid)
            return
        yield from map(TokenPair, preferences, documents[::2], documents[1::2])

    def _documents(self, preferences: Sequence[Pair]) -> list[Tokens]:
        """Two documents for each preference."""
        rows = render_stream(each_answer(preferences), self.text.template, self.text.too_long)
        return list(fit_stream(rows, self.text.tokenizer, self.max_length, Refused()))

    def _is_usable(self, pair: TokenPair, facts: PairFacts) -> bool:
        chosen, rejected, uid = pair.chosen, pair.rejected, pair.record.uid
        longest = max(len(chosen.input_ids), len(rejected.input_ids))
        if longest > self.max_length:
            facts.too_long.add(uid)
            facts.longest = max(facts.longest, longest)
            return False
        if chosen.input_ids == rejected.input_ids:
            facts.same_tokens.add(uid)
            return False
        for side in (chosen, rejected):
            facts.examined.add(side)
        facts.note_direction(pair.record)
        facts.chosen.append(sum(chosen.trained))
        facts.rejected.append(sum(rejected.trained))
        return True

    def conclude(self, facts: PairFacts, what: str) -> Conclusion:
        """The report on the pairs.

        Raises:
            PreflightError: they would train something other than what is meant, too many are too long, or none is left
                to train on.
        """
        shown = self.text.shown_uid
        self._refuse_long(facts, what)
        if facts.chosen or what == "training":
            refuse_bad(facts.examined, what, shown)
        report, warnings = self._report(facts), self._warnings(facts, what)
        self.log(report, warnings, what)
        may_show = what == "training" and self.text.access != "credentialed"
        return Conclusion(report, warnings, facts.examined.shown[:FIRST_SHOWN] if may_show else [])

    def _refuse_long(self, facts: PairFacts, what: str) -> None:
        allowed = self.text.too_long == "drop" or facts.too_long.count <= self.text.allow_rows_dropped * facts.pairs
        if not allowed:
            raise PreflightError(
                f"{facts.too_long.count} of {facts.pairs} pairs have a side longer than max_length {self.max_length}, "
                f"and neither a prompt nor an answer is cut; longest {facts.longest}; "
                f"{facts.too_long.listed(self.text.shown_uid)}",
                where=f"the {what} split",
                fix="raise train.max_length, or leave such pairs out: train.too_long=drop",
            )

    def _report(self, facts: PairFacts) -> dict[str, Any]:
        shown, examined = self.text.shown_uid, facts.examined
        shorter = sum(chosen < rejected for chosen, rejected in zip(facts.chosen, facts.rejected, strict=True))
        return {
            "pairs": facts.pairs,
            "rows": len(facts.chosen),
            "tokens": examined.tokens,
            "trained_tokens": examined.trained,
            "length_quantiles": quantiles(examined.lengths),
            "rows_dropped": facts.too_long.count,
            "uids_dropped": [shown(uid) for uid in facts.too_long.first],
            "same_tokens": facts.same_tokens.count,
            "contradicted": facts.contradicted,
            "rows_refused": facts.refused.count,
            "mean_chosen_tokens": round(fmean(facts.chosen), 2) if facts.chosen else None,
            "mean_rejected_tokens": round(fmean(facts.rejected), 2) if facts.rejected else None,
            "share_chosen_shorter": round(shorter / len(facts.chosen), 4) if facts.chosen else None,
        }

    def _warnings(self, facts: PairFacts, what: str) -> list[str]:
        shown = self.text.shown_uid
        counts = (
            (facts.too_long, f"are longer than {self.max_length} tokens and left out"),
            (facts.same_tokens, "have the same tokens on both sides and are left out"),
            (facts.refused, "are refused by the base's chat template and left out"),
        )
        warnings = [f"{what}: {uids.count} pairs {why}: {uids.listed(shown)}" for uids, why in counts if uids.count]
        if facts.contradicted:
            warnings.append(f"{what}: of {facts.contradicted} pairs of answers, each one was preferred to the other")
        return warnings

    def log(self, report: Mapping[str, Any], warnings: Sequence[str], what: str) -> None:
        """Log the pairs and how long their answers are."""
        if not report["rows"]:
            logger.info("%s: no pairs", what)
            return
        logger.info(
            "%s: %d pairs, %d tokens (%d in answers); lengths %s; an answer has %s tokens where chosen, %s where "
            "rejected; the chosen one is shorter in %.0f%%",
            what,
            report["rows"],
            report["tokens"],
            report["trained_tokens"],
            ", ".join(f"{share}% {report['length_quantiles'][f'{share}%']}" for share in QUANTILES),
            report["mean_chosen_tokens"],
            report["mean_rejected_tokens"],
            100 * report["share_chosen_shorter"],
        )
        for warning in warnings:
            logger.warning("%s", warning)


def _preference(record: Record, uid: str) -> Pair:
    """The record as a preference.

    Raises:
        DataError: it has no rejected answer.
    """
    if not isinstance(record, Pair) or not record.rejected:
        raise DataError(
            f"record {uid} has no rejected answer, and train.method is dpo",
            where="data.paths",
            fix="rows with prompt, chosen and rejected, or train.method=sft",
        )
    return record

"""How blocks of records become tokens: rows of text by a template, or texts whose tokens are tagged.

A kind makes the documents of a block and the facts of its rows. The facts of all blocks in order decide whether the
rows may be trained on, and are the report. A block knows nothing of others, so any process can do any block.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records
from lora_med.data.record import Annotated, Record, shown_uid
from lora_med.errors import PreflightError, SettingsError
from lora_med.prompts.entity_tags import UNTAGGED, TagCoverage, cut_pieces, recovered_mentions, write_tags
from lora_med.prompts.fit import Refused, fit_stream, quantiles
from lora_med.prompts.render import Unfit, render_stream
from lora_med.prompts.row import AssistantTurns, TooLong
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.examined import Examined, Uids
from lora_med.training.preparation.verdict import log_report, refuse_bad, refuse_long

logger = logging.getLogger(__name__)


class RowKind(Protocol):
    """What preparing needs of a kind of row.

    `documents_a_row` is the number of documents that belong together; where rows are not packed, they are one row.
    """

    documents_a_row: ClassVar[int]

    @property
    def max_length(self) -> int:
        """The most tokens of a document."""
        ...

    def marks(self) -> list[object]:
        """All that decides the rows beside their records and the tokenizer, in a fixed order."""
        ...

    def no_facts(self) -> Any:
        """The facts of no block."""
        ...

    def block(self, records: Sequence[Any]) -> tuple[list[Tokens], Any]:
        """The documents of a block, none longer than a row, and their facts."""
        ...

    def conclude(self, facts: Any, what: str) -> Conclusion:
        """The report, logged; raises PreflightError where the rows may not be trained on."""
        ...

    def log(self, report: Mapping[str, Any], warnings: Sequence[str], what: str) -> None:
        """Log a report and warnings of an earlier conclusion."""


@dataclass(frozen=True)
class Conclusion:
    """The report on all rows as JSON values, what to warn of at each start, and documents that may be shown.

    `groups` has the number of the group of each document, where the kind of row counts them.
    """

    report: dict[str, Any]
    warnings: list[str]
    shown: list[Tokens]
    groups: Sequence[int] = ()


@dataclass
class TextFacts:
    """The facts of rows of text, beside the rows that were left out before they were tokens."""

    examined: Examined
    left_out: int = 0
    refused: Uids = field(default_factory=Uids)

    def merge(self, later: TextFacts) -> None:
        """Add the facts of the blocks that follow."""
        self.examined.merge(later.examined)
        self.left_out += later.left_out
        self.refused.merge(later.refused)


@dataclass(frozen=True)
class TextRows:
    """Rows of text: `stops` are the tokens that end generation, `begin` is the beginning-of-text token or None."""

    documents_a_row: ClassVar[int] = 1

    template: str | Mapping[str, str]
    tokenizer: Any = field(repr=False)
    max_length: int
    too_long: TooLong | None
    assistant_turns: AssistantTurns
    skip_bad: bool
    allow_rows_dropped: float
    stops: frozenset[int]
    begin: int | None
    access: str

    def marks(self) -> list[object]:
        """All that decides the rows beside their records and the tokenizer."""
        template = self.template if isinstance(self.template, str) else dict(self.template)
        fitting = [self.max_length, self.too_long, self.assistant_turns, self.skip_bad, self.allow_rows_dropped]
        return ["text", template, *fitting, sorted(self.stops), self.begin, self.access]

    def no_facts(self) -> TextFacts:
        """The facts of no block."""
        return TextFacts(Examined(self.stops, self.begin, self.max_length))

    def block(self, records: Sequence[Record]) -> tuple[list[Tokens], TextFacts]:
        """The documents of a block, none longer than `max_length`, and their facts.

        Raises:
            SettingsError: the template takes another kind of record.
            DataError: the base's chat template refuses a row, and bad rows are not skipped.
        """
        facts = self.no_facts()
        refused = Refused(self.skip_bad)
        unfit = Unfit()
        rows = render_stream(records, self.template, self.too_long, self.assistant_turns, unfit)
        documents: list[Tokens] = []
        for document in fit_stream(rows, self.tokenizer, self.max_length, refused):
            documents += facts.examined.add(document)
        facts.left_out = unfit.count
        for uid in refused.uids:
            facts.refused.add(uid)
        return documents, facts

    def conclude(self, facts: TextFacts, what: str) -> Conclusion:
        """The report on the rows.

        Raises:
            PreflightError: they would train something other than what is meant, or too many are too long.
        """
        shown = self.shown_uid
        refuse_bad(facts.examined, what, shown)
        report = facts.examined.report(shown)
        warnings = [Unfit(facts.left_out).message(self.template)] if facts.left_out else []
        if facts.refused.count:
            report |= {"rows_refused": facts.refused.count, "uids_refused": facts.refused.first}
            warnings.append(
                f"{what}: {facts.refused.count} rows that the base's chat template refuses are left out: "
                f"{facts.refused.listed(str)}"
            )
        self.log(report, warnings, what)
        refuse_long(facts.examined, what, self.allow_rows_dropped, shown)
        may_show = what == "training" and self.access != "credentialed"
        return Conclusion(report, warnings, facts.examined.shown if may_show else [])

    def log(self, report: Mapping[str, Any], warnings: Sequence[str], what: str) -> None:
        """Log what is known of the rows."""
        log_report(report, what, self.max_length)
        for warning in warnings:
            logger.warning("%s", warning)

    @property
    def shown_uid(self) -> Callable[[str], str]:
        """What may be shown of a uid."""
        return lambda uid: shown_uid(uid, self.access)


def check_tagging(records: Records, labels: Sequence[str], train: TrainSettings) -> None:
    """Refuse what tagged rows cannot be.

    Raises:
        SettingsError: the base has no tags, the rows would share tokens, or the records are streamed.
    """
    if not labels:
        raise SettingsError("the base writes text and has no head for tags", fix="load_tagger(base, labels)")
    if train.packing:
        raise SettingsError("packed texts would see each other", where="train.packing", fix="train.packing=false")
    if train.share_context:
        raise SettingsError(
            "tagged texts cannot share a prefix", where="train.share_context", fix="train.share_context=false"
        )
    if not isinstance(records, Sequence):
        raise SettingsError("tagged rows cannot be streamed", where="data.streaming", fix="data.streaming=false")


@dataclass
class TagFacts:
    """The facts of tagged rows; `mentions` are those of the records, by uid, offsets and type."""

    texts: int = 0
    rows: int = 0
    tagged: int = 0
    lengths: array[int] = field(default_factory=lambda: array("i"))
    mentions: set[tuple[str, int, int, str]] = field(default_factory=set)
    recovered: int = 0

    def merge(self, later: TagFacts) -> None:
        """Add the facts of the blocks that follow."""
        self.texts += later.texts
        self.rows += later.rows
        self.tagged += later.tagged
        self.lengths.extend(later.lengths)
        self.mentions |= later.mentions
        self.recovered += later.recovered


@dataclass(frozen=True, slots=True)
class Tagged(Tokens):
    """A row's token ids and the number of each token's label, UNTAGGED where a token has none."""

    tags: tuple[int, ...] = ()

    @property
    def targets(self) -> Sequence[int]:
        """The number of each token's label."""
        return self.tags


@dataclass(frozen=True)
class TagRows:
    """Rows of tagged texts: `labels` are those of the base's head."""

    documents_a_row: ClassVar[int] = 1

    tokenizer: Any = field(repr=False)
    max_length: int
    labels: tuple[str, ...]

    def marks(self) -> list[object]:
        """All that decides the rows beside their records and the tokenizer."""
        return ["tags", self.max_length, list(self.labels)]

    def no_facts(self) -> TagFacts:
        """The facts of no block."""
        return TagFacts()

    def block(self, records: Sequence[Record]) -> tuple[list[Tokens], TagFacts]:
        """The rows of a block, a longer text in pieces, and their facts.

        Raises:
            SettingsError: a record is no annotated text.
            DataError: a record has a type of mention that the base has no tag for.
        """
        facts = TagFacts(texts=len(records))
        rows: list[Tokens] = []
        for record in records:
            if not isinstance(record, Annotated):
                raise SettingsError("tags need annotated texts", where="data.source", fix="lora-med data list")
            pieces = cut_pieces(record, self.tokenizer, self.max_length)
            tags_of_pieces = [write_tags(piece, record.spans, self.labels) for piece in pieces]
            for piece, tags in zip(pieces, tags_of_pieces, strict=True):
                trained = [tag != UNTAGGED for tag in tags]
                facts.tagged += sum(trained)
                facts.lengths.append(len(tags))
                rows.append(Tagged(record.uid, list(piece.input_ids), trained, tags=tuple(tags)))
            facts.mentions |= {(record.uid, span.start, span.end, span.type) for span in record.spans}
            facts.recovered += recovered_mentions(record, pieces, tags_of_pieces, self.labels)
        facts.rows = len(rows)
        return rows, facts

    def conclude(self, facts: TagFacts, what: str) -> Conclusion:
        """The report on the rows.

        Raises:
            PreflightError: there is no row to train on.
        """
        if not facts.rows and what == "training":
            raise PreflightError("there is nothing to train on: 0 rows", where=f"the {what} split")
        report = {
            "texts": facts.texts,
            "rows": facts.rows,
            "tagged_tokens": facts.tagged,
            "length": quantiles(facts.lengths) if facts.rows else {},
            **asdict(TagCoverage(len(facts.mentions), facts.recovered)),
        }
        self.log(report, [], what)
        return Conclusion(report, [], [])

    def log(self, report: Mapping[str, Any], warnings: Sequence[str], what: str) -> None:
        """Log what is known of the rows, and what tags cannot express."""
        logger.info("%s: %d texts in %d rows", what, report["texts"], report["rows"])
        lost = report["mentions"] - report["recovered"]
        if lost > 0:
            logger.info("%s: tags cannot express %d of %d mentions", what, lost, report["mentions"])

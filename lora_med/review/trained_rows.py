"""The training rows of a run as the model sees them, with what was dropped and why, for the data pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from lora_med.audit.data_check import Check, check_data
from lora_med.audit.preview import Shown, separation_notes, spell
from lora_med.config.schema import Settings
from lora_med.data.access import Access, handled_as
from lora_med.data.record import shown_uid
from lora_med.data.shapes.columns.accounting import columns_lines
from lora_med.models.tokens.base_tokenizer import tokenizer_with
from lora_med.prompts.chat_template import tokenizer_of_run
from lora_med.prompts.fit import Refused, fit_stream
from lora_med.prompts.render import render_stream
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.review.row_facts import RowFacts, RowNotes
from lora_med.review.text_permission import may_show

MOST_ROWS = 5_000  # of one run on the pages
MOST_LABELS = 100  # to choose from
MOST_DROPPED = 100  # uids of one reason on the page
KINDS = {"": "all rows", "cut": "cut, or longer than max_length", "complete": "not cut", "twin": "near-duplicates"}


@dataclass(frozen=True)
class RowFilter:
    """Which rows a reader asks for: words, lengths in tokens, a label, a source, and a kind of `KINDS`."""

    search: str = ""
    least: int = 0
    most: int | None = None
    label: str = ""
    source: str = ""
    kind: str = ""

    def admits(self, length: int, facts: RowFacts, known_labels: Sequence[str]) -> bool:
        """Whether a row of this length and with these facts is among them; the words are not looked at."""
        return (
            self.least <= length
            and (self.most is None or length <= self.most)
            and (self.label not in known_labels or self.label in facts.labels)
            and (not self.source or self.source == facts.source)
            and {"cut": facts.is_cut, "complete": not facts.is_cut, "twin": bool(facts.twins)}.get(self.kind, True)
        )


@dataclass(frozen=True)
class TrainedRows:
    """The first rows of a run's training split, and what is said of its data.

    `is_hidden`: the class is credentialed, or nobody stated one, and no permission was stated: no text is shown.
    `dropped` has for each reason the uids that left the data, as they may be shown, and how many more there are.
    """

    source: str
    access: Access
    is_hidden: bool
    is_complete: bool
    notes: tuple[str, ...]
    dropped: Sequence[tuple[str, Sequence[str], int]] = field(repr=False)
    rows: Sequence[Tokens] = field(repr=False)
    facts: Sequence[RowFacts] = field(repr=False)
    tokenizer: Any = field(repr=False)

    def shown(self, number: int) -> Shown:
        """A row with its text in segments, trained or not; without text where it is hidden."""
        row, uid = self.rows[number], self.uid(number)
        if self.is_hidden:
            return Shown(uid, len(row.input_ids), sum(row.trained), ())
        return replace(spell(row, self.tokenizer), uid=uid)

    def uid(self, number: int) -> str:
        """The uid of a row as it may be shown."""
        return shown_uid(self.rows[number].uid, self.access)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels of the rows, the most frequent first; none where text is hidden."""
        counts = Counter(label for each in self.facts for label in each.labels)
        return () if self.is_hidden else tuple(label for label, _ in counts.most_common(MOST_LABELS))

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The sources of the rows."""
        return tuple(dict.fromkeys(each.source for each in self.facts))

    def selection(self, wanted: RowFilter) -> list[int]:
        """The rows that a reader asked for."""
        words = wanted.search.casefold()
        return [
            number
            for number, (row, facts) in enumerate(zip(self.rows, self.facts, strict=True))
            if wanted.admits(len(row.input_ids), facts, self.labels) and (not words or words in self._searched[number])
        ]

    @cached_property
    def _searched(self) -> list[str]:
        """What a search looks at in each row; decoding all rows takes seconds, so it is done once."""
        every = (self.shown(number) for number in range(len(self.rows)))
        return ["\n".join([row.uid, "".join(text for text, _ in row.segments)]).casefold() for row in every]


def load_trained_rows(settings: Settings, permission: str | None = None) -> TrainedRows:
    """The rows that a run with these settings would train on; no model is loaded.

    Args:
        permission: who allows, in writing, that text of credentialed data is shown.

    Raises:
        NotPermittedError: the permission is too short to be one.
        InputMissingError, DataError, SettingsError: as `lora-med data check`.
    """
    tokenizer = tokenizer_with(settings.lora.trainable_tokens, settings.model)
    check, corpus = check_data(settings, tokenizer)
    chat: Mapping[str, Any] = {
        "file": settings.model.chat_template,
        "enable_thinking": settings.model.enable_thinking,
    }
    tokenizer = tokenizer_of_run(tokenizer, corpus.templates.values(), **chat)
    refused = Refused(settings.data.skip_bad)
    row_notes = RowNotes(settings.train.max_length)
    records = row_notes.passing(corpus.train)
    drawn = render_stream(records, corpus.templates, settings.train.too_long, settings.train.assistant_turns)
    fitted = fit_stream(drawn, tokenizer, settings.train.max_length, refused)
    rows: list[Tokens] = []
    for tokens in islice(fitted, MOST_ROWS):
        rows.append(tokens)
        row_notes.add(tokens)
    is_complete = next(fitted, None) is None
    access = handled_as(check.access)
    notes = [
        line
        for source in check.sources
        for line in (f"{source.source}: {source.tally}", *columns_lines(source.columns), *separation_notes(source))
    ]
    return TrainedRows(
        source=" + ".join(source.source for source in check.sources),
        access=access,
        is_hidden=not may_show(check.access, "showing the training rows on a page", permission),
        is_complete=is_complete,
        notes=tuple(notes),
        dropped=_dropped(check),
        rows=rows,
        facts=row_notes.facts(settings.data.near_duplicate_similarity),
        tokenizer=tokenizer,
    )


def _dropped(check: Check) -> list[tuple[str, list[str], int]]:
    """Reason, uids and the number of further ones, of every source and of what one source holds out from another."""
    every = [(f"{source.source}: ", source.separation) for source in check.sources]
    every += [("", check.between)] if check.between is not None else []
    return [
        (f"{name}{reason.replace('_', ' ')}", uids[:MOST_DROPPED], separation["removed"][reason] - MOST_DROPPED)
        for name, separation in every
        for reason, uids in separation["removed_uids"].items()
    ]

"""The training rows of a run as the model sees them, with what was dropped and why, for the data pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lora_med.audit.data_check import check_data
from lora_med.audit.preview import Shown, separation_notes, spell
from lora_med.config.schema import Settings
from lora_med.data.access import CREDENTIALED, Access, handled_as
from lora_med.data.shapes.columns.accounting import columns_lines
from lora_med.models.tokens.base_tokenizer import tokenizer_with
from lora_med.prompts.chat_template import tokenizer_of_run
from lora_med.prompts.fit import Refused, fit_stream
from lora_med.prompts.render import render_stream
from lora_med.prompts.tokens_and_labels import Tokens

MOST_ROWS = 5_000  # of one run on the pages


@dataclass(frozen=True)
class TrainedRows:
    """The first rows of a run's training split, and what is said of its data.

    `is_hidden`: the class is credentialed, or nobody stated one, so no text is shown.
    """

    source: str
    access: Access
    is_hidden: bool
    is_complete: bool
    notes: tuple[str, ...]
    rows: Sequence[Tokens] = field(repr=False)
    tokenizer: Any = field(repr=False)

    def shown(self, number: int) -> Shown:
        """A row with its text in segments, trained or not; without text where it is hidden."""
        row = self.rows[number]
        if self.is_hidden:
            return Shown(row.uid, len(row.input_ids), sum(row.trained), ())
        return spell(row, self.tokenizer)

    def selection(self, search: str = "", least: int = 0, most: int | None = None) -> list[int]:
        """The rows of a length in tokens whose uid, or text if it is shown, has the searched words."""
        wanted = search.casefold()
        return [
            number
            for number, row in enumerate(self.rows)
            if least <= len(row.input_ids)
            and (most is None or len(row.input_ids) <= most)
            and (not wanted or wanted in self._searched(number).casefold())
        ]

    def _searched(self, number: int) -> str:
        shown = self.shown(number)
        return "\n".join([shown.uid, "".join(text for text, _ in shown.segments)])


def load_trained_rows(settings: Settings) -> TrainedRows:
    """The rows that a run with these settings would train on; no model is loaded.

    Raises:
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
    drawn = render_stream(corpus.train, corpus.templates, settings.train.too_long, settings.train.assistant_turns)
    fitted = fit_stream(drawn, tokenizer, settings.train.max_length, refused)
    rows = list(islice(fitted, MOST_ROWS + 1))
    access = handled_as(check.access)
    notes = [
        line
        for source in check.sources
        for line in (f"{source.source}: {source.tally}", *columns_lines(source.columns), *separation_notes(source))
    ]
    return TrainedRows(
        source=" + ".join(source.source for source in check.sources),
        access=access,
        is_hidden=access == CREDENTIALED,
        is_complete=len(rows) <= MOST_ROWS,
        notes=tuple(notes),
        rows=rows[:MOST_ROWS],
        tokenizer=tokenizer,
    )

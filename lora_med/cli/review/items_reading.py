"""How the evaluated files of a report are read: as the cards of its adapters have it, and by --column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.store import cards
from lora_med.cli.data.column_option import columns_of
from lora_med.data.splitting.build_splits import read_options
from lora_med.review.item_texts import ItemReading
from lora_med.review.report_folder import ReportEvaluation
from lora_med.workflows.heldout_settings import sources_of, trained_with


def reading_by_cards(store: Path, column: list[str] | None) -> Callable[[ReportEvaluation], ItemReading]:
    """A function that says how an evaluation's files are read.

    It takes the first adapter of the evaluation whose card is in the store and learned from the same source, as
    `lora-med eval` does; `column` wins over the card.

    Raises:
        SettingsError: a word of `column` is not field=column.
    """
    columns = columns_of(column or ())
    known = {name: card for name, card in cards(store).items() if isinstance(card, Card)} if store.is_dir() else {}

    def reading_of(evaluation: ReportEvaluation) -> ItemReading:
        source = str(evaluation.entry["source"])
        trained = [known[name] for name in evaluation.adapters if name in known and source in sources_of(known[name])]
        if not trained:
            own = ItemReading()
            return replace(own, options=replace(own.options, columns=columns))
        settings = trained_with(trained[0], source)
        options = read_options(settings)
        return ItemReading(replace(options, columns={**options.columns, **columns}), settings.skip_bad)

    return reading_of

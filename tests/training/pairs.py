"""Pairs of answers for the tests of learning from preferences: the chosen one names the remedy of its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.data.record import Pair
from lora_med.models.base import Base
from lora_med.training.preference_scores import HeldOutPairs
from lora_med.training.preference_trainer import PreferenceTrainer
from lora_med.training.preparation.pair_rows import PairRows
from lora_med.training.preparation.row_kinds import TextRows
from lora_med.training.rows.arrow_rows import COLUMNS, ArrowRows, hash_rows
from lora_med.training.rows.batches import to_row
from tests.training.support import BOS, EOS, make_base


def preference(number: int, *, uid: str = "", **fields: Any) -> Pair:
    """A prompt about one illness, with a long and a short answer in no fixed order of length."""
    more = " each day" * (number % 3)
    values = {"output": f" Remedy {number % 7} helps{more}.", "rejected": f" Nothing{' at all' * (number % 2)}."}
    return Pair(uid or f"p{number}", f"g{number}", "s", f"What treats illness {number}?", **{**values, **fields})


def pair_rows(base: Base, **options: Any) -> PairRows:
    values: dict[str, Any] = {
        "template": "pair",
        "tokenizer": base.tokenizer,
        "max_length": 128,
        "too_long": None,
        "assistant_turns": "last",
        "skip_bad": False,
        "allow_rows_dropped": 0.0,
        "stops": frozenset({EOS}),
        "begin": BOS,
        "access": "open",
    }
    return PairRows(TextRows(**{**values, **options}))


def rows_of(records: list[Pair], base: Base) -> tuple[ArrowRows, HeldOutPairs]:
    kind = pair_rows(base)
    pairs = kind.pairs(records, kind.no_facts())
    rows = [to_row([pair.chosen, pair.rejected]) for pair in pairs]
    data = Dataset.from_dict({name: [row[name] for row in rows] for name in COLUMNS}, features=COLUMNS)
    trained = sum(sum(side.trained) for pair in pairs for side in (pair.chosen, pair.rejected))
    return ArrowRows(data, hash_rows(data), trained, {}, [], [], []), HeldOutPairs.of(pairs)


def make_preference_trainer(
    output_dir: Path,
    *,
    base: Base | None = None,
    model: Any = None,
    train: list[Pair] | None = None,
    validation: list[Pair] | None = None,
    **settings: Any,
) -> PreferenceTrainer:
    """A trainer of a rank-4 adapter on 12 pairs, 4 a step, 6 steps; `settings` are those of the section train."""
    base = base or make_base()
    model = model or attach_new(base, LoraSettings(r=4, lora_alpha=8, lora_dropout=0.0), seed=0)
    training, _ = rows_of([preference(number) for number in range(12)] if train is None else train, base)
    held = [preference(number) for number in range(20, 26)] if validation is None else validation
    validating, held_out = rows_of(held, base)
    values = {"num_train_epochs": 2, "learning_rate": 1e-2, "max_length": 128, "logging_steps": 1, **settings}
    return PreferenceTrainer(
        model,
        base,
        TrainSettings(output_dir=str(output_dir), method="dpo", **values),
        train=training,
        validation=validating,
        held_out=held_out,
        reference="the base",
        samples=200,
        identity={"lora.r": 4},
    )

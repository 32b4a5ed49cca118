"""Token tagging: records to tagged rows, and AdapterTrainer with a loss over tags instead of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records
from lora_med.models.base import Base
from lora_med.prompts.entity_tags import UNTAGGED
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.row_kinds import TagRows, check_tagging
from lora_med.training.trainer import AdapterTrainer


@dataclass(frozen=True)
class TaggedRows:
    """Rows fit to train on, none longer than max_length, and the report on them (JSON values)."""

    rows: list[Tokens]
    report: dict[str, Any]


def read_tagged(records: Records, base: Base, train: TrainSettings, *, what: str = "training") -> TaggedRows:
    """The records of a split as tagged rows in memory, a longer text in pieces; the log counts what tags lose.

    Args:
        base: from `load_tagger`.
        what: the split's name, for messages.

    Raises:
        SettingsError: as `check_tagging`, or a record is no annotated text.
        DataError: a record has a type of mention that the base has no tag for.
        PreflightError: there is no row to train on.
    """
    check_tagging(records, base.labels, train)
    kind = TagRows(base.tokenizer, train.max_length, base.labels)
    rows, facts = kind.block(list(records))
    return TaggedRows(rows, kind.conclude(facts, what).report)


class TagTrainer(AdapterTrainer):
    """AdapterTrainer for a base of `load_tagger`: its loss is the cross entropy of each token's tag, not shifted.

    It trains on the rows of `read_tagged`. Checkpoints, resume and the stop before a bad step are AdapterTrainer's.
    """

    def _prepare_loss(self) -> None:
        """Return no reason and change nothing: the head has few outputs, so a one-pass loss would save nothing."""

    def total_nll(
        self, model: Any, inputs: dict[str, Any], labels: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Negative log-likelihood of the tags of a batch, summed."""
        logits = model(**inputs).logits.float()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=UNTAGGED, reduction="sum"
        )

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """How many tokens of a batch have a tag."""
        return (labels != UNTAGGED).sum()

"""Token tagging: records to tagged rows, and AdapterTrainer with a loss over tags instead of words."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from lora_med.config.schema import TrainSettings
from lora_med.data.corpus import Records
from lora_med.data.record import Annotated
from lora_med.errors import PreflightError, SettingsError
from lora_med.models.base import Base
from lora_med.prompts.entity_tags import UNTAGGED, cut_pieces, tag_coverage, write_tags
from lora_med.prompts.fit import quantiles
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.trainer import AdapterTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tagged(Tokens):
    """A row's token ids and the number of each token's label, UNTAGGED where a token has none."""

    tags: tuple[int, ...] = ()

    @property
    def targets(self) -> Sequence[int]:
        """The number of each token's label."""
        return self.tags


@dataclass(frozen=True)
class TaggedRows:
    """Rows fit to train on, none longer than max_length, and the report on them (JSON values)."""

    rows: list[Tagged]
    report: dict[str, Any]

    def sample(self, rows: int = 64) -> list[list[int]]:
        """Token ids of the first rows, for an initialization that looks at data (EVA)."""
        return [row.input_ids for row in self.rows[:rows]]


def read_tagged(records: Records, base: Base, train: TrainSettings, *, what: str = "training") -> TaggedRows:
    """The records of a split as tagged rows, a longer text in pieces; the log counts what tags cannot express.

    Args:
        base: from `load_tagger`.
        what: the split's name, for messages.

    Raises:
        SettingsError: the base has no tags, a record is no annotated text, or the records are streamed.
        DataError: a record has a type of mention that the base has no tag for.
        PreflightError: there is no row to train on.
    """
    if not base.labels:
        raise SettingsError("the base writes text and has no head for tags", fix="load_tagger(base, labels)")
    if train.packing:
        raise SettingsError("packed texts would see each other", where="train.packing", fix="train.packing=false")
    if train.share_context:
        raise SettingsError(
            "tagged texts cannot share a prefix", where="train.share_context", fix="train.share_context=false"
        )
    if not isinstance(records, Sequence):
        raise SettingsError("tagged rows cannot be streamed", where="data.streaming", fix="data.streaming=false")
    annotated = [record for record in records if isinstance(record, Annotated)]
    if len(annotated) < len(records):
        raise SettingsError("tags need annotated texts", where="data.source", fix="lora-med data list")
    rows = []
    for record in annotated:
        for piece in cut_pieces(record, base.tokenizer, train.max_length):
            tags = write_tags(piece, record.spans, base.labels)
            trained = [tag != UNTAGGED for tag in tags]
            rows.append(Tagged(record.uid, list(piece.input_ids), trained, tags=tuple(tags)))
    if not rows and what == "training":
        raise PreflightError("there is nothing to train on: 0 rows", where=f"the {what} split")
    coverage = tag_coverage(annotated, base.tokenizer, base.labels, train.max_length)
    report = {
        "texts": len(annotated),
        "rows": len(rows),
        "tagged_tokens": sum(sum(row.trained) for row in rows),
        "length": quantiles([len(row.input_ids) for row in rows]) if rows else {},
        **asdict(coverage),
    }
    logger.info("%s: %d texts in %d rows", what, len(annotated), len(rows))
    if coverage.recovered < coverage.mentions:
        logger.info(
            "%s: tags cannot express %d of %d mentions", what, coverage.mentions - coverage.recovered, coverage.mentions
        )
    return TaggedRows(rows, report)


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

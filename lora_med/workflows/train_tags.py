"""What is special about training an adapter that tags named entities: labels, a classification head, entity scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_med.config.schema import ModelSettings, Settings
from lora_med.data.corpus import Corpus
from lora_med.errors import SettingsError
from lora_med.evaluation.scorers.tag_answers import score_tags
from lora_med.models.base import Base
from lora_med.models.tagging import load_tagger
from lora_med.prompts.entity_tags import tag_labels
from lora_med.training.preparation.grouped_rows import GroupedRows
from lora_med.training.preparation.opened_corpus import OpenedRecords
from lora_med.training.preparation.preparer import Preparer
from lora_med.training.preparation.row_kinds import TagRows, check_tagging
from lora_med.training.private.private_run import check_private
from lora_med.training.rows.documents import tokenizer_marks
from lora_med.training.rows.prepared_rows import Preparation
from lora_med.training.rows.token_cache import data_key
from lora_med.workflows.split_rows import SplitRows

TEMPLATE = "tags"


@dataclass(frozen=True)
class TagTask:
    """Training a head that labels each token B-, I- or O, for the entity types of the training records."""

    labels: tuple[str, ...]
    head_dropout: float = 0.1

    @classmethod
    def of(cls, corpus: Corpus, settings: Settings) -> TagTask:
        """The task of this corpus.

        Raises:
            SettingsError: a record is no annotated text, or scores are to be taken during training; or as
                `check_private`.
            DataError: no record has a mention.
            DependencyMissingError: as `check_private`.
        """
        if settings.evaluate.eval_steps:
            raise SettingsError(
                "an adapter that tags tokens is scored after training, not during it",
                where="evaluate.eval_steps",
                fix="leave evaluate.eval_steps out; train.eval_steps sets how often the validation loss is taken",
            )
        check_private(settings)
        records = corpus.train
        labels = records.tag_labels() if isinstance(records, OpenedRecords) else tag_labels(records)
        return cls(labels, settings.lora.head_dropout)

    def facts(self, corpus: Corpus) -> dict[str, Any]:
        """What run.json records about the task."""
        return {"template": TEMPLATE, "labels": list(self.labels)}

    def template(self, corpus: Corpus) -> str:
        """The template's name for the card."""
        return TEMPLATE

    def load_base(self, model: ModelSettings) -> Base:
        """The base with an untrained head for the labels."""
        return load_tagger(
            model.base,
            self.labels,
            quantization=model.quantization,
            quant_type=model.bnb_4bit_quant_type,
            double_quant=model.bnb_4bit_use_double_quant,
            dtype=model.dtype,
            attention=model.attn_implementation,
            revision=model.revision,
            head_dropout=self.head_dropout,
        )

    def check_base(self, base: Base) -> None:
        """Refuse a base whose head has other labels."""
        if base.labels != self.labels:
            actual = f"has a head for {', '.join(base.labels)}" if base.labels else "writes text"
            raise SettingsError(
                f"the data need a head for {', '.join(self.labels)}, and this base {actual}",
                where="lora.task_type",
                fix="load_tagger(base, labels) with these labels",
            )

    def with_template(self, base: Base, settings: Settings, corpus: Corpus) -> Base:
        """The base as it is: tags have no conversations."""
        return base

    def read_rows(
        self, corpus: Corpus, base: Base, settings: Settings, *, access: str, preparer: Preparer
    ) -> SplitRows:
        """Both splits as tagged rows on disk."""
        train = settings.train
        check_tagging(corpus.train, base.labels, train)
        preparation = Preparation(train, data_key(settings, corpus), tokenizer_marks(base), preparer)
        kind = TagRows(base.tokenizer, train.max_length, self.labels)
        training = preparation.rows(corpus.train, kind if train.privacy is None else GroupedRows(kind), "training")
        return SplitRows(training, preparation.validation(corpus.validation, kind, settings.data.validation_share))

    def make_trainer(
        self,
        model: Any,
        base: Base,
        settings: Settings,
        rows: SplitRows,
        corpus: Corpus,
        identity: Mapping[str, Any],
    ) -> Any:
        """The trainer on these rows."""
        from lora_med.training.private.private_trainer import PrivateTagTrainer
        from lora_med.training.tag_trainer import TagTrainer

        if settings.train.privacy is not None:
            train, patients = rows.training, rows.training.groups
            return PrivateTagTrainer(model, base, settings.train, train=train, patients=patients, identity=identity)
        return TagTrainer(
            model, base, settings.train, train=rows.training, validation=rows.validation, identity=identity
        )

    def score(self, model: Any, base: Base, settings: Settings, corpus: Corpus) -> dict[str, Any]:
        """The entity scores on the validation split; with privacy none, as its patients are not charged for."""
        if settings.train.privacy is not None:
            return {}
        scores = score_tags(model, base, list(corpus.validation), settings.train.max_length)
        return {"entities (validation)": scores}

"""What is special about training on preferences: pairs of answers as rows, and the reference of their rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.store import WEIGHTS, find_adapter
from lora_med.config.method_rules import refused_combinations
from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus
from lora_med.data.record import Record
from lora_med.errors import DataError, IntegrityError, SettingsError
from lora_med.models.base import Base
from lora_med.models.generation import stop_ids
from lora_med.prompts.chat_template import read_template
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.preparation.opened_corpus import holds_preferences
from lora_med.training.preparation.pair_rows import PairRows
from lora_med.training.preparation.preparer import Preparer
from lora_med.training.preparation.row_kinds import TextRows
from lora_med.training.rows.documents import tokenizer_marks
from lora_med.training.rows.preflight import show_rows
from lora_med.training.rows.prepared_rows import Preparation
from lora_med.training.rows.token_cache import data_key
from lora_med.workflows.split_rows import SplitRows
from lora_med.workflows.train_text import TextTask

BASE_AS_REFERENCE = "the base, without an adapter"


@dataclass(frozen=True)
class PreferenceTask(TextTask):
    """Training a language model to prefer the chosen answer of each pair; `reference` names what it starts from."""

    reference: str = BASE_AS_REFERENCE

    @classmethod
    def of(cls, corpus: Corpus, settings: Settings) -> PreferenceTask:
        """The task of this corpus.

        Raises:
            SettingsError: a setting that the method cannot be combined with.
            DataError: the data hold no preferences.
        """
        refused = refused_combinations(settings)
        if refused:
            what = f"train.method dpo cannot be combined with {'; nor with '.join(refused)}"
            raise SettingsError(what, where="train.method", fix="set these, or train.method=sft")
        if not holds_preferences(corpus):
            raise DataError(
                "train.method is dpo, and the data hold no pairs of a chosen and a rejected answer",
                where="data.paths",
                fix="rows with prompt, chosen and rejected (data.columns maps other names), or train.method=sft",
            )
        if settings.model.chat_template is not None:
            read_template(settings.model.chat_template)
        parent = settings.lora.continue_from
        if parent is None:
            return cls()
        weights = read_card(find_adapter(parent, settings.adapter.store)).files[WEIGHTS]
        return cls(f"the adapter {parent}, SHA-256 of its weights {weights}")

    def facts(self, corpus: Corpus) -> dict[str, Any]:
        """What run.json records about the task."""
        return {**super().facts(corpus), "reference": self.reference}

    def read_rows(
        self, corpus: Corpus, base: Base, settings: Settings, *, access: str, preparer: Preparer
    ) -> SplitRows:
        """Both splits as checked rows of two documents on disk."""
        kind = _pair_rows(corpus, base, settings, access)
        preparation = Preparation(settings.train, data_key(settings, corpus), tokenizer_marks(base), preparer)
        training = preparation.rows(corpus.train, kind, "training")
        show_rows(training.shown, base.tokenizer, access=access)
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
        from lora_med.training.preference_scores import HeldOutPairs
        from lora_med.training.preference_trainer import PreferenceTrainer  # it loads TRL: 7 to 16 s

        kind = _pair_rows(corpus, base, settings, "credentialed")
        held_out = HeldOutPairs.of(kind.pairs(list(corpus.validation), kind.no_facts()))
        if len(held_out.groups) != len(rows.validation.rows):
            raise IntegrityError(
                f"{len(rows.validation.rows)} rows were prepared of {len(held_out.groups)} held-out pairs",
                where=settings.train.output_dir,
                fix="another train.output_dir",
            )
        return PreferenceTrainer(
            model,
            base,
            settings.train,
            train=rows.training,
            validation=rows.validation,
            held_out=held_out,
            reference=self.reference,
            samples=settings.evaluate.bootstrap_samples,
            identity=identity,
        )


def pair_documents(
    records: Sequence[Record], templates: Mapping[str, str], tokenizer: Any, settings: Settings
) -> list[Tokens]:
    """The two documents of each pair end to end, as a step holds them, to plan with: unchecked, and not to train on.

    Raises:
        DataError: a record is no preference.
    """
    kind = PairRows(_text_rows(templates, tokenizer, settings, "credentialed", stops=()))
    pairs = kind.pairs(records, kind.no_facts())
    return [
        replace(
            pair.chosen,
            input_ids=pair.chosen.input_ids + pair.rejected.input_ids,
            trained=pair.chosen.trained + pair.rejected.trained,
        )
        for pair in pairs
    ]


def _pair_rows(corpus: Corpus, base: Base, settings: Settings, access: str) -> PairRows:
    stops = stop_ids(base.model, base.tokenizer)
    return PairRows(_text_rows(corpus.templates, base.tokenizer, settings, access, stops=stops))


def _text_rows(
    templates: Mapping[str, str], tokenizer: Any, settings: Settings, access: str, *, stops: Iterable[int]
) -> TextRows:
    train = settings.train
    return TextRows(
        template=templates,
        tokenizer=tokenizer,
        max_length=train.max_length,
        too_long=train.too_long,
        assistant_turns=train.assistant_turns,
        skip_bad=settings.data.skip_bad,
        allow_rows_dropped=train.allow_rows_dropped,
        stops=frozenset(stops),
        begin=tokenizer.bos_token_id,
        access=access,
    )

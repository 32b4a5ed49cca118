"""What is special about training an adapter that writes: rows of text or tasks, and scores during training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_med.adapters.store.published import open_files
from lora_med.adapters.store.store import find_adapter
from lora_med.config.schema import ModelSettings, Settings
from lora_med.data.corpus import Corpus, Stream
from lora_med.errors import SettingsError
from lora_med.evaluation.eval_during_training import check_validation_task, validation_task
from lora_med.models.base import Base, load_base
from lora_med.models.generation import stop_ids
from lora_med.prompts.chat_template import own_template, read_template
from lora_med.training.preparation.grouped_rows import GroupedRows
from lora_med.training.preparation.opened_corpus import holds_preferences
from lora_med.training.preparation.preparer import Preparer
from lora_med.training.preparation.row_kinds import RowKind, TextRows
from lora_med.training.private.private_run import check_private
from lora_med.training.rows.documents import read_documents, tokenizer_marks
from lora_med.training.rows.preflight import show_rows
from lora_med.training.rows.prepared_rows import Preparation
from lora_med.training.rows.token_cache import data_key
from lora_med.workflows.split_rows import SplitRows


@dataclass(frozen=True)
class TextTask:
    """Training a language model on the rows that the template makes of the records."""

    @classmethod
    def of(cls, corpus: Corpus, settings: Settings) -> TextTask:
        """The task of this corpus; refuses a metric that the template does not have, before a model is loaded.

        Raises:
            SettingsError: the records are preferences, or as `check_private` and `check_validation_task`.
            DependencyMissingError: as `check_private`.
        """
        if holds_preferences(corpus):
            raise SettingsError(
                "the data hold pairs of a chosen and a rejected answer, and train.method is sft",
                where="train.method",
                fix="train.method=dpo learns the preferences; data.columns={prompt: prompt, completion: chosen} with "
                "data.ignore_columns=[rejected] trains on the chosen answers alone",
            )
        check_private(settings)
        check_validation_task(settings.evaluate, corpus, seed=settings.data.split_seed)
        if settings.model.chat_template is not None:
            read_template(settings.model.chat_template)
        return cls()

    def facts(self, corpus: Corpus) -> dict[str, Any]:
        """What run.json records about the task."""
        return {"template": corpus.template}

    def template(self, corpus: Corpus) -> str:
        """The template's name for the card."""
        return corpus.template

    def load_base(self, model: ModelSettings) -> Base:
        """The base with its language-model head."""
        return load_base(
            model.base,
            quantization=model.quantization,
            quant_type=model.bnb_4bit_quant_type,
            double_quant=model.bnb_4bit_use_double_quant,
            dtype=model.dtype,
            attention=model.attn_implementation,
            revision=model.revision,
            keep_quantized=model.keep_quantized,
        )

    def check_base(self, base: Base) -> None:
        """Refuse a base with a head that tags tokens."""
        if base.labels:
            raise SettingsError(
                "this base has a head that tags tokens, and the task is to write text",
                where="lora.task_type",
                fix="lora.task_type=TOKEN_CLS, or load the base with load_base",
            )

    def with_template(self, base: Base, settings: Settings, corpus: Corpus) -> Base:
        """The base with the chat template of this run, checked; an adapter that is trained further keeps its own.

        Raises:
            InputMissingError, SettingsError: as `own_template`.
        """
        model, lora = settings.model, settings.lora
        if lora.continue_from is not None and model.chat_template is None:
            parent = open_files(find_adapter(lora.continue_from, settings.adapter.store))
            base = base.with_chat_template(parent.chat_template)
        text = own_template(
            base.tokenizer,
            corpus.templates.values(),
            file=model.chat_template,
            enable_thinking=model.enable_thinking,
        )
        return base.with_chat_template(text)

    def read_rows(
        self, corpus: Corpus, base: Base, settings: Settings, *, access: str, preparer: Preparer
    ) -> SplitRows:
        """Both splits as checked rows on disk; of a training stream, checked documents that are read at each pass."""
        train = settings.train
        key = data_key(settings, corpus)
        preparation = Preparation(train, key, tokenizer_marks(base), preparer)
        kind: RowKind = TextRows(
            template=corpus.templates,
            tokenizer=base.tokenizer,
            max_length=train.max_length,
            too_long=train.too_long,
            assistant_turns=train.assistant_turns,
            skip_bad=settings.data.skip_bad,
            allow_rows_dropped=train.allow_rows_dropped,
            stops=frozenset(stop_ids(base.model, base.tokenizer)),
            begin=base.tokenizer.bos_token_id,
            access=access,
        )
        if isinstance(corpus.train, Stream):
            options: dict[str, Any] = {"access": access, "skip_bad": settings.data.skip_bad, "key": key}
            training: Any = read_documents(corpus.train, corpus.templates, base, train, **options)
        else:
            training = preparation.rows(corpus.train, kind if train.privacy is None else GroupedRows(kind), "training")
            show_rows(training.shown, base.tokenizer, access=access)
        validation = preparation.validation(corpus.validation, kind, settings.data.validation_share)
        return SplitRows(training, validation, key if training.streamed else None)

    def make_trainer(
        self,
        model: Any,
        base: Base,
        settings: Settings,
        rows: SplitRows,
        corpus: Corpus,
        identity: Mapping[str, Any],
    ) -> Any:
        """The trainer on these rows, with the validation task that `settings.evaluate` asks for."""
        from lora_med.training.private.private_trainer import PrivateTrainer  # it loads TRL: 7 to 16 s
        from lora_med.training.trainer import AdapterTrainer

        if settings.train.privacy is not None:
            train, patients = rows.training, rows.training.groups
            return PrivateTrainer(model, base, settings.train, train=train, patients=patients, identity=identity)
        return AdapterTrainer(
            model,
            base,
            settings.train,
            train=rows.training.documents if rows.training.streamed else rows.training,
            validation=rows.validation,
            identity=identity,
            validation_task=validation_task(
                settings.evaluate, corpus, base, seed=settings.data.split_seed, skip_bad=settings.data.skip_bad
            ),
        )

    def score(self, model: Any, base: Base, settings: Settings, corpus: Corpus) -> dict[str, Any]:
        """No scores but the trainer's."""
        return {}

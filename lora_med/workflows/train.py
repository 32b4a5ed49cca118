"""Training in five calls: open the data, load the base, attach the adapter, train, publish.

Each call takes what it needs from what the earlier one returned. So the calls cannot be made in a wrong order,
the access class of the data guards everything that the run writes, and a resumed run is always compared with the
earlier one.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.attach import attach_new
from lora_med.adapters.store.base_data import with_base_data
from lora_med.adapters.store.card import DataFacts
from lora_med.adapters.store.store import check_free, publish
from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus, open_corpus
from lora_med.models.base import Base
from lora_med.models.tokens.base_tokenizer import check_tokens
from lora_med.models.tokens.vocabulary import add_tokens, number_tokens
from lora_med.processes.peers import Peers
from lora_med.processes.together import mark, telling_others, together
from lora_med.run import Run, start_run
from lora_med.training.preparation.opened_corpus import open_once
from lora_med.training.preparation.preparer import Preparer
from lora_med.training.rows.token_cache import prepares_rows
from lora_med.training.run_agreement import agree_on_base, agree_on_data, agree_on_rows
from lora_med.training.settings_check import check_training
from lora_med.workflows.lora_config import with_lora
from lora_med.workflows.preferences.train_preferences import PreferenceTask
from lora_med.workflows.run_identity import data_facts, run_identity
from lora_med.workflows.train_tags import TagTask
from lora_med.workflows.train_text import TextTask
from lora_med.workflows.validation_verdict import report_validation

logger = logging.getLogger(__name__)
TASKS = {"CAUSAL_LM": TextTask, "TOKEN_CLS": TagTask}


@dataclass(frozen=True)
class TrainingData:
    """The training and validation records of a run whose folder is locked; the test split stays closed."""

    settings: Settings
    corpus: Corpus
    facts: DataFacts
    run: Run = field(repr=False)
    task: TextTask | TagTask
    preparer: Preparer = field(repr=False)
    peers: Peers | None = None  # the other processes of the run

    def load_base(self, base: Base | None = None) -> TrainingBase:
        """The base that `settings.model` names, frozen, in 4, 8 or 16 bits; its fingerprint goes into run.json.

        Args:
            base: one that is loaded already, by `lora_med.load_base`; it takes the place of `settings.model`.

        Raises:
            InputMissingError, SettingsError, IntegrityError: as `lora_med.load_base`.
        """
        tokens = self.settings.lora.trainable_tokens
        if base is None and tokens:
            check_tokens(tokens, self.settings.model)
        mark("loading the base", busy=True)
        loaded = base if base is not None else self.task.load_base(self.settings.model)
        self.task.check_base(loaded)
        facts = with_base_data(self.facts, loaded.name, loaded.folder)
        if facts != self.facts:
            self.run.restrict(facts.access)
            self.run.record(data=vars(facts))
        data = replace(self, facts=facts)
        loaded = self.task.with_template(loaded, self.settings, self.corpus)
        if tokens:
            add_tokens(loaded, number_tokens(loaded, tokens))  # before rows are read: they contain the tokens
        self.run.record(choices=[str(choice) for choice in loaded.choices], base=vars(loaded.fingerprint))
        settings = _packed_where_separate(self.settings if base is None else _with_base(self.settings, base), loaded)
        if settings is self.settings:
            return TrainingBase(data, loaded)
        self.run.record(settings=settings.model_dump(mode="json"))
        return TrainingBase(replace(data, settings=settings), loaded)


@dataclass(frozen=True)
class TrainingBase:
    """A loaded base, and the data to train on it."""

    data: TrainingData
    base: Base

    def attach(self) -> TrainableAdapter:
        """A new LoRA adapter on the base, beside rows that passed the preflight.

        Raises:
            DisagreementError: the processes of the run have different bases.
            PreflightError: the rows would train something else than intended.
            SettingsError: a layer, pattern or combination in `settings.lora` is not possible.
        """
        data, settings = self.data, self.data.settings
        mark("comparing the base")
        agree_on_base(data.peers, settings, self.base)
        mark("preparing its rows", busy=True)
        options = {"access": data.facts.access, "preparer": data.preparer}
        rows = data.task.read_rows(data.corpus, self.base, settings, **options)
        data.preparer.close()  # and with it go the records that it holds
        data.run.record(lengths=rows.report)
        model = attach_new(
            self.base,
            settings.lora,
            seed=settings.train.seed,
            store=settings.adapter.store,
            rows=rows.sample(),
        )
        return TrainableAdapter(data=data, base=self.base, model=model, rows=rows)


@dataclass(frozen=True)
class TrainableAdapter:
    """A PeftModel with one new adapter, and the rows to train it on."""

    data: TrainingData
    base: Base
    model: Any
    rows: Any = field(repr=False)

    def train(self) -> TrainedAdapter:
        """Train, from the newest checkpoint of the same run if there is one, and leave the best adapter in the model.

        Raises:
            StoppedError: SIGTERM or Ctrl-C; the same command continues from a committed checkpoint.
            DivergedError: a loss or a gradient is not finite; that step was not taken.
            SettingsError: the folder holds another run; the message names what differs.
            DisagreementError: the processes of the run have different rows.
        """
        data = self.data
        mark("preparing the trainer", busy=True)
        identity = run_identity(data.settings, self.base, data.corpus.hashes, stream=self.rows.stream_key)
        trainer = data.task.make_trainer(self.model, self.base, data.settings, self.rows, data.corpus, identity)
        mark("comparing the rows")
        agree_on_rows(data.peers, trainer.identity)
        trainer.train()
        mark("scoring the adapter", busy=True)
        scores = {**trainer.scores(), **data.task.score(self.model, self.base, data.settings, data.corpus)}
        # Gathering the weights of a model in shards is collective: every process takes part, rank 0 alone publishes.
        return TrainedAdapter(
            data=data,
            base=self.base,
            model=self.model,
            weights=trainer.weights(),
            scores=scores,
            privacy=trainer.privacy(),
            publishes=trainer.is_world_process_zero(),
        )


@dataclass(frozen=True)
class TrainedAdapter:
    """A trained adapter with its validation scores; `weights` are complete and on the CPU.

    `publishes` is true in the process that writes the adapter into the store.
    """

    data: TrainingData
    base: Base
    model: Any
    weights: dict[str, Any] = field(repr=False)
    scores: dict[str, Any]
    privacy: dict[str, Any]
    publishes: bool

    def publish(self) -> Path:
        """Write the adapter into the store, the card last; returns its folder.

        Raises:
            OutputError: the name is taken.
            WorseThanBaseError: on validation the adapter is worse than what its training began from; nothing is
                published without `adapter.publish_worse`.
            IntegrityError: a tensor is missing, misshapen or not finite; nothing is written.
        """
        data, adapter = self.data, self.data.settings.adapter
        mark("publishing the adapter", busy=True)
        data.run.record(scores=self.scores, **({"privacy": self.privacy} if self.privacy else {}))
        report_validation(self.scores, data.settings)
        if self.publishes:
            publish(
                self.model,
                base=self.base,
                name=adapter.name,
                store=adapter.store,
                template=data.task.template(data.corpus),
                data=data.facts,
                settings=data.settings.model_dump(mode="json"),
                description=adapter.description,
                scores=self.scores,
                privacy=self.privacy,
                overwrite=adapter.overwrite,
                state=self.weights,
            )
        folder = Path(adapter.store) / adapter.name
        data.run.record(adapter=str(folder))
        return folder


def _with_base(settings: Settings, base: Base) -> Settings:
    """`settings` with the section `model` of the loaded base, so that the card and a resumed run name this base."""
    bits = {"load_in_4bit": base.quantization == "4bit", "load_in_8bit": base.quantization == "8bit"}
    model = settings.model.model_copy(
        update={"base": base.name, "revision": base.revision, "dtype": base.dtype, **bits}
    )
    return settings.model_copy(update={"model": model})


def _packed_where_separate(settings: Settings, base: Base) -> Settings:
    """`settings` without packing if the attention that was chosen by itself cannot keep packed documents separate."""
    from lora_med.training.arguments import FLAT  # it loads TRL

    if not settings.train.packing or settings.model.attn_implementation != "auto" or base.attention in FLAT:
        return settings
    logger.warning("packing: off, because with attention %s packed documents would see each other", base.attention)
    return settings.model_copy(update={"train": settings.train.model_copy(update={"packing": False})})


@contextmanager
def open_data(
    settings: Settings, *, train: Any = None, validation: Any = None, lora: Any = None, command: Sequence[str] = ()
) -> Iterator[TrainingData]:
    """Lock the run's folder and open its training and validation records; everything cheap is checked here.

    Args:
        train: rows in memory in place of `settings.data.paths`: a `datasets.Dataset`, a list of dicts or of Records.
        validation: the same; left out, a share of `train` is validation.
        lora: a `peft.LoraConfig` in place of `settings.lora`.
        command: what run.json records as the command; left out, that of this process.

    Raises:
        OutputError: the adapter's name is taken, or another run holds the folder.
        SettingsError, InputMissingError, DataError: as `open_corpus`; a field of `lora` cannot be honored; or nobody
            stated the access class of the data.
        DisagreementError: the processes of the run have different settings, versions or data.
        StoppedError: another process of the run is gone.
    """
    settings = with_lora(settings, lora)
    resolved, adapter = settings.model_dump(mode="json"), settings.adapter
    command = list(command) or sys.argv
    output_dir, train_settings = settings.train.output_dir, settings.train
    with (
        telling_others(),
        start_run(output_dir, settings=resolved, seed=train_settings.seed, command=command) as run,
        prepares_rows(train_settings) as preparer,
        together(output_dir, patience=train_settings.peer_timeout) as peers,
    ):
        if peers is not None:
            peers.on_end = run.record_error
        mark("reading its data", busy=True)
        check_free(adapter.name, adapter.store, overwrite=adapter.overwrite)
        in_files = train is None and validation is None
        corpus = (
            open_once(settings.data, adapter.access, Path(output_dir), preparer)
            if in_files
            else open_corpus(settings.data, train=train, validation=validation, access=adapter.access)
        )
        kind = PreferenceTask if settings.train.method == "dpo" else TASKS[settings.lora.task_type]
        task = kind.of(corpus, settings)
        facts = data_facts(settings, corpus)
        preparer.access = facts.access
        run.restrict(facts.access)
        mark("comparing settings and data")
        agree_on_data(peers, settings, corpus, facts, run)
        check_training(train_settings)  # it opens torch's process group, where a process would wait without a word
        run.record(data=vars(facts), split=corpus.split_description, **task.facts(corpus))
        yield TrainingData(settings, corpus, facts, run, task, preparer, peers)


def train(
    settings: Settings,
    *,
    train: Any = None,
    validation: Any = None,
    base: Base | None = None,
    lora: Any = None,
    command: Sequence[str] = (),
) -> Path:
    """Train an adapter by `settings` and publish it; returns its folder in the store.

    Args:
        train, validation, lora, command: as `open_data` takes them.
        base: a base that is loaded already, as `TrainingData.load_base` takes it.

    Raises:
        LoraMedError: as the five calls; its class says what went wrong.
    """
    with open_data(settings, train=train, validation=validation, lora=lora, command=command) as data:
        return data.load_base(base).attach().train().publish()

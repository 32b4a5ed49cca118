"""AdapterTrainer: TRL's SFTTrainer on rows that are ready, with checkpoints that hold and a resume that is exact."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.trainer_utils import TrainOutput
from trl.trainer.sft_trainer import SFTTrainer

from lora_med.config.schema import TrainSettings
from lora_med.errors import DataError, SettingsError, StoppedError
from lora_med.models.attention.per_document import NAME as PER_DOCUMENT
from lora_med.models.base import Base
from lora_med.models.memory import spare_memory
from lora_med.prompts.tokens import Tokens
from lora_med.run import rank, world_size
from lora_med.training.arguments import FLAT, Schedule, refuse_misfit, training_arguments
from lora_med.training.planner.run_memory import with_room
from lora_med.training.rows.batches import Collator, Share, Stream, hash_rows, make_rows
from lora_med.training.rows.shared_prefix_rows import grow_trees
from lora_med.training.run.adapter_files import load_adapter, restore, save_adapter, saved_weights, trainable_weights
from lora_med.training.run.callbacks import MetricsFile, ProgressReport
from lora_med.training.run.checkpoints import announce, commit, rotate, whole, written
from lora_med.training.run.resume import find_resume
from lora_med.training.run.stopping import StopRequest
from lora_med.training.step.frozen_cache import FrozenRows, frozen_rows
from lora_med.training.step.loss import add_compact_loss, why_not_compact
from lora_med.training.step.self_test import probe
from lora_med.training.step.task_eval import ValidationTask
from lora_med.training.steps import SteppingTrainer

logger = logging.getLogger(__name__)


class AdapterTrainer(SteppingTrainer):
    """Trains the adapter "default" of a PeftModel and leaves the best one in it.

    Args:
        model: a PeftModel with one trainable adapter.
        base: the base it stands on; its tokenizer, dtype and attention are used.
        settings: the section `train`.
        train: documents, none longer than `settings.max_length`: a list, or a re-iterable stream.
        validation: documents to validate on; may be empty, and then the last adapter is the result.
        identity: field -> value of all that a resumed run must share (`run_identity`); the rows are added here.
        watch: a task to score while training, and perhaps to choose the adapter by; None for none.

    Raises:
        DataError: there is nothing to train on.
        SettingsError: a setting that cannot work, or an adapter on the output head.
        DependencyMissingError: the tracker is not installed.
    """

    def __init__(
        self,
        model: Any,
        base: Base,
        settings: TrainSettings,
        *,
        train: Iterable[Tokens],
        validation: Iterable[Tokens] = (),
        identity: Mapping[str, Any] | None = None,
        validation_task: ValidationTask | None = None,
    ) -> None:
        refuse_misfit(model, base, settings)
        settings = with_room(settings, model, base, train) if settings.batch == "auto" else settings
        self.settings = settings
        self.output_dir = Path(settings.output_dir)
        self.base_dtype = base.dtype
        self.stop_request = StopRequest()
        self.share = Share(rank(), world_size())
        self.progress = ProgressReport()
        self.predicts_words = not base.labels
        rows = self._rows(train)
        held_out = self._joined(list(validation))
        validation_rows = make_rows(held_out, settings.max_length, settings.packing) if held_out else None
        steps = None
        if self.stream is None:
            rows_a_step = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
            steps = math.ceil(len(rows) / (rows_a_step * self.share.processes))
        schedule = Schedule(steps, validates=validation_rows is not None)
        tokenizer = base.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        followed = f"eval_{validation_task.metric}" if validation_task else None
        apart, flat = base.attention == PER_DOCUMENT, base.attention in FLAT
        self.collator = Collator(pad, flat=flat, unmasked=apart, numbered=settings.cache_frozen)
        weights = trainable_weights(model)
        super().__init__(
            model=model,
            args=training_arguments(settings, schedule, dtype=base.dtype),
            data_collator=self.collator,  # type: ignore[arg-type]
            train_dataset=rows,
            eval_dataset=validation_rows,
            processing_class=tokenizer,
            callbacks=[self.progress, MetricsFile(self.output_dir, followed)],
        )
        # DeepSpeed keeps float32 copies in its optimizer, and cannot gather weights of two formats at once.
        restore(self.model, weights, getattr(torch, base.dtype) if self.is_deepspeed_enabled else torch.float32)
        self.remove_callback(PrinterCallback)
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = self.predicts_words
        self.identity: dict[str, Any] = json.loads(json.dumps({**(identity or {}), "processes": self.share.processes}))
        if self.stream is None:
            self.identity["the training rows (SHA-256)"] = hash_rows(rows)
        self.validation_task = validation_task
        if validation_task is not None and validation_task.chooses:
            self._choose_by(validation_task)
        self.fallback = self._prepare_loss()
        self.frozen = self._frozen_rows(apart) if settings.cache_frozen else None
        self._micro_losses: list[torch.Tensor] = []

    def _rows(self, documents: Iterable[Tokens]) -> Dataset:
        """The training rows; of a stream only the first, which TRL looks at, while `get_train_dataloader` reads it."""
        settings = self.settings
        self.stream = None
        if isinstance(documents, Sequence):
            if not documents:
                raise DataError("there is nothing to train on: 0 rows", where="the training split")
            return make_rows(self._joined(documents), settings.max_length, settings.packing)
        if settings.share_context:
            raise SettingsError(
                "rows of a stream are not there to be joined", where="train.share_context", fix="data.streaming=false"
            )
        self.stream = Stream(documents, settings.max_length, settings.packing)
        return self.stream.first()

    def _joined(self, documents: Sequence[Tokens]) -> Sequence[Tokens]:
        """The documents, with `share_context` those that begin alike as trees."""
        return grow_trees(documents, self.settings.max_length) if self.settings.share_context else documents

    def _frozen_rows(self, apart: bool) -> FrozenRows:
        """Room for what the layers below the adapters give; `apart` as `frozen_rows` takes it."""
        free = spare_memory(self.args.device.type, self.share.processes)
        unsplit = self.stream is None and not self.sharded
        return frozen_rows(self.model.get_base_model(), apart=apart, whole=unsplit, free=free)

    def _choose_by(self, validation_task: ValidationTask) -> None:
        """Let a watched score choose the adapter, in place of the validation loss."""
        self.args.metric_for_best_model = f"eval_{validation_task.metric}"
        self.args.greater_is_better = not validation_task.lower_is_better
        self.identity["evaluate.metric_for_best_model"] = validation_task.metric
        self.identity["the items to choose by (SHA-256)"] = validation_task.digest

    def _prepare_loss(self) -> str | None:
        """Add the one-pass loss, or say why TRL's standard one is used."""
        inner = self.model.get_base_model()
        reason = why_not_compact(inner, partitioned=self.is_deepspeed_enabled)
        if reason is None:
            add_compact_loss(inner)
        else:
            logger.info("loss: TRL's standard path, because %s", reason)
        return reason

    # ---- Checkpoints ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter; under FSDP every process takes part, and only the adapter is gathered."""
        if self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
            return
        inner = self.accelerator.unwrap_model(self.model)
        self._save(output_dir, trainable_weights(inner))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The adapter alone: no tokenizer, no pickled arguments."""
        if self.args.should_save:
            inner = self.accelerator.unwrap_model(self.model)
            save_adapter(inner, Path(output_dir or self.args.output_dir), state_dict or trainable_weights(inner))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self.output_dir / f"checkpoint-{self.state.global_step}"
        if not all(bool(torch.isfinite(value).all()) for value in trainable_weights(self.model).values()):
            raise self.diverged("the adapter holds NaN or infinity")
        with written(folder):
            # Past SFTTrainer, which would add a model card to every checkpoint.
            super(SFTTrainer, self)._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            finished = self.control.should_training_stop and not self.stopping
            best = self._best_folder()
            commit(folder, step=self.state.global_step, identity=self.identity, finished=finished, best=best)
            rotate(self.output_dir, keep=self.settings.save_total_limit, best=best)
        self.accelerator.wait_for_everyone()

    def _best_folder(self) -> Path | None:
        step = self.state.best_global_step
        return self.output_dir / f"checkpoint-{step}" if step else None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_adapter(self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint))

    # ---- The run ----

    def train(self) -> TrainOutput | None:  # type: ignore[override]
        """Train, from the newest checkpoint of the same run if there is one, and leave the best adapter in the model.

        Returns what transformers returns, or None if the run had already ended.

        Raises:
            StoppedError: SIGTERM or Ctrl-C; a checkpoint is committed and the same command goes on from it.
            DivergedError: a loss or gradient is not finite; the step before it is the last that was taken.
            OutputError: there is an earlier run and `train.resume` is never.
            SettingsError: the earlier run was another one.
        """
        found = find_resume(self.output_dir, self.identity, resume=self.settings.resume, rank=self.share.rank)
        if found is not None and found.finished:
            logger.info("the run had ended at step %d", found.step)
            self.state = TrainerState.load_from_json(str(found.folder / "trainer_state.json"))
            load_adapter(self.model, whole(found.best or found.folder))
            return None
        if found is not None:
            announce(found)
        self.args.eval_on_start = found is None and self.eval_dataset is not None
        remembered = self.model.config.use_cache
        try:
            with self.stop_request.caught(), self._fused():
                result = super().train(resume_from_checkpoint=str(found.folder) if found else None)
        finally:
            self.progress.close()
            self.model.config.use_cache = remembered
        if self.stopping:
            raise StoppedError(
                f"stopped on request at step {self.state.global_step} of {self.state.max_steps}",
                where=str(self.output_dir),
                fix="run the same command again: it goes on from there",
            )
        self._load_best()
        return result

    def _prepare_for_training(self, *arguments: Any, **options: Any) -> Any:
        """Look before the first step whether documents stay apart and the one-pass loss is the model's own."""
        model, loader = super()._prepare_for_training(*arguments, **options)
        if not self.predicts_words:
            return model, loader
        wrong = probe(
            model if self.sharded else self.model,
            self.collator,
            words=self.model.config.get_text_config().vocab_size,
            dtype=self.base_dtype,
            device=self.args.device,
            compact=self.fallback is None,
            trees=self.settings.share_context,
        )
        if "packing" in wrong:
            raise SettingsError(
                "with this attention the documents of a batch see each other",
                where="model.attn_implementation",
                fix="set model.attn_implementation=sdpa and train.packing=false",
            )
        if "trees" in wrong:
            raise SettingsError(
                "this model gives rows that share their beginning other numbers than alone",
                where="train.share_context",
                fix="train.share_context=false",
            )
        if wrong:
            self.fallback = "the one-pass loss is not the model's own"
            logger.warning("loss: TRL's standard path, because %s", self.fallback)
        return model, loader

    def _init_training_state(self, *arguments: Any, **options: Any) -> tuple[int, int]:
        """The state of a resumed run is the checkpoint's, but how often to log, validate and save is as set now."""
        found = super()._init_training_state(*arguments, **options)
        self.state.compute_steps(self.args, self.state.max_steps)
        return found

    def _load_best(self) -> None:
        best = self._best_folder()
        if best is None or self.state.best_global_step == self.state.global_step:
            return
        metric, value = self.args.metric_for_best_model, self.state.best_metric
        logger.info("the best adapter is that of step %d: %s %.4f", self.state.best_global_step, metric, value)
        if not self.is_deepspeed_enabled:
            load_adapter(self.accelerator.unwrap_model(self.model), whole(best))

    def weights(self) -> dict[str, torch.Tensor]:
        """The adapter's tensors, whole and on the CPU, for `publish(state=...)`; every process must call it."""
        inner = self.accelerator.unwrap_model(self.model)
        if self.is_deepspeed_enabled:  # the model holds slices; the checkpoint that was chosen holds the whole
            return saved_weights(inner, self._best_folder() or self.output_dir / f"checkpoint-{self.state.global_step}")
        return trainable_weights(inner)

    def scores(self) -> dict[str, Any]:
        """What validation said of the adapter that was chosen: the metric, its value, and the step; may be empty."""
        if self.state.best_metric is None:
            return {}
        step = self.state.best_global_step
        found = {str(self.args.metric_for_best_model): self.state.best_metric, "step": step}
        if self.validation_task is not None and self.validation_task.chooses:
            found["items"] = self.validation_task.items
        return {"validation": found}

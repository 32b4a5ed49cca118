"""AdapterTrainer: TRL's SFTTrainer on rows that are ready, with committed checkpoints and a bit-identical resume."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from transformers.trainer_utils import TrainOutput

from lora_med.config.schema import TrainSettings
from lora_med.errors import StoppedError
from lora_med.models.attention.per_document import NAME as PER_DOCUMENT
from lora_med.models.attention.per_document import no_mask
from lora_med.models.base import Base
from lora_med.models.memory import spare_memory
from lora_med.processes.launch import rank, world_size
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.arguments import FLAT, Schedule, refuse_misfit, training_arguments
from lora_med.training.planner.run_memory import fit_to_memory
from lora_med.training.rows.arrow_rows import ArrowRows
from lora_med.training.rows.batches import Collator, Share, load_stream
from lora_med.training.rows.training_rows import training_rows, validation_rows
from lora_med.training.run.adapter_files import restore, trainable_weights
from lora_med.training.run.against_start import with_verdict
from lora_med.training.run.callbacks import MetricsFile, ProcessMarks, ProgressReport, Throughput
from lora_med.training.run.checkpoint_policy import choose_policy
from lora_med.training.run.checkpoint_sending import forget_received
from lora_med.training.run.resume import full_identity
from lora_med.training.run.rising_loss import RisingLoss
from lora_med.training.stack_check import check_stack
from lora_med.training.step.fast_layers import fast_layers
from lora_med.training.step.frozen_cache import FrozenRows, frozen_rows
from lora_med.training.step.fused_lora import Group
from lora_med.training.step.loss import labeled_positions, prepare_loss
from lora_med.training.step.non_finite_guard import StepGuard
from lora_med.training.step.out_of_memory import MicroBatches
from lora_med.training.step.self_test import SelfTest
from lora_med.training.step.task_eval import TaskEvaluation, ValidationTask
from lora_med.training.validating import ValidatingTrainer

logger = logging.getLogger(__name__)


class AdapterTrainer(ValidatingTrainer):
    """Trains the adapter "default" of a PeftModel and leaves the best one in it.

    Args:
        model: a PeftModel with one trainable adapter.
        base: the base under it; its tokenizer, dtype and attention are used.
        settings: the section `train`.
        train: rows on disk, or documents, none longer than `settings.max_length`: a list, or a re-iterable stream.
        validation: documents to validate on; may be empty, and then the last adapter is the result.
        identity: field -> value of all that a resumed run must share (`run_identity`); the rows are added here.
        validation_task: a task to score during training, and perhaps to choose the adapter by; None for none.

    Raises:
        DataError: there is nothing to train on.
        SettingsError: a setting that cannot work, or an adapter on the output head.
        DependencyMissingError: the tracker is not installed, or transformers or TRL lack what this class relies on.
    """

    groups: Sequence[Group] = ()  # during training, the LoRA layers that are computed together
    splits_batches = True  # whether a batch may be taken in parts where memory runs out

    def __init__(
        self,
        model: Any,
        base: Base,
        settings: TrainSettings,
        *,
        train: Iterable[Tokens] | ArrowRows,
        validation: Iterable[Tokens] | ArrowRows = (),
        identity: Mapping[str, Any] | None = None,
        validation_task: ValidationTask | None = None,
    ) -> None:
        check_stack()
        refuse_misfit(model, base, settings)
        settings = fit_to_memory(settings, model, base, train) if settings.batch == "auto" else settings
        self.settings = settings
        self.output_dir = Path(settings.output_dir)
        self.share = Share(rank(), world_size())
        self.predicts_words = not base.labels
        self.validation_task = validation_task
        self.rows = training_rows(train, settings)
        held_out = validation_rows(validation, settings)
        schedule = Schedule(self.rows.steps_per_epoch(settings, self.share.processes), validates=held_out is not None)
        tokenizer = base.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        unpadded = base.attention == PER_DOCUMENT
        layout: dict[str, Any] = {"flat": base.attention in FLAT, "unmasked": unpadded, "shifted": self.predicts_words}
        self.collator = Collator(pad, **layout, numbered=settings.cache_frozen)
        self.policy = choose_policy(settings, validation_task, validates=held_out is not None)
        arguments = training_arguments(settings, schedule, dtype=base.dtype)
        if validation_task is not None and validation_task.chooses:
            arguments.metric_for_best_model = None  # transformers would look for the score in every validation
        weights = trainable_weights(model)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=self.collator,  # type: ignore[arg-type]
            train_dataset=self.rows.rows,
            eval_dataset=held_out,
            processing_class=tokenizer,
            callbacks=self._callbacks(),
        )
        # DeepSpeed keeps float32 copies in its optimizer, and cannot gather weights of two formats at once.
        restore(self.model, weights, getattr(torch, base.dtype) if self.is_deepspeed_enabled else torch.float32)
        self.remove_callback(PrinterCallback)
        # The first of all callbacks, so that a run that is refused opens no tracker.
        self.callback_handler.callbacks.insert(0, SelfTest(self, base.dtype))
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = True
        self._loss_shifts_labels = self.predicts_words
        self.identity = full_identity(identity or {}, self.rows, self.share, validation_task)
        self.fallback = self._prepare_loss()
        self.frozen: FrozenRows | None = None
        if settings.cache_frozen:
            free = spare_memory(self.args.device.type, self.share.processes)
            complete = self.rows.stream is None and not self.sharded
            self.frozen = frozen_rows(self.model.get_base_model(), unpadded=unpadded, complete=complete, free=free)
        self.micro_batches = MicroBatches(cached=settings.cache_frozen)

    def _callbacks(self) -> list[TrainerCallback]:
        """Our callbacks, in the order in which they act at one event."""
        self.guard = StepGuard(self.output_dir)
        self.throughput = Throughput()
        self.progress = ProgressReport()
        task = self.validation_task
        metrics_file = MetricsFile(self.output_dir, f"eval_{task.metric}" if task is not None else None)
        scoring = [TaskEvaluation(task, self)] if task is not None else []
        ours = [ProcessMarks(), self.guard, self.throughput, self.progress, metrics_file, RisingLoss()]
        return [*ours, *scoring, self.policy]

    def _prepare_loss(self) -> str | None:
        """Add the one-pass loss to the model, or return the reason why TRL's standard loss is used."""
        inner = self.model.get_base_model()
        reason = prepare_loss(inner, partitioned=self.is_deepspeed_enabled)
        self.aux_loss_enabled = bool(getattr(inner.config.get_text_config(), "output_router_logits", False))
        return reason

    def privacy(self) -> dict[str, Any]:
        """What a run with `train.privacy` has spent, for the card; here empty."""
        return {}

    # ---- Steps ----

    def get_train_dataloader(self) -> Any:
        """This process's batches, in an order that any number of processes shares."""
        size = self.args.per_device_train_batch_size
        if self.rows.stream is not None:
            return load_stream(self.rows.stream, self.collator, batch_size=size, share=self.share)
        return self.batches(self.rows.rows, size, seed=self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood over the labeled tokens of the whole step, on all processes."""
        rows: list[tuple[int, int]] = inputs.pop("rows", [])
        positions: torch.Tensor | None = inputs.pop("nll_positions", None)
        frozen = self.frozen.around(rows) if self.frozen is not None and model.training else nullcontext()
        with frozen, no_mask() if "document_lengths" in inputs else nullcontext():
            if self.fallback is not None or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs.pop("labels")
            total = self.total_nll(model, inputs, labels, positions)
        if num_items_in_batch is None:
            return total / self.count(labels).clamp(min=1)
        # DDP averages the gradients of the processes, and the loss needs their sum.
        return total / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.share.processes

    def total_nll(
        self, model: Any, inputs: dict[str, Any], labels: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Negative log-likelihood of all labeled tokens of a batch, summed; `positions` as `labeled_positions`."""
        return model(**inputs, nll_labels=labels, nll_positions=positions)

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> torch.Tensor:
        """One forward and backward pass; counts its tokens, and splits the batch where memory runs out.

        Only a single process splits it: processes that wait for each other must take the same micro-batches.
        """
        mask = inputs.get("attention_mask")
        self.throughput.add(int(mask.sum()) if mask is not None else inputs["input_ids"].numel())
        step = super().training_step

        def take(batch: dict[str, Any]) -> torch.Tensor:
            return step(model, self.with_label_positions(batch), *arguments, **options)

        alone = self.share.processes == 1 and not self.is_deepspeed_enabled
        may_split = alone and self.fallback is None and self.splits_batches
        loss = self.micro_batches.take(model, inputs, take, self.groups) if may_split else take(inputs)
        self.guard.losses.append(loss.detach())
        return loss

    def with_label_positions(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The batch with the positions of its labels, computed while it is on the CPU: on a GPU the host would wait."""
        if self.fallback is None and self.predicts_words and inputs["labels"].device.type == "cpu":
            return {**inputs, "nll_positions": labeled_positions(inputs["labels"])}
        return inputs

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """Pass the gradient norm to the guard: no public callback receives it, and clipped gradients do not show it."""
        norm: Any = super()._get_grad_norm(model, grad_norm)
        self.guard.gradient_norm = norm
        self.guard.scaled = getattr(self.accelerator, "scaler", None) is not None
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed since the last log to training logs."""
        if "loss" in logs:
            tokens, seconds = self.throughput.read()
            total = float(self._sum(torch.tensor([float(tokens)], dtype=torch.float64))[0])
            logs["tokens_per_second"] = round(total / seconds, 1) if seconds else 0.0
        super().log(logs, start_time)

    # ---- The run ----

    def train(self) -> TrainOutput | None:  # type: ignore[override]
        """Train, from the newest checkpoint of the same run if there is one, and leave the best adapter in the model.

        Returns what transformers returns, or None if the run had already ended.

        Raises:
            StoppedError: SIGTERM or Ctrl-C; a checkpoint is committed and the same command continues from it.
            DivergedError: a loss or gradient is not finite; the step before it is the last that was taken.
            OutputError: there is an earlier run and `train.resume` is never.
            SettingsError: the earlier run was another one.
        """
        checkpoint = self.earlier_checkpoint()
        if checkpoint is not None and checkpoint.finished:
            self.take_result(checkpoint)
            return None
        self.args.eval_on_start = checkpoint is None and self.eval_dataset is not None
        use_cache = self.model.config.use_cache
        layers = fast_layers(self.model, self.args, self.settings, partitioned=self.is_deepspeed_enabled)
        try:
            with self.guard.stop_request.caught(), layers as self.groups:
                result = super().train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
        finally:
            self.progress.close()
            self.model.config.use_cache = use_cache
            forget_received(self.output_dir)
        if self.guard.stopping:
            raise StoppedError(
                f"stopped on request at step {self.state.global_step} of {self.state.max_steps}",
                where=str(self.output_dir),
                fix="run the same command again: it continues from there",
            )
        self.load_best()
        return result

    def scores(self) -> dict[str, Any]:
        """What validation measured for the chosen adapter, beside step 0; may be empty. Every process must call it."""
        scores, history = self.policy.scores(self.state), self.state.log_history
        return with_verdict(scores, history, self.validation_task, self.output_dir)

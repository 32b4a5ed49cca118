"""How a step is taken: batches in an order all processes share, the one-pass loss, and a stop before a bad step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer

from lora_med.config.schema import TrainSettings
from lora_med.errors import DivergedError
from lora_med.models.attention.per_document import no_mask
from lora_med.models.memory import large_tensors_returned
from lora_med.training.rows.batches import Collator, Share, Stream, load_rows, load_stream
from lora_med.training.run.checkpoints import newest_name
from lora_med.training.run.stopping import StopRequest, agree, no_longer_improves
from lora_med.training.step.frozen_cache import FrozenRows, no_gradient_below
from lora_med.training.step.fused_lora import Group, fused_lora
from lora_med.training.step.loss import count_labeled, labeled_places
from lora_med.training.step.out_of_memory import cut, is_one_document, keep_gradients, out_of_memory, too_small
from lora_med.training.step.task_eval import ITEMS, ValidationTask, all_answers, due, undisturbed

logger = logging.getLogger(__name__)


class SteppingTrainer(SFTTrainer):
    """SFTTrainer with our batches, loss, validation and logs; AdapterTrainer adds the run around the steps."""

    model: Any
    model_wrapped: Any
    train_dataset: Any
    eval_dataset: Any
    args: Any
    settings: TrainSettings
    output_dir: Path
    collator: Collator
    share: Share
    stream: Stream | None
    stop_request: StopRequest
    fallback: str | None
    predicts_words: bool
    validation_task: ValidationTask | None
    stopping = False
    _micro_losses: list[torch.Tensor]
    _tokens = 0
    _seconds = 0.0
    _step_begun: float | None = None
    frozen: FrozenRows | None = None
    groups: Sequence[Group] = ()  # while training, the adapters' layers that go together
    parts = 1  # a batch is taken in so many turns; doubled where memory runs out

    @property
    def sharded(self) -> bool:
        """Whether the model lies in shards, so that it works only where the whole of it is called."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    @contextmanager
    def _fused(self) -> Iterator[None]:
        """While training: the adapters' layers in groups, no gradient below the lowest, and little memory if asked for.

        Not with DeepSpeed, which gathers weights by hooks that a group would pass, and recomputes reentrantly. Where
        `trainer_args` ask for that kind of recomputing, it gets the gradient that it needs.
        """
        if self.is_deepspeed_enabled:
            yield
            return
        asked = (getattr(self.args, f"{kind}_checkpointing_kwargs", None) for kind in ("gradient", "activation"))
        reentrant = any(one and one.get("use_reentrant") for one in asked)
        below = nullcontext() if reentrant else no_gradient_below(self.model.get_base_model())
        scarce = self.settings.gradient_checkpointing and self.args.device.type == "cpu"
        with fused_lora(self.model) as self.groups, below, large_tensors_returned() if scarce else nullcontext():
            yield

    # ---- Batches ----

    def get_train_dataloader(self) -> Any:
        """This process's batches, in an order that any number of processes shares."""
        size = self.args.per_device_train_batch_size
        if self.stream is not None:
            return load_stream(self.stream, self.collator, batch_size=size, share=self.share)
        return load_rows(self.train_dataset, self.collator, batch_size=size, share=self.share, seed=self.args.seed)

    # ---- Loss ----

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood over the labeled tokens of the whole step, on all processes."""
        rows: list[tuple[int, int]] = inputs.pop("rows", [])
        places: torch.Tensor | None = inputs.pop("nll_places", None)
        frozen = self.frozen.around(rows) if self.frozen is not None and model.training else nullcontext()
        with frozen, no_mask() if "document_lengths" in inputs else nullcontext():
            if self.fallback is not None or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            labels = inputs.pop("labels")
            total = self.total_nll(model, inputs, labels, places)
        if num_items_in_batch is None:
            return total / self.count(labels).clamp(min=1)
        # DDP averages the gradients of the processes; the sum over all of them is meant.
        return total / torch.as_tensor(num_items_in_batch).clamp(min=1) * self.share.processes

    def total_nll(
        self, model: Any, inputs: dict[str, Any], labels: torch.Tensor, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Negative log-likelihood of all labeled tokens of a batch, summed; `places` as `labeled_places` tells."""
        return model(**inputs, nll_labels=labels, nll_places=places)

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """How many tokens of a batch are scored."""
        return count_labeled(labels)

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> torch.Tensor:
        """One forward and backward pass; counts its tokens."""
        if self._step_begun is None:
            self._step_begun = time.perf_counter()
        mask = inputs.get("attention_mask")
        self._tokens += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
        loss = self._in_parts(model, inputs, *arguments, **options)
        self._micro_losses.append(loss.detach())
        return loss

    def _in_parts(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> torch.Tensor:
        """The step in one part, or in as many as memory asks for; the gradient is the same.

        Only where one process trains alone: processes that wait for each other must take the same parts.
        """
        if self.share.processes > 1 or self.is_deepspeed_enabled or self.fallback is not None:
            return super().training_step(model, self._placed(inputs), *arguments, **options)
        restore = keep_gradients(model)
        while True:
            losses: list[torch.Tensor] = []
            parts = cut(inputs, self.parts) if self.parts > 1 else [inputs]
            try:
                for one in parts:
                    losses.append(super().training_step(model, self._placed(one), *arguments, **options))
                return torch.stack(losses).sum()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failed = error.with_traceback(None)  # its frames hold the tensors of the step that failed
            restore()
            for group in self.groups:
                group.forget()
            wrong = parts[len(losses)]
            if is_one_document(wrong):
                raise too_small(wrong) from failed
            self.parts *= 2
            logger.warning("out of memory: batches are taken in %d parts from here on", self.parts)
            if self.frozen is not None:
                logger.warning("train.cache_frozen: a batch in parts is computed from its lowest layer each time")

    def _placed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The batch with the places of its labels, looked up on the host: for a GPU's answer it would have to wait."""
        if self.fallback is None and self.predicts_words and inputs["labels"].device.type == "cpu":
            return {**inputs, "nll_places": labeled_places(inputs["labels"])}
        return inputs

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradient norm; the last place before the optimizer step, so all processes agree here whether to go on.

        Raises:
            DivergedError: the loss or the gradient norm of this step is not finite.
        """
        norm: Any = super()._get_grad_norm(model, grad_norm)
        loss = torch.stack(self._micro_losses).sum()
        self._micro_losses.clear()
        scaled = getattr(self.accelerator, "scaler", None) is not None  # float16: a scaler skips infinite gradients
        finite = bool(torch.isfinite(loss)) and (scaled or math.isfinite(float(norm)))
        diverged, stop = agree([not finite, self.stop_request.asked], loss.device)
        if diverged:
            raise self.diverged(f"the loss is {float(loss):g} and the gradient norm {float(norm):g}")
        if stop and self.state.global_step + 1 < self.state.max_steps:  # the last step ends the run by itself
            self.stopping = self.control.should_training_stop = self.control.should_save = True
        return norm

    def diverged(self, what: str) -> DivergedError:
        """The error for a step that must not be taken, naming the checkpoint that is left."""
        step = self.state.global_step + 1
        saved = newest_name(self.output_dir)
        kept = f"the last good checkpoint is {saved}" if saved else "there is no checkpoint yet"
        return DivergedError(
            f"{what} at step {step}; the step was not taken",
            where=str(self.output_dir),
            fix=f"{kept}; lower train.learning_rate (now {self.args.learning_rate:g}) and choose another output_dir",
        )

    # ---- Validation ----

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """`eval_loss`: nats per labeled token over all validation rows, a sum over a sum, whatever the batches."""
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        size = self.args.per_device_eval_batch_size
        model: Any = self.model_wrapped if self.sharded else self.model
        begun = time.perf_counter()
        totals = torch.zeros(2, dtype=torch.float64)
        model.eval()
        for batch in load_rows(rows, self.collator, batch_size=size, share=self.share, seed=None):
            inputs = self._prepare_inputs(batch)
            count = self.count(inputs["labels"])
            with torch.no_grad(), self.compute_loss_context_manager():
                mean = self.compute_loss(model, inputs)
            totals += torch.tensor([float(mean) * int(count), int(count)], dtype=torch.float64)
        nll, tokens = self._sum(totals).tolist()
        metrics = {
            f"{metric_key_prefix}_loss": nll / max(tokens, 1),
            f"{metric_key_prefix}_tokens": int(tokens),
            f"{metric_key_prefix}_seconds": round(time.perf_counter() - begun, 3),
        }
        if not math.isfinite(nll):
            raise self.diverged("the validation loss is not finite")
        self.log(metrics)
        model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> dict[str, float]:
        """The validation; before the first step, where the scheduler is skipped, the watched scores too."""
        if skip_scheduler and self.validation_task is not None:
            self._score(self.validation_task)
        return super()._evaluate(trial, ignore_keys_for_eval, skip_scheduler)

    def _score(self, validation_task: ValidationTask) -> dict[str, float]:
        """The watched scores of the adapter as it is, logged as `eval_<name>`; training goes on as if nothing was."""
        begun = time.perf_counter()
        # FSDP gathers weights where the whole model is called; elsewhere the model inside scores options at once.
        inner = self.accelerator.unwrap_model(self.model).get_base_model()
        model: Any = self.model_wrapped if self.is_fsdp_enabled else inner
        with undisturbed(self.model), self.compute_loss_context_manager():
            try:
                found = validation_task.scores(all_answers(validation_task, model, self.share, sharded=self.sharded))
            except DivergedError as error:
                raise self.diverged("a watched item's score is not finite") from error
        metrics = {f"eval_{name}": value for name, value in found.items()}
        if not math.isfinite(found[validation_task.metric]):
            raise self.diverged(f"the watched {validation_task.metric} is not finite")
        self.log({**metrics, ITEMS: validation_task.items, "eval_seconds": round(time.perf_counter() - begun, 3)})
        return metrics

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.share.processes == 1:
            return values
        dtype = torch.float32 if self.args.device.type == "mps" else values.dtype
        return self.accelerator.reduce(values.to(self.args.device, dtype), "sum").cpu()  # type: ignore[return-value]

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Save whenever there is a new best; stop when there has been none for long enough."""
        metric = str(self.args.metric_for_best_model)
        if metric not in metrics:  # the validation loss where a watched score chooses, or the other way round
            return False
        found = super()._determine_best_metric(metrics, trial)
        if no_longer_improves(
            self.state.log_history,
            metric,
            patience=self.settings.early_stopping_patience,
            greater_is_better=bool(self.args.greater_is_better),
        ):
            logger.info("stopping early at step %d: no better %s", self.state.global_step, metric)
            self.control.should_training_stop = self.control.should_save = True
        if found:
            self.control.should_save = True
        return found

    # ---- Logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed since the last log to training logs."""
        if "loss" in logs:
            seconds, self._seconds = self._seconds, 0.0
            tokens = float(self._sum(torch.tensor([float(self._tokens)], dtype=torch.float64))[0])
            self._tokens = 0
            logs["tokens_per_second"] = round(tokens / seconds, 1) if seconds else 0.0
        super().log(logs, start_time)

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        if self._step_begun is not None:
            self._seconds += time.perf_counter() - self._step_begun
            self._step_begun = None
        watched = self.validation_task is not None and due(self.validation_task, self.state)
        if self.validation_task is not None and watched:
            self._determine_best_metric(self._score(self.validation_task), None)
        if self.control.should_save or self.control.should_evaluate or watched:
            # A log at every checkpoint, so that the averages of a resumed run are those of an uninterrupted one.
            self.control.should_log = True
        super()._maybe_log_save_evaluate(*arguments, **options)

"""How a trainer validates: sums over all validation rows on all processes, divided once."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from lora_med.processes.together import mark
from lora_med.training.rows.batches import Collator, RowLoader, Share, load_rows
from lora_med.training.run.checkpoint_saving import CheckpointingTrainer
from lora_med.training.step.loss import count_labeled


class ValidatingTrainer(CheckpointingTrainer):
    """A trainer whose validation gives the same for any batch size and any number of processes."""

    share: Share
    collator: Collator

    def batches(self, rows: Any, size: int, *, seed: int | None) -> RowLoader:
        """This process's batches of rows that are not streamed, shuffled anew each epoch if `seed` is given."""
        return load_rows(rows, self.collator, batch_size=size, share=self.share, seed=seed)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The metrics of all validation rows: `eval_loss` and what belongs to it."""
        rows: Any = eval_dataset if eval_dataset is not None else self.eval_dataset
        model: Any = self.model_wrapped if self.sharded else self.model
        started = time.perf_counter()
        sums = torch.zeros((), dtype=torch.float64)
        model.eval()
        for batch in self.batches(rows, self.args.per_device_eval_batch_size, seed=None):
            inputs = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                sums = sums + self.validation_sums(model, inputs)
        mark("adding up a validation")
        loss, *others = self._sum(sums).tolist()
        if not math.isfinite(loss):
            raise self.guard.diverged("the validation loss is not finite", self.args, self.state)
        named = self.validation_metrics([loss, *others])
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in named.items()}
        metrics[f"{metric_key_prefix}_seconds"] = round(time.perf_counter() - started, 3)
        self.log(metrics)
        model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def validation_sums(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """What is added up over batches, float64 on the CPU; the sum of the losses comes first."""
        count = self.count(inputs["labels"])
        mean = self.compute_loss(model, inputs)
        return torch.tensor([float(mean) * int(count), int(count)], dtype=torch.float64)

    def validation_metrics(self, sums: Sequence[float]) -> dict[str, float]:
        """The metrics of these sums: nats per labeled token, and the number of such tokens."""
        nll, tokens = sums
        return {"loss": nll / max(tokens, 1), "tokens": int(tokens)}

    def count(self, labels: torch.Tensor) -> torch.Tensor:
        """How many tokens of a batch are scored."""
        return count_labeled(labels)

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.share.processes == 1:
            return values
        dtype = torch.float32 if self.args.device.type == "mps" else values.dtype
        return self.accelerator.reduce(values.to(self.args.device, dtype), "sum").cpu()  # type: ignore[return-value]

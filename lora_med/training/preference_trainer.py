"""PreferenceTrainer: AdapterTrainer that learns which of two answers is preferred (DPO).

TRL's DPOTrainer has the same loss, which a test compares. It is not used, for what it does beside: it rounds an adapter
on a 4-bit base to bfloat16, so that policy and reference differ before the first step; it adds a second adapter, "ref",
to each save; it drops long prompts without a count; and it scores every position of the vocabulary head three ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from trl.trainer.utils import disable_dropout_in_model

from lora_med.config.schema import TrainSettings
from lora_med.errors import DependencyMissingError, SettingsError
from lora_med.models.attention.per_document import no_mask
from lora_med.models.base import Base
from lora_med.training.preference_scores import HeldOutPairs, compare_answers, compare_rewards
from lora_med.training.rows.arrow_rows import ArrowRows
from lora_med.training.rows.batches import RowLoader, Share, load_rows
from lora_med.training.step.loss import labeled_positions, prepare_loss
from lora_med.training.step.out_of_memory import out_of_memory
from lora_med.training.step.preference_loss import (
    COUNTS,
    PairCollator,
    Rewards,
    StartWeights,
    answer_log_probabilities,
)
from lora_med.training.step.task_eval import undisturbed
from lora_med.training.trainer import AdapterTrainer

SCORES = "preferences (validation)"


def without_dropout(model: Any) -> None:
    """Turn off all dropout of a model, the base's own too: its noise would be taken for a preference."""
    disable_dropout_in_model(model)
    for module in model.modules():
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


class PreferenceTrainer(AdapterTrainer):
    """Trains the adapter "default" on pairs of answers; see AdapterTrainer for checkpoints, resume and stops.

    Args:
        train: rows of `PairRows`, two documents each.
        validation: the held-out rows; may be empty.
        held_out: the pairs of the validation rows, in their order.
        reference: what the run is compared with, for the card: the base, or the parent with its hash.
        samples: resamples behind each 95% interval.

    Raises:
        SettingsError: the model is in shards; or as AdapterTrainer.
    """

    splits_batches = False
    pairs_in_step: torch.Tensor | None = None  # on all processes

    def __init__(
        self,
        model: Any,
        base: Base,
        settings: TrainSettings,
        *,
        train: ArrowRows,
        validation: ArrowRows,
        held_out: HeldOutPairs,
        reference: str,
        samples: int,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        without_dropout(model)
        super().__init__(model, base, settings, train=train, validation=validation, identity=identity)
        if self.sharded:
            raise SettingsError(
                "method dpo does not train a model in shards (FSDP, DeepSpeed)",
                where="train.method",
                fix="one complete base in each process (DDP): lora-med train --processes N; model.load_in_4bit=true",
            )
        self.start = StartWeights(self.model)
        self.held_out, self.reference, self.samples = held_out, reference, samples
        self.tokenizer = base.tokenizer

    def _prepare_loss(self) -> str | None:
        """Add the one-pass loss, or return the reason why the log-probabilities come from the model's own logits."""
        return prepare_loss(self.model.get_base_model(), partitioned=False)

    # ---- Steps ----

    def batches(self, rows: Any, size: int, *, seed: int | None) -> RowLoader:
        """This process's batches of pairs."""
        collator: Any = PairCollator(self.collator)
        return load_rows(rows, collator, batch_size=size, share=self.share, seed=seed)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of a step; counts the pairs that all processes have in it."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        pairs = sum(len(batch[COUNTS]) // 2 for batch in samples)
        self.pairs_in_step = self._sum(torch.tensor([float(pairs)]))[0].clamp(min=1).to(device)
        return samples, self.pairs_in_step

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean loss of the pairs of the whole step, on all processes; outside of a step, of the batch.

        Raises:
            DependencyMissingError: transformers did not say which batches make the step.
        """
        losses = self.rewards(model, inputs).losses
        if num_items_in_batch is None:
            return losses.sum() / max(len(losses), 1)
        if self.pairs_in_step is None:
            raise DependencyMissingError("this version of transformers takes a step without asking for its batches")
        return losses.sum() / self.pairs_in_step * self.share.processes

    def rewards(self, model: Any, inputs: dict[str, Any]) -> Rewards:
        """The rewards of a batch of pairs; only the policy's pass has a gradient."""
        with torch.no_grad(), self.start.in_place():
            reference = self._log_probabilities(self.accelerator.unwrap_model(self.model), inputs)
        return Rewards.of(self._log_probabilities(model, inputs), reference, self.settings.beta)

    def _log_probabilities(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """The log-probability of each answer of a batch, shape (answers), float32."""
        fields = {name: value for name, value in inputs.items() if name not in (COUNTS, "labels", "nll_positions")}
        labels, positions = inputs["labels"], inputs.get("nll_positions")
        with no_mask() if "document_lengths" in fields else nullcontext():
            if self.fallback is None:
                nlls = model(**fields, nll_labels=labels, nll_positions=positions, nll_each=True)
            else:
                scored = labeled_positions(labels)
                logits = model(**fields, use_cache=False).logits.flatten(0, 1)[scored - 1].float()
                nlls = torch.nn.functional.cross_entropy(logits, labels.flatten()[scored], reduction="none")
        return answer_log_probabilities(nlls, inputs[COUNTS])

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> torch.Tensor:
        """One step's part of a batch.

        Raises:
            SettingsError: it does not fit into memory; pairs are not taken in parts.
        """
        try:
            return super().training_step(model, inputs, *arguments, **options)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            pairs, tokens = len(inputs[COUNTS]) // 2, inputs["input_ids"].numel()
            raise SettingsError(
                f"a batch of {pairs} pairs, {tokens:,} tokens, needs more memory than there is",
                where="train.per_device_train_batch_size",
                fix="a smaller batch size with as many more train.gradient_accumulation_steps, or "
                "train.gradient_checkpointing=true; lora-med plan shows what they need",
            ) from error.with_traceback(None)

    # ---- Validation ----

    def validation_sums(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Sums over pairs: loss, pairs, wins, ties, margins, and the rewards of the two answers."""
        rewards = self.rewards(model, inputs)
        margins, wins = rewards.margins, rewards.wins
        ties = (margins == 0).sum()
        sums = [rewards.losses, torch.ones_like(wins), wins, ties, margins, rewards.chosen, rewards.rejected]
        return torch.tensor([float(value.double().sum()) for value in sums], dtype=torch.float64)

    def validation_metrics(self, sums: Sequence[float]) -> dict[str, float]:
        """The means of these sums; a tie counts half in the accuracy, so that before the first step it is 0.5."""
        loss, pairs, wins, ties, margin, chosen, rejected = sums
        count = max(pairs, 1.0)
        return {
            "loss": loss / count,
            "pairs": int(pairs),
            "preference_accuracy": wins / count,
            "ties": int(ties),
            "reward_margin": margin / count,
            "reward_chosen": chosen / count,
            "reward_rejected": rejected / count,
        }

    def scores(self) -> dict[str, Any]:
        """What validation measured for the chosen adapter; with held-out pairs, also their preferences and answers.

        Every process computes the same.
        """
        scores = super().scores()
        if self.eval_dataset is None:
            return scores
        margins = self._margins()
        with undisturbed(self.model), self.compute_loss_context_manager():
            answers = compare_answers(self.model, self.tokenizer, self.held_out, self.start, samples=self.samples)
        preferences = compare_rewards(margins, self.held_out.groups, samples=self.samples)
        return {**scores, SCORES: {"reference": self.reference, **preferences, **answers}}

    def _margins(self) -> list[float]:
        """The margin of each held-out pair, in order."""
        collator: Any = PairCollator(self.collator)
        size = self.args.per_device_eval_batch_size
        loader = load_rows(self.eval_dataset, collator, batch_size=size, share=Share(), seed=None)  # type: ignore[arg-type]
        margins: list[float] = []
        with undisturbed(self.model), torch.no_grad(), self.compute_loss_context_manager():
            for batch in loader:
                margins += self.rewards(self.model, self._prepare_inputs(batch)).margins.tolist()
        return margins

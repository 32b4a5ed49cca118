"""Trainers with differential privacy for patients: AdapterTrainer and TagTrainer with another step.

A step draws patients, clips the gradient of each, adds them up, adds Gaussian noise and divides by the number of
patients expected, whatever their real number was (Abadi et al. 2016). The loss of a patient is the mean over its rows
of the mean over their labeled tokens; so no other row of the step changes it. Nothing is validated, as the held-out
patients are not charged for, and the last adapter is published.

The whole step is ours. Opacus chooses the noise and counts what is spent; its engine, which replaces loader, optimizer
and layers, would lose the committed checkpoints and the fused layers.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lora_med.config.privacy_settings import PrivacySettings
from lora_med.config.schema import TrainSettings
from lora_med.errors import SettingsError
from lora_med.models.attention.per_document import no_mask
from lora_med.models.base import Base
from lora_med.prompts.entity_tags import UNTAGGED
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.arguments import Schedule
from lora_med.training.private.accountant import choose_noise, spent
from lora_med.training.private.noise_key import NoiseKey
from lora_med.training.private.patient_draws import DrawCollator, DrawLoader, Pass, PatientDraws
from lora_med.training.private.patient_gradients import (
    clipped,
    receiving,
    span_gradients,
)
from lora_med.training.private.private_run import refuse_several_processes
from lora_med.training.rows.arrow_rows import ArrowRows
from lora_med.training.rows.batches import Numbered
from lora_med.training.run.checkpoints import rotate
from lora_med.training.step.loss import labeled_positions
from lora_med.training.tag_trainer import TagTrainer
from lora_med.training.trainer import AdapterTrainer

logger = logging.getLogger(__name__)


class PrivateTrainer(AdapterTrainer):
    """AdapterTrainer with differential privacy; see there for checkpoints, resume and stops.

    Args:
        settings: the section `train`; its `privacy` is set.
        train: the rows, in memory or on disk.
        patients: the number of the patient of each row, from 0.

    Raises:
        SettingsError: as `choose_noise`; or there are several processes.
        DependencyMissingError: Opacus is not installed.
    """

    splits_batches = False

    def __init__(
        self,
        model: Any,
        base: Base,
        settings: TrainSettings,
        *,
        train: Sequence[Tokens] | ArrowRows,
        patients: Sequence[int],
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        if settings.privacy is None:
            raise SettingsError(
                "there is no budget to train with", where="train.privacy", fix="train.privacy.epsilon=8"
            )
        refuse_several_processes()
        self.privacy_settings: PrivacySettings = settings.privacy
        self.patients = patients
        count = len(set(patients))
        expected = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        self.steps_an_epoch = math.ceil(count / expected)
        steps = Schedule(self.steps_an_epoch, validates=False).total(settings)
        self.mechanism = choose_noise(settings.privacy, patients=count, expected=expected, steps=steps)
        self.key = NoiseKey.new()
        self.rows_a_pass = settings.per_device_train_batch_size
        own = {
            "the patient of each row (SHA-256)": hashlib.sha256(np.asarray(patients, "<i8").tobytes()).hexdigest(),
            "the noise multiplier": self.mechanism.noise_multiplier,
        }
        super().__init__(
            model, base, _with_own_loop(settings, self.steps_an_epoch, steps), train=train,
            identity={**(identity or {}), **own},
        )  # fmt: skip
        logger.info("privacy: %s", self._plan(steps))
        if count == len(patients):
            logger.warning("privacy: each row is a patient of its own; if not, name the column of the patient as group")

    def _plan(self, steps: int) -> str:
        chosen = self.mechanism
        return (
            f"{chosen.patients:,} patients with {len(self.patients):,} rows, {chosen.expected:,} in a step on average, "
            f"noise multiplier {chosen.noise_multiplier:.3f}; {steps:,} steps spend epsilon "
            f"{chosen.epsilon(steps, self.privacy_settings.delta):.3f} at delta {self.privacy_settings.delta:g}"
        )

    # ---- Steps ----

    def get_train_dataloader(self) -> Any:
        """The drawn patients of each step."""
        draws = PatientDraws(self.patients, rate=self.mechanism.rate, steps=self.steps_an_epoch, key=self.key)
        collator: Any = DrawCollator(self.patients, self.collator, self.scored_positions, self.rows_a_pass)
        rows: Any = Numbered(self.rows.rows)
        return DrawLoader(
            rows, batch_sampler=draws, collate_fn=collator, generator=torch.Generator().manual_seed(0)
        )  # fmt: skip

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The draw of a step; how many tokens it has changes nothing."""
        return list(itertools.islice(epoch_iterator, num_batches)), None

    def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> torch.Tensor:
        """The noisy mean of the clipped gradients of the patients drawn, as gradients; returns their mean loss."""
        model.train()
        self.throughput.add(inputs["input_ids"].numel())
        step, groups = self.state.global_step, inputs["groups"]
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
        losses: list[torch.Tensor] = []
        backward = partial(self._backward, model, losses)
        spans = span_gradients(model, self.groups)
        with self.key.torch_seeded(step, self.args.device), receiving(spans, self.groups):
            for passes in groups:
                gradients = spans.of_group(passes, backward, parameters)
                for total, each in zip(sums, clipped(gradients, self.clip), strict=True):
                    total.add_(each)
                del gradients  # before those of the next group are made
        self._add_noise(sums, step)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = (total / self.mechanism.expected).to(parameter.dtype)
        drawn = sum(len(passes[0].spans) for passes in groups)
        loss = torch.stack(losses).sum() / drawn if losses else torch.zeros((), device=self.args.device)
        self.guard.losses.append(loss)
        return loss

    @property
    def clip(self) -> float:
        """The largest norm of a patient's gradient."""
        return self.privacy_settings.clip

    def _backward(self, model: Any, losses: list[torch.Tensor], each: Pass) -> None:
        """The gradient of the summed losses of the patients of a pass."""
        device = self.args.device
        moved = self._prepare_inputs({**each.inputs, "labels": each.labels})
        labels = moved.pop("labels")
        with self.compute_loss_context_manager():
            nlls = self.token_nlls(model, moved, labels, each.positions.to(device))
        loss = (nlls.float() * each.weights.to(device)).sum()
        loss.backward()
        losses.append(loss.detach())

    def _add_noise(self, sums: Sequence[torch.Tensor], step: int) -> None:
        generator, scale = self.key.generator("noise", step), self.mechanism.noise_multiplier * self.clip
        for total in sums:
            noise = torch.from_numpy(generator.standard_normal(total.numel(), dtype=np.float32))
            total.add_(noise.view(total.shape).to(total.device), alpha=scale)

    def scored_positions(self, labels: torch.Tensor) -> torch.Tensor:
        """Positions of the scored tokens in the flattened labels."""
        return labeled_positions(labels)

    def token_nlls(
        self, model: Any, inputs: dict[str, Any], labels: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """The negative log-likelihood of each scored token, shape (tokens)."""
        with no_mask() if "document_lengths" in inputs else nullcontext():
            if self.fallback is None:
                return model(**inputs, nll_labels=labels, nll_positions=positions, nll_each=True)
            logits = model(**inputs, use_cache=False).logits.flatten(0, 1)[positions - 1].float()
        return torch.nn.functional.cross_entropy(logits, labels.flatten()[positions], reduction="none")

    # ---- The run ----

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The adapter, and the secret by which the steps that follow are those of the interrupted run."""
        self.key = NoiseKey.read(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _complete(self, folder: Path) -> None:
        """Write the secret beside the adapter while the run may go on."""
        super()._complete(folder)
        if not self._is_last:
            self.key.save(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write, commit and rotate; once the run has ended, no checkpoint with the secret remains."""
        super()._save_checkpoint(model, trial)
        if self._is_last:
            rotate(self.output_dir, keep=1, best=None)

    @property
    def _is_last(self) -> bool:
        return bool(self.control.should_training_stop) and not self.guard.stopping

    def privacy(self) -> dict[str, Any]:
        """What the steps taken have spent."""
        return spent(self.mechanism, self.privacy_settings, self.state.global_step)


class PrivateTagTrainer(PrivateTrainer, TagTrainer):
    """PrivateTrainer for a base of `load_tagger`: the loss of a row is the mean over its tagged tokens."""

    def scored_positions(self, labels: torch.Tensor) -> torch.Tensor:
        """Positions of the tagged tokens."""
        return (labels != UNTAGGED).flatten().nonzero()[:, 0]

    def token_nlls(
        self, model: Any, inputs: dict[str, Any], labels: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """The negative log-likelihood of each tag."""
        with no_mask() if "document_lengths" in inputs else nullcontext():
            logits = model(**inputs).logits.float().flatten(0, 1)[positions]
        return torch.nn.functional.cross_entropy(logits, labels.flatten()[positions], reduction="none")


def _with_own_loop(settings: TrainSettings, steps_an_epoch: int, steps: int) -> TrainSettings:
    """The settings as transformers' loop must see them: one draw a step, and no clipping after the noise."""
    own = {
        "gradient_accumulation_steps": 1,
        "max_steps": steps,
        "max_grad_norm": math.inf,
        "save_steps": settings.save_steps or min(steps_an_epoch, steps),
    }
    return settings.model_copy(update=own)

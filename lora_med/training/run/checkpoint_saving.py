"""How a trainer saves and loads: the adapter alone, in checkpoints that are committed, rotated and verified."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.constants import FSDP_MODEL_NAME
from transformers.trainer_callback import TrainerState
from trl.trainer.sft_trainer import SFTTrainer

from lora_med.adapters.store.store import WEIGHTS
from lora_med.config.schema import TrainSettings
from lora_med.processes.launch import rank
from lora_med.processes.together import mark, mark_checkpoint, saving
from lora_med.training.run.adapter_files import load_adapter, save_adapter, saved_weights, trainable_weights
from lora_med.training.run.checkpoint_policy import CheckpointPolicy
from lora_med.training.run.checkpoint_sending import (
    forget_received,
    gathered_in_first,
    is_joined,
    sent_bytes,
    to_every_machine,
)
from lora_med.training.run.checkpoints import Checkpoint, announce, commit, require_complete, rotate, written
from lora_med.training.run.resume import find_resume
from lora_med.training.step.non_finite_guard import StepGuard

logger = logging.getLogger(__name__)


class CheckpointingTrainer(SFTTrainer):
    """SFTTrainer whose checkpoints hold the adapter "default" and count only once they are committed."""

    model: Any
    model_wrapped: Any
    args: Any
    settings: TrainSettings
    output_dir: Path
    identity: dict[str, Any]  # of the run; a checkpoint of another identity is never resumed
    guard: StepGuard
    policy: CheckpointPolicy

    @property
    def sharded(self) -> bool:
        """Whether the model is in shards (FSDP, DeepSpeed), so that only a call of the whole model works."""
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter; under FSDP every process takes part, and only the adapter is gathered."""
        if self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
            return
        inner = self.accelerator.unwrap_model(self.model)
        self._save(output_dir, trainable_weights(inner))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The adapter alone: no tokenizer, no pickled arguments. DeepSpeed's `save_model` calls it too."""
        if self.args.should_save:
            inner = self.accelerator.unwrap_model(self.model)
            save_adapter(inner, Path(output_dir or self.args.output_dir), state_dict or trainable_weights(inner))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write, commit and rotate. No public event surrounds the writing, which may meet a full disk."""
        folder = self.output_dir / f"checkpoint-{self.state.global_step}"
        if not all(bool(torch.isfinite(value).all()) for value in trainable_weights(self.model).values()):
            raise self.guard.diverged("the adapter holds NaN or infinity", self.args, self.state)
        mark(f"writing {folder.name}")
        mark_checkpoint(folder.name, whole=False)
        with written(folder):
            # Past SFTTrainer, which would add a model card to every checkpoint.
            super(SFTTrainer, self)._save_checkpoint(model, trial)
            self._complete(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            finished = self.control.should_training_stop and not self.guard.stopping
            best = self.best_folder()
            with saving():
                commit(folder, step=self.state.global_step, identity=self.identity, finished=finished, best=best)
                mark_checkpoint(folder.name, whole=True)
                rotate(self.output_dir, keep=self.settings.save_total_limit, best=best)
        mark(f"past {folder.name}")
        self.accelerator.wait_for_everyone()
        mark_checkpoint(folder.name, whole=True)
        if not self.args.should_save:
            with contextlib.suppress(OSError):  # a library makes the folder in every process, here on another disk
                folder.rmdir()

    def _complete(self, folder: Path) -> None:
        """Bring the random state of every process to process 0, and remove the copy of the model that FSDP adds."""
        if is_joined():
            own = folder / f"rng_state_{rank()}.pth"
            states = gathered_in_first(own.read_bytes())
            if not self.args.should_save:
                own.unlink()  # before process 0 writes it where both have one disk
            self.accelerator.wait_for_everyone()
            for number, state in enumerate(states if self.args.should_save else ()):
                (folder / f"rng_state_{number}.pth").write_bytes(state)
        for copy in folder.glob(f"{FSDP_MODEL_NAME}*") if self.args.should_save else ():
            shutil.rmtree(copy) if copy.is_dir() else copy.unlink()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The adapter, checked tensor by tensor. No public event replaces PEFT's loading, which checks less."""
        load_adapter(self.accelerator.unwrap_model(model or self.model), Path(resume_from_checkpoint))

    def earlier_checkpoint(self) -> Checkpoint | None:
        """The checkpoint to continue from, in the folder where this process finds it; None to start from zero.

        Raises:
            OutputError, SettingsError: as `find_resume`.
        """
        checkpoint = find_resume(self.output_dir, self.identity, resume=self.settings.resume)
        if checkpoint is None:
            return None
        checkpoint = to_every_machine(checkpoint, self.output_dir, self.args.device)
        if not checkpoint.finished:
            announce(checkpoint)
        return checkpoint

    def take_result(self, checkpoint: Checkpoint) -> None:
        """Take over the state and the chosen adapter of a run that had ended at this checkpoint."""
        logger.info("the run had ended at step %d", checkpoint.step)
        self.state = TrainerState.load_from_json(str(checkpoint.folder / "trainer_state.json"))
        self.load_sent(self.output_dir / (checkpoint.best or checkpoint.folder).name)
        forget_received(self.output_dir)

    def best_folder(self) -> Path | None:
        """The folder of the best checkpoint so far; None where there is none."""
        step = self.state.best_global_step
        return self.output_dir / f"checkpoint-{step}" if step else None

    def load_best(self) -> None:
        """Put the best adapter into the model, from its checkpoint.

        Raises:
            IntegrityError: that checkpoint is absent or was changed.
        """
        best = self.best_folder()
        if best is None or self.state.best_global_step == self.state.global_step:
            return
        metric, value = self.policy.metric, self.state.best_metric
        logger.info("the best adapter is that of step %d: %s %.4f", self.state.best_global_step, metric, value)
        if not self.is_deepspeed_enabled:
            self.load_sent(best)

    def load_sent(self, folder: Path) -> None:
        """Put the adapter of a checkpoint into the model of every process, from the disk of process 0.

        Raises:
            IntegrityError: that checkpoint is absent or was changed.
        """
        content = sent_bytes(lambda: require_complete(folder) / WEIGHTS)
        load_adapter(self.accelerator.unwrap_model(self.model), folder, content)

    def weights(self) -> dict[str, torch.Tensor]:
        """The adapter's tensors, complete and on the CPU, for `publish(state=...)`; every process must call it."""
        inner = self.accelerator.unwrap_model(self.model)
        if self.is_deepspeed_enabled:  # the model holds slices; the chosen checkpoint holds the complete tensors
            chosen = self.best_folder() or self.output_dir / f"checkpoint-{self.state.global_step}"
            return saved_weights(inner, sent_bytes(lambda: chosen / WEIGHTS))
        return trainable_weights(inner)

"""What the trainer takes from transformers and TRL that may be renamed, checked when a trainer is built.

A method or event that is renamed upstream would never be called, and its promise would be lost without a message.
"""

from __future__ import annotations

from importlib import metadata

from transformers import TrainerCallback
from trl.trainer.sft_trainer import SFTTrainer

from lora_med.errors import DependencyMissingError

# Private methods of transformers' Trainer that AdapterTrainer overrides -> what each one is needed for.
OVERRIDDEN = {
    "_get_grad_norm": "the stop at a gradient that is not finite",
    "_save_checkpoint": "checkpoints that are committed or do not count",
    "_save": "checkpoints of the adapter alone",
    "_load_from_checkpoint": "an exact resume",
}
# Public events of TrainerCallback -> what each one is needed for.
EVENTS = {
    "on_train_begin": "the self-test before the first step",
    "on_step_begin": "what a process says to those that wait for it",
    "on_pre_optimizer_step": "the stop before a bad step",
    "on_step_end": "evaluation during training",
    "on_evaluate": "the choice of the best adapter",
    "on_log": "metrics.jsonl",
    "on_save": "the loss curve",
    "on_train_end": "the loss curve",
}
WORKING = {"transformers": ">=5.10.1,<6", "trl": ">=1.0.0,<2"}


def check_stack(trainer: type = SFTTrainer, callback: type = TrainerCallback) -> None:
    """Check that the installed classes have every method and event that AdapterTrainer relies on.

    Raises:
        DependencyMissingError: a name is absent; the message gives the promise that would be lost.
    """
    absent = [
        f"{name} ({promise})" for name, promise in OVERRIDDEN.items() if not callable(getattr(trainer, name, None))
    ]
    absent += [f"{name} ({promise})" for name, promise in EVENTS.items() if not callable(getattr(callback, name, None))]
    if absent:
        installed = ", ".join(f"{name} {metadata.version(name)}" for name in WORKING)
        wanted = " ".join(f'"{name}{bounds}"' for name, bounds in WORKING.items())
        raise DependencyMissingError(
            f"the installed {installed} lack what training relies on: {', '.join(absent)}",
            fix=f"pip install {wanted}",
        )

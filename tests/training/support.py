"""What the training tests share: tiny documents, a tiny base with an adapter, and runs in forked processes.

Forks of this warm process cost nothing, where a fresh one would import trl for ten seconds.
"""

from __future__ import annotations

import os
import random
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lora_med.adapters.runtime.attach import attach_new
from lora_med.config.schema import LoraSettings, TrainSettings
from lora_med.errors import LoraMedError
from lora_med.models.attention.per_document import register_attention
from lora_med.models.base import Base
from lora_med.models.fingerprint import Fingerprint
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.step.task_eval import ValidationTask
from lora_med.training.trainer import AdapterTrainer
from tests.tiny import make_model, make_tokenizer

BOS, EOS = 1, 2


def documents(count: int, *, seed: int = 0, shortest: int = 5, longest: int = 40) -> list[Tokens]:
    """Prompts and answers of random letters, each ending in a trained end of text."""
    generator = random.Random(seed)
    found = []
    for number in range(count):
        length = generator.randint(shortest, longest)
        ids = [BOS, *(generator.randint(5, 40) for _ in range(length)), EOS]
        prompt = generator.randint(1, length)
        found.append(Tokens(f"doc{number}", ids, [place >= prompt for place in range(len(ids))]))
    return found


def make_base(family: str = "llama", *, attention: str = "lora_med_sdpa", **options: Any) -> Base:
    model = make_model(family, **options)
    register_attention()
    model.set_attn_implementation(attention)
    model.requires_grad_(False)
    return Base(
        model=model,
        tokenizer=make_tokenizer(),
        name="tiny",
        folder=Path("tiny"),
        revision=None,
        quantization="none",
        dtype="float32",
        attention=attention,
        choices=(),
        fingerprint=Fingerprint("w", "t", "c"),
    )


def make_trainer(
    output_dir: Path,
    *,
    base: Base | None = None,
    train: Any = None,
    validation: list[Tokens] | None = None,
    dropout: float = 0.1,
    identity: dict[str, Any] | None = None,
    validation_task: ValidationTask | None = None,
    **settings: Any,
) -> AdapterTrainer:
    """A trainer of a rank-4 adapter on 30 documents, 4 a step, 16 steps; `settings` are those of the section train."""
    base = base or make_base()
    model = attach_new(base, LoraSettings(r=4, lora_alpha=8, lora_dropout=dropout), seed=0)
    values = {
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "max_length": 128,
        "logging_steps": 2,
        "warmup_ratio": 0.1,
        **settings,
    }
    return AdapterTrainer(
        model,
        base,
        TrainSettings(output_dir=str(output_dir), **values),
        train=documents(30) if train is None else train,
        validation=documents(8, seed=9) if validation is None else validation,
        identity={"lora.r": 4} if identity is None else identity,
        validation_task=validation_task,
    )


def weights(trainer: AdapterTrainer) -> torch.Tensor:
    """All trained numbers of the adapter in one line."""
    return torch.cat([value.flatten() for value in trainer.weights().values()])


def fork(work: Callable[[], Any], errors: Path) -> int:
    """Start `work` in a forked process and return its id; it ends with the error's exit code, 0 without one."""
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work()
    except BaseException as error:
        code = error.exit_code if isinstance(error, LoraMedError) else 3
        errors.write_text(str(error) if code != 3 else traceback.format_exc())
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit code of a forked process; minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_ranks(processes: int, work: Callable[[], Any], folder: Path) -> list[int]:
    """Run `work` in `processes` forked processes joined by gloo; returns their exit codes."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def as_rank(number: int) -> None:
        from accelerate.state import AcceleratorState, GradientState, PartialState

        os.environ.update(
            RANK=str(number),
            LOCAL_RANK=str(number),
            WORLD_SIZE=str(processes),
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        AcceleratorState._reset_state(True)
        GradientState._reset_state()
        PartialState._reset_state()
        work()

    children = [
        fork(lambda number=number: as_rank(number), folder / f"error-{number}.txt") for number in range(processes)
    ]
    return [wait(child) for child in children]

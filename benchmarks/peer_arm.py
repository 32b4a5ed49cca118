"""One other toolkit as an arm of benchmarks/train.py, run by the Python of its own environment:

PEER_PYTHON peer_arm.py ARM MODEL PAIRS STEPS BATCH OPTIONS

Trains LoRA (r=16 on all linear layers) on pairs of `{"prompt", "completion"}` and prints one JSON line as train_arm.py
does. It adds the loss of the first step, the number of trained weights and the versions of the libraries. A single step
cannot be timed, so then these are all. OPTIONS is JSON: {"dtype", "dropout"}. A row is the prompt's tokens, the
completion's and the end token; the prompt is left out of the loss. All peers hold their weights in `dtype` without
autocast, recompute nothing, and take the rows in the order of the file. The rows have about the same length. The peers'
batches without padding need flash-attn. Packing with a mask that separates documents computes attention over the
complete pack (tried with axolotl, and slower). Each peer differs in the following:

- llamafactory: tokens made beforehand (`tokenized_path`). It offers no kernel for CPUs.
- axolotl: tokens made beforehand; padded to the longest row, not to a multiple of 64. It sets LoRA kernels by itself:
  that of the MLP needs CUDA, and the others were no faster. Its chunked loss saves memory, not time.
- ms-swift: text, of which its template adds only the end; logits only from the batch's first trained token on.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import types
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from typing import Any

from train_arm import Clock, read_rows

LEFT_OUT = -100
RANK, ALPHA = 16, 32
LEARNING_RATE = 2e-4
LONGEST = 2048


@dataclass(frozen=True)
class Job:
    """What every peer trains; `folder` is an empty folder of its own."""

    model: str
    pairs: list[dict[str, str]]
    steps: int
    batch: int
    dtype: str
    dropout: float
    folder: Path


def tokenize(model: str, pairs: list[dict[str, str]]) -> list[dict[str, list[int]]]:
    """Rows as trainers of transformers take them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = []
    for pair in pairs:
        prompt = tokenizer(pair["prompt"])["input_ids"]
        answer = tokenizer(pair["completion"])["input_ids"] + [tokenizer.eos_token_id]
        tokens = prompt + answer
        labels = [LEFT_OUT] * len(prompt) + answer
        rows.append({"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels})
    return rows


def record_steps(clock: Clock) -> tuple[list[float], list[int]]:
    """Two lists that receive each step's loss and number of trained weights; `clock` counts its real tokens."""
    from transformers import Trainer

    plain = Trainer.training_step
    losses: list[float] = []
    trained: list[int] = []

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *arguments: Any, **rest: Any) -> Any:
        clock.count(int(inputs["attention_mask"].sum()))
        loss = plain(self, model, inputs, *arguments, **rest)
        losses.append(float(loss))
        trained.append(sum(weight.numel() for weight in model.parameters() if weight.requires_grad))
        return loss

    Trainer.training_step = training_step
    return losses, trained


def model_in(dtype: str, model: str, folder: Path) -> Path:
    """A copy of the model's folder with this dtype in its configuration: LLaMA-Factory loads the weights in it."""
    folder.mkdir()
    for file in Path(model).resolve().iterdir():
        (folder / file.name).symlink_to(file)
    config = folder / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.unlink()
    config.write_text(json.dumps({**content, "dtype": dtype}), encoding="utf-8")
    return folder


def train_llamafactory(job: Job, clock: Clock) -> None:
    """LLaMA-Factory's run_exp, as its command line calls it."""
    from datasets import Dataset, DatasetDict

    # LLaMA-Factory imports torchaudio, for sound only; PyPI's is built for CUDA and does not load beside a CPU's torch.
    torchaudio = types.ModuleType("torchaudio")
    torchaudio.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = torchaudio
    from llamafactory.train.tuner import run_exp

    rows = job.folder / "rows"
    DatasetDict({"train": Dataset.from_list(tokenize(job.model, job.pairs))}).save_to_disk(rows)
    settings = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(model_in(job.dtype, job.model, job.folder / "model")),
        "dataset": "pairs",  # must be named, though the rows come from tokenized_path
        "tokenized_path": str(rows),
        "template": "empty",
        "cutoff_len": LONGEST,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": job.dropout,
        "flash_attn": "sdpa",
        "disable_gradient_checkpointing": True,
        "disable_shuffling": True,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": job.steps,
        "learning_rate": LEARNING_RATE,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        "output_dir": str(job.folder / "out"),
    }
    run_exp(settings, callbacks=[clock.callback()])


def train_axolotl(job: Job, clock: Clock) -> None:
    """Axolotl's trainer as its command line builds it."""
    os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets
    from axolotl.train import setup_model_and_trainer
    from axolotl.utils.dict import DictDefault

    rows = job.folder / "rows.jsonl"
    lines = [json.dumps(row) + "\n" for row in tokenize(job.model, job.pairs)]
    rows.write_text("".join(lines), encoding="utf-8")
    settings = {
        "base_model": job.model,
        "datasets": [{"path": str(rows), "ds_type": "json", "type": ""}],
        "dataset_prepared_path": str(job.folder / "prepared"),
        "dataset_num_proc": 1,
        "seed": 42,
        "val_set_size": 0.0,
        "sequence_len": LONGEST,
        "adapter": "lora",
        "lora_target_linear": True,
        "lora_r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": job.dropout,
        "lora_mlp_kernel": False,
        "lora_qkv_kernel": False,
        "lora_o_kernel": False,
        "lora_embedding_kernel": False,
        "attn_implementation": "sdpa",
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "bfloat16": job.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "curriculum_sampling": True,
        "shuffle_merged_datasets": False,
        "pad_to_sequence_len": False,
        "micro_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": job.steps,
        "learning_rate": LEARNING_RATE,
        "optimizer": "adamw_torch_fused",
        "lr_scheduler": "linear",
        "save_strategy": "no",
        "logging_steps": 1,
        "output_dir": str(job.folder / "out"),
    }
    config = load_cfg(DictDefault(settings))
    config.bfloat16 = False  # the weights' dtype is settled by now; transformers would ask for a GPU, or autocast
    trainer, *_ = setup_model_and_trainer(config, load_datasets(cfg=config))
    trainer.add_callback(clock.callback())
    trainer.train()


def train_swift(job: Job, clock: Clock) -> None:
    """ms-swift's SwiftSft, as its command line calls it."""
    from swift.arguments import SftArguments
    from swift.pipelines import SwiftSft

    class Timed(SwiftSft):
        def train(self, trainer: Any) -> Any:
            trainer.add_callback(clock.callback())
            return super().train(trainer)

    conversations = job.folder / "conversations.jsonl"
    lines = []
    for pair in job.pairs:
        question = {"role": "user", "content": pair["prompt"]}
        answer = {"role": "assistant", "content": pair["completion"]}
        lines.append(json.dumps({"messages": [question, answer]}) + "\n")
    conversations.write_text("".join(lines), encoding="utf-8")
    settings = {
        "model": job.model,
        "model_type": "llama",
        "template": "llama",
        "use_chat_template": False,
        "dataset": [str(conversations)],
        "split_dataset_ratio": 0.0,
        "load_from_cache_file": False,
        "max_length": LONGEST,
        "tuner_type": "lora",
        "target_modules": ["all-linear"],
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": job.dropout,
        "torch_dtype": job.dtype,
        "bf16": False,
        "fp16": False,
        "attn_impl": "sdpa",
        "gradient_checkpointing": False,
        "dataset_shuffle": False,
        "train_dataloader_shuffle": False,
        "use_logits_to_keep": True,
        "dataloader_num_workers": 0,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": job.steps,
        "learning_rate": LEARNING_RATE,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": ["none"],
        "logging_steps": 1,
        "disable_tqdm": True,
        "output_dir": str(job.folder / "out"),
    }
    Timed(SftArguments(**settings)).main()


PEERS = {"llamafactory": train_llamafactory, "axolotl": train_axolotl, "ms-swift": train_swift}


def main() -> None:
    arm, model, pairs, steps, batch, given_options = sys.argv[1:]
    options = json.loads(given_options)
    clock = Clock()
    losses, trained = record_steps(clock)
    with tempfile.TemporaryDirectory() as temporary:
        job = Job(
            model=model,
            pairs=read_rows(Path(pairs)),
            steps=int(steps),
            batch=int(batch),
            dtype=options["dtype"],
            dropout=options["dropout"],
            folder=Path(temporary),
        )
        PEERS[arm](job, clock)
    timed = clock.report() if len(clock.steps) > 1 else {}
    versions = {name: version(name) for name in (arm, "torch", "transformers", "peft", "trl")}
    report = {"arm": arm, **timed, "loss": losses[0], "trained": trained[0], "versions": versions}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

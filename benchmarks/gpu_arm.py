"""One part of benchmarks/gpu.py, in a process of its own: python gpu_arm.py KIND OPTIONS

Prints one JSON line. OPTIONS is JSON: {"shape", "folder", "quantization", "arm", "packing", "batch", "steps",
"rounds"}. `folder` holds the random model of that shape, which the kind `model` makes. The rows are the questions that
ship with lora_med, by the embedded base's tokenizer. Everything runs on the GPU if torch sees one, else on the CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prepare import rows_of
from train_arm import check, peak_mb
from trainers import DEFAULTS, LONGEST, our_trainer, trl_trainer

MICRO = Path(__file__).parent.parent / "lora_med" / "assets" / "micro"
MIB = 1 << 20
WARM_UP = 2  # steps that are not timed: kernels are chosen and memory is reserved
QUESTIONS, WRITTEN, NEW_TOKENS = 64, 16, 32
KERNELS_SHOWN = 15
# Llama-3.1-8B's and Llama-3.2-1B's shapes, two layers of the latter for the correctness check, and a tiny one to try
# the script with.
SHAPES: dict[str, dict[str, Any]] = {
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "check": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 8192,
        "tie_word_embeddings": True,
    },
}


def device() -> str:
    """Where this runs: "cuda" or "cpu"."""
    from lora_med.models.precision import device_kind

    return device_kind()


def wait() -> None:
    """Wait until the GPU has done what it was asked."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peaks() -> dict[str, int]:
    """The largest memory so far in MiB: of tensors and as reserved on a GPU, of the process on a CPU."""
    import torch

    if not torch.cuda.is_available():
        return {"peak_mb": peak_mb()}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_mb": reserved // MIB, "peak_tensors_mb": allocated // MIB}


class Span:
    """The real tokens and the seconds of all steps after the warm-up; it waits for the GPU only at both ends."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up, self.tokens, self.steps = warm_up, 0, 0
        self.started = self.ended = 0.0

    def count(self, tokens: int) -> None:
        """Add to the tokens of the running step."""
        self.tokens += tokens if self.steps >= self.warm_up else 0

    def callback(self) -> Any:
        """A TrainerCallback that runs this span."""
        from transformers import TrainerCallback

        span = self

        class Ends(TrainerCallback):
            def on_step_end(self, *arguments: Any, **rest: Any) -> None:
                span.steps += 1
                if span.steps == span.warm_up:
                    wait()
                    span.started = time.perf_counter()

            def on_train_end(self, *arguments: Any, **rest: Any) -> None:
                wait()
                span.ended = time.perf_counter()

        return Ends()


def token_rows(folder: Path, most: int) -> list[dict[str, Any]]:
    """The first rows of the questions that ship, none longer than LONGEST."""
    from lora_med.models.tokenizer import load_tokenizer
    from lora_med.prompts.fit import fit_rows

    tokenizer, _ = load_tokenizer(folder)
    repeat = most // len(rows_of("pubmedqa", 1)) + 1
    fitted = fit_rows(rows_of("pubmedqa", repeat), tokenizer, LONGEST)[:most]
    return [{"input_ids": list(row.input_ids), "trained": list(row.trained)} for row in fitted]


def model(options: dict[str, Any]) -> dict[str, Any]:
    """Make the random model of a shape in bfloat16, with the embedded base's tokenizer, if it is not there yet."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    folder = Path(options["folder"])
    if not (folder / "config.json").is_file():
        config = LlamaConfig(
            max_position_embeddings=2 * LONGEST,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            **SHAPES[options["shape"]],
        )
        torch.manual_seed(0)
        with torch.device(device()):
            made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        made.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(MICRO / file, folder / file)
    return {"bytes": sum(file.stat().st_size for file in folder.iterdir())}


def speed(options: dict[str, Any]) -> dict[str, Any]:
    """Tokens per second, peak memory and losses of training by one arm; for ours also what `lora-med plan` expects."""
    span = Span(min(WARM_UP, options["steps"] - 1))
    rows = token_rows(Path(options["folder"]), options["batch"] * options["steps"] * (8 if options["packing"] else 1))
    trainer = trainer_of(options, rows, span)
    trainer.add_callback(span.callback())
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    planned = plan(options, trainer) if options["arm"] == "ours" else {}
    seconds = span.ended - span.started
    result = {"tokens_per_second": span.tokens / seconds, "tokens": span.tokens, "seconds": seconds}
    return {**result, "losses": losses, **peaks(), **planned}


def trainer_of(options: dict[str, Any], rows: list[dict[str, Any]], span: Span | None) -> Any:
    """The trainer of an arm, "ours" or "trl-best"."""
    settings = {**DEFAULTS, "quantization": options["quantization"], "packing": options["packing"]}
    make: Callable[..., Any] = our_trainer
    more: dict[str, Any] = {}
    if options["arm"] != "ours":
        make, more = trl_trainer, {"best": True}
    return make(options["folder"], rows, options["steps"], options["batch"], settings, clock=span, **more)


def plan(options: dict[str, Any], trainer: Any) -> dict[str, Any]:
    """The peak that the planner expects of this run's largest batch, in MiB; on a GPU without CUDA's own context."""
    from lora_med.training.planner.run_memory import Shape, measure

    config, attention = trainer.model.peft_config["default"], trainer.model.config._attn_implementation
    on_gpu = device() == "cuda"
    shape = Shape(
        Path(options["folder"]), config, options["quantization"], True, DEFAULTS["dtype"], attention, on_gpu=on_gpu
    )
    batches = list(trainer.get_train_dataloader())[: options["steps"]]
    largest = max(batches, key=lambda batch: batch["labels"].numel())
    packed = largest.get("document_lengths")
    lengths = (
        [sum(document) for document in packed] if packed else [largest["labels"].shape[1]] * len(largest["labels"])
    )
    need = measure(shape)(lengths, int((largest["labels"] != -100).sum()), False)
    parts = {name: size // MIB for name, size in asdict(need).items()}
    return {"planned_mb": (need.total - (need.libraries if on_gpu else 0)) // MIB, "planned_parts_mb": parts}


def equal(options: dict[str, Any]) -> dict[str, Any]:
    """The loss and the gradient of one batch, ours against TRL's, in float32."""
    rows = sorted(token_rows(Path(options["folder"]), 64), key=lambda row: len(row["input_ids"]))[:4]
    return check(options["folder"], rows, {**DEFAULTS, "dtype": "float32", "dropout": 0.0})


def profile(options: dict[str, Any]) -> dict[str, Any]:
    """Where the time of our steps goes: the operators that take most of the device's own time, in milliseconds."""
    import torch
    from torch.profiler import ProfilerActivity

    rows = token_rows(Path(options["folder"]), options["batch"] * options["steps"] * 8)
    trainer = trainer_of({**options, "arm": "ours", "packing": True}, rows, None)
    on_gpu = device() == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        trainer.train()
    times = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1000
        for event in profiler.key_averages()
    }
    total = sum(times.values()) or 1.0
    most = sorted(times.items(), key=lambda item: -item[1])[:KERNELS_SHOWN]
    shown = [{"operator": name[:120], "ms": ms, "share": ms / total} for name, ms in most]
    return {"total_ms": total, "operators": shown, **peaks()}


def evaluate(options: dict[str, Any]) -> dict[str, Any]:
    """Scoring questions against the pure forward passes of the same tokens, and greedy answers."""
    import torch

    from lora_med.evaluation.likelihood.log_probabilities import score_options
    from lora_med.models.base import load_base
    from lora_med.models.generation import greedy

    base = load_base(options["folder"], quantization=options["quantization"], dtype=DEFAULTS["dtype"])
    # Without the end token: a random model with one matrix at both ends repeats the last token.
    prompts = [tuple(row["input_ids"][:-1]) for row in token_rows(Path(options["folder"]), QUESTIONS)]
    answers = ((5,), (6,), (7,))

    def scored() -> list[list[float]]:
        return score_options(base.model, [(prompt, answers) for prompt in prompts], 2 * LONGEST)

    def passes() -> list[list[float]]:
        scores = []
        with torch.no_grad():
            for prompt in prompts:
                ids = torch.tensor([prompt], device=base.model.device)
                logits = base.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
                scores.append([float(logits.log_softmax(-1)[option[0]]) for option in answers])
        return scores

    def written() -> list[list[int]]:
        return greedy(base.model, base.tokenizer, prompts[:WRITTEN], max_new_tokens=NEW_TOKENS)

    taken: dict[str, list[float]] = {"scored": [], "passes": [], "written": []}
    results: dict[str, Any] = {}
    for _ in range(options["rounds"] + 1):
        for name, action in (("scored", scored), ("passes", passes), ("written", written)):
            wait()
            started = time.perf_counter()
            results[name] = action()
            wait()
            taken[name].append(time.perf_counter() - started)
    seconds = {name: statistics.median(values[1:]) for name, values in taken.items()}
    pairs = zip(results["scored"], results["passes"], strict=True)
    difference = max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))
    return {
        "scored_tokens_per_second": sum(map(len, prompts)) / seconds["scored"],
        "of_pure_passes": seconds["scored"] / seconds["passes"],
        "largest_difference": difference,
        "written_tokens_per_second": sum(map(len, results["written"])) / seconds["written"],
        **peaks(),
    }


def kernels(options: dict[str, Any]) -> dict[str, Any]:
    """The kernels of a step against their references."""
    from gpu_kernels import measure_kernels

    shape = options["shape"]
    return measure_kernels(SHAPES[shape], options["folder"], device(), options["rounds"], tiny=shape == "tiny")


KINDS = {"model": model, "equal": equal, "kernels": kernels, "speed": speed, "profile": profile, "evaluate": evaluate}


def main() -> None:
    kind, given = sys.argv[1:]
    print(json.dumps(KINDS[kind](json.loads(given))), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()

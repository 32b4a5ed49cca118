"""python benchmarks/plan.py --data ../shared/data [--workers 2]: memory and time as planned, and as measured.

Twenty runs of three steps, each in a process of its own with one thread: Llama in two sizes, GPT-2, Qwen3 and Gemma of
random weights. They use the format this CPU multiplies fastest, float32 and NF4, with and without recomputed layers, on
rows of one length. The peak of each (VmHWM) is compared with what `lora_med.training.planner.run_memory` planned from
config.json alone. The median step is compared with what `lora_med.training.planner.step_time` measured on two layers.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import Figure, machine, own_dtype, parser_for, run_arm, save_figures
from shapes import make_model, make_tokenizer
from tqdm import tqdm

MIB = 1 << 20
LABELED = 0.15
SHORT = (16, 1)  # tokens and rows of an earlier run, so that the plan is for a base whose 4-bit weights are cached
# Base, tokens a row, rows, and other settings. The planner's numbers for bfloat16 were fitted to other runs, those for
# float32 in part to the runs of micro, GPT-2, Qwen3 and Gemma below.
RUNS: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
    ("135m", 384, 4, {}),
    ("135m", 700, 3, {"quantization": "4bit"}),
    ("135m", 256, 8, {"dtype": "float32"}),
    ("135m", 1500, 2, {"recompute": True}),
    ("135m", 600, 6, {"recompute": True, "quantization": "4bit"}),
    ("135m", 1024, 3, {"dropout": 0.0}),
    ("135m", 512, 1, {"r": 128}),
    ("135m", 800, 4, {"targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}),
    ("135m", 900, 2, {"layers": list(range(15, 30)), "quantization": "4bit"}),
    ("micro", 256, 4, {"dtype": "float32"}),
    ("micro", 2000, 8, {}),
    ("gpt2", 300, 4, {}),
    ("gpt2", 800, 2, {"dtype": "float32"}),
    ("qwen3", 1024, 4, {}),
    ("qwen3", 512, 8, {"recompute": True, "quantization": "4bit"}),
    ("gemma", 1024, 4, {}),
    ("gemma", 700, 6, {"quantization": "4bit", "labeled": 1.0}),
    ("0.5b", 768, 2, {}),
    ("0.5b", 512, 4, {"quantization": "4bit"}),
    ("0.5b", 1024, 4, {"recompute": True}),
)


def make_family(family: str, data: Path, folder: Path) -> Path:
    """A small GPT-2, Qwen3 or Gemma with random bfloat16 weights."""
    import torch
    import transformers

    tokenizer = make_tokenizer(data)
    end = tokenizer.eos_token_id
    common = {"vocab_size": 50304, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    middle = {"hidden_size": 512, "num_attention_heads": 8, "head_dim": 64, "tie_word_embeddings": True}
    configs: dict[str, Any] = {
        "gpt2": lambda: transformers.GPT2Config(n_layer=12, n_embd=768, n_head=12, **common),
        "qwen3": lambda: transformers.Qwen3Config(
            intermediate_size=1536, num_hidden_layers=16, num_key_value_heads=4, **middle, **common
        ),
        "gemma": lambda: transformers.GemmaConfig(
            intermediate_size=2048, num_hidden_layers=12, num_key_value_heads=1, **middle, **common
        ),
    }
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(configs[family](), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plan_and_train(base: str, tokens: int, rows: int, options: dict[str, Any]) -> dict[str, float]:
    """Plan a run and train it; returns both peaks in MiB, and both step times in seconds."""
    import torch
    from train_arm import Clock, peak_mb

    from lora_med.adapters.runtime.attach import attach_new
    from lora_med.config.schema import LoraSettings, TrainSettings
    from lora_med.models.base import load_base
    from lora_med.prompts.tokens_and_labels import Tokens
    from lora_med.training.planner.run_memory import Shape, measure
    from lora_med.training.planner.step_time import time_batch
    from lora_med.training.trainer import AdapterTrainer

    quantization, dtype = options.get("quantization", "none"), options["dtype"]
    loaded = load_base(base, quantization=quantization, dtype=dtype)
    lora = LoraSettings(
        r=options.get("r", 16),
        lora_dropout=options.get("dropout", 0.05),
        target_modules=options.get("targets", "all-linear"),
        layers_to_transform=options.get("layers"),
    )
    first_trained = tokens * (1 - options.get("labeled", LABELED))
    words = loaded.model.config.vocab_size
    flags = [position >= first_trained for position in range(tokens)]
    documents = [Tokens("", torch.randint(5, words, (tokens,)).tolist(), flags) for _ in range(3 * rows)]
    recompute = options.get("recompute", False)
    settings = TrainSettings(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=rows,
        max_steps=3,
        max_length=tokens,
        gradient_checkpointing=recompute,
    )
    model = attach_new(loaded, lora, seed=0)
    clock = Clock()
    trainer = AdapterTrainer(model, loaded, settings, train=documents)
    trainer.add_callback(clock.callback())
    trainer.train()
    peak = peak_mb()
    taken = statistics.median(seconds for seconds, _ in clock.steps[1:])
    config = model.peft_config["default"]
    shape = Shape(loaded.folder, config, quantization, True, dtype, loaded.attention)
    need = measure(shape)([tokens] * rows, sum(flags) * rows, recompute)
    step_time = time_batch(shape, [(tokens,)] * rows, sum(flags) * rows, checkpointing=recompute)
    return {"planned": need.total / MIB, "peak": peak, "planned_seconds": step_time.seconds, "seconds": taken}


def main() -> None:
    parser = parser_for(__doc__, rounds=False)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--bases", nargs="+", help="only the runs of these, such as gpt2 micro; left out, all twenty")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        bases = {"micro": "micro"}
        for name in ("135m", "0.5b"):
            bases[name] = str(make_model(name, arguments.data, home / name))
        for name in ("gpt2", "qwen3", "gemma"):
            bases[name] = str(make_family(name, arguments.data, home / name))
        options = {"dtype": own_dtype(arguments.dtype)}

        def measure_run(run: tuple[str, int, int, dict[str, Any]]) -> dict[str, float]:
            job = json.dumps([bases[run[0]], *run[1:3], {**options, **run[3]}])
            return run_arm("plan.py", [job], threads=1, XDG_CACHE_HOME=str(home))

        runs = [run for run in RUNS if not arguments.bases or run[0] in arguments.bases]
        for base in sorted({run[0] for run in runs if run[3].get("quantization") == "4bit"}):
            job = json.dumps([bases[base], *SHORT, {**options, "quantization": "4bit"}])
            run_arm("plan.py", [job], threads=2, XDG_CACHE_HOME=str(home))
        with ThreadPoolExecutor(arguments.workers) as pool:
            results = list(tqdm(pool.map(measure_run, runs), total=len(runs), desc="runs"))
    how = f"{own_dtype(arguments.dtype)} where nothing else is set, one thread a run, {arguments.workers} at a time"
    print(f"{machine()}\n{how}")
    memory, time = [], []
    print("| base | tokens | rows | set | planned MiB | peak MiB | error | planned s | s a step | error |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (base, tokens, rows, options), result in zip(runs, results, strict=True):
        memory.append(result["planned"] / result["peak"] - 1)
        time.append(result["planned_seconds"] / result["seconds"] - 1)
        shown = ", ".join(f"{name} {value}" for name, value in options.items() if not isinstance(value, list))
        shown = shown or ", ".join(options)
        sizes = f"{result['planned']:.0f} | {result['peak']:.0f} | {memory[-1]:+.1%}"
        step_times = f"{result['planned_seconds']:.2f} | {result['seconds']:.2f} | {time[-1]:+.1%}"
        print(f"| {base} | {tokens} | {rows} | {shown} | {sizes} | {step_times} |")
    for name, errors in (("memory", memory), ("time", time)):
        print(f"{name}: median {statistics.median(map(abs, errors)):.1%}, {min(errors):+.1%} to {max(errors):+.1%}")
    save_figures("plan", [error_figure("memory", memory, "at most 0.1 in the median"), error_figure("time", time, "")])


def error_figure(what: str, errors: list[float], target: str) -> Figure:
    """The absolute relative error of the plan; its correctness check is how much too low it was at most."""
    lowest = f"at most {max(0.0, -min(errors)):.1%} too low"
    return Figure(f"planned {what}, error", tuple(map(abs, errors)), "", target, lowest)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(json.dumps(plan_and_train(*json.loads(sys.argv[1]))))
    else:
        main()

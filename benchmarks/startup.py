"""python benchmarks/startup.py --data ../shared/data [--shape 135m] [--rounds 5]

Seconds from the command to the begin of the first training step, of a recipe and of `trl sft`, on the same model and
the same questions and answers (PubMedQA's), LoRA r=16 on all linear layers. By turns, each with an empty cache of data
sets, on a base that lora_med knows from an earlier start: its fingerprint is remembered. As it comes the recipe holds
out 5% and measures their loss before the first step; `one row held out` is as good as no validation, which is what `trl
sft` does; `by python` is that without `accelerate launch`, which `trl sft` starts by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import HERE, Figure, keep, machine, own_dtype, parser_for, spread
from shapes import make_model, make_pairs
from tqdm import tqdm

# Loaded by every Python of an arm before anything else: stops the process where a trainer begins its first step.
STOP = """
import importlib.abc, importlib.machinery, os, sys, time

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "transformers.trainer_callback":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def load(module):
            run(module)
            def begun(self, args, state, control):
                with open(os.environ["BEGUN"], "w") as file:
                    file.write(repr(time.time()))
                os._exit(0)
            module.CallbackHandler.on_step_begin = begun
        spec.loader.exec_module = load
        return spec

sys.meta_path.insert(0, Watch())
"""


def commands(folder: Path, python: Path, dtype: str) -> dict[str, list[str]]:
    """The command of each arm; every run has folders of its own below `folder`."""
    rows, base = folder / "rows", folder / "base"
    ours = [
        *(
            str(python / "accelerate"),
            "launch",
            "--num_processes",
            "1",
            "--cpu",
            str(HERE.parent / "recipes/sft_task.py"),
        ),
        *(f"model.base={base}", "model.load_in_4bit=false", f"model.dtype={dtype}", "data.source=custom"),
        *(f"data.paths=[{rows}/train.jsonl]", "data.columns.prompt=prompt", "data.columns.completion=completion"),
        *("train.max_length=2048", "train.per_device_train_batch_size=4", "train.max_steps=1", "adapter.name=startup"),
        *(f"train.output_dir={folder}/run", f"adapter.store={folder}/adapters", "data.test_share=0"),
    ]
    trl = [
        *(
            str(python / "trl"),
            "sft",
            "--model_name_or_path",
            str(base),
            "--dataset_name",
            str(rows),
            "--max_steps",
            "1",
        ),
        *("--use_peft", "--lora_r", "16", "--lora_target_modules", "all-linear", "--max_length", "2048"),
        *("--per_device_train_batch_size", "4", "--dtype", dtype, "--report_to", "none", "--use_cpu"),
        *("--output_dir", f"{folder}/trl"),
    ]
    quiet = [*ours, "data.validation_share=0.002"]
    recipe = next(place for place, part in enumerate(ours) if part.endswith(".py"))
    return {
        "recipe": ours,
        "recipe, one row held out": quiet,
        "recipe by python, one row held out": [sys.executable, *quiet[recipe:]],
        "trl sft": trl,
    }


def seconds(command: list[str], folder: Path) -> float:
    """From the start of the process to its first step."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        watch = Path(place)
        (watch / "sitecustomize.py").write_text(STOP, encoding="utf-8")
        paths = [str(watch), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "BEGUN": str(watch / "begun"),
            "HF_HOME": str(watch / "hub"),
            "HF_HUB_OFFLINE": "1",
        }
        start = time.time()
        command = [
            part.replace(f"{folder}/run", f"{watch}/run").replace(f"{folder}/trl", f"{watch}/trl") for part in command
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if not (watch / "begun").exists():
            sys.exit(f"{command[0]} took no step:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
        return float((watch / "begun").read_text()) - start


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the arm that validates before the first step")
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "rows").mkdir()
        make_model(asked.shape, asked.data, folder / "base")
        lines = [json.dumps(pair) for pair in make_pairs(asked.data)]
        (folder / "rows" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        arms = commands(folder, Path(sys.executable).parent, own_dtype(asked.dtype))
        if asked.quick:
            del arms["recipe"]
        seconds(arms["recipe, one row held out"], folder)  # so that the base is known to all that are timed
        found: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm in tqdm([arm for _ in range(asked.rounds) for arm in arms], desc="starts"):
            found[arm].append(seconds(arms[arm], folder))
    helps = [help_seconds() for _ in range(asked.rounds)]
    print(f"{machine()}\n{len(lines)} rows, shape {asked.shape}, {own_dtype(asked.dtype)}, {asked.threads} threads")
    theirs = found["trl sft"]
    print("| command | seconds to the first step, median (range) | of trl sft |\n|---|---|---|")
    for arm, times in found.items():
        shares = [one / other for one, other in zip(times, theirs, strict=True)]
        print(f"| {arm} | {spread(times, 1)} | {spread(shares, 2)} |")
    print(f"lora-med --help: {spread(helps, 2)} s")
    shares = tuple(one / other for one, other in zip(found["recipe, one row held out"], theirs, strict=True))
    keep(
        f"startup_{asked.shape}",
        [
            Figure(f"time to the first step against trl sft, {asked.shape}", shares, "", "at most 0.6", ""),
            Figure("lora-med --help", tuple(helps), "s", "under 0.3", ""),
        ],
    )


def help_seconds() -> float:
    """How long `lora-med --help` takes."""
    begun = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "lora-med"), "--help"], capture_output=True, check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

"""python benchmarks/startup.py --data ../shared/data [--shape 135m] [--rounds 5]

Seconds from the command to the beginning of the first training step, of a recipe and of `trl sft`. Both train the same
model on the same questions and answers (PubMedQA's), with LoRA r=16 on all linear layers. Alternating runs, each with
an empty cache of data sets, on a base whose fingerprint is cached from an earlier start. By default the recipe holds
out 5% and measures their loss before the first step. `one row held out` is nearly no validation, as in `trl sft`. `by
python` is the same without `accelerate launch`, which `trl sft` starts by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import HERE, Figure, machine, own_dtype, parser_for, save_figures, spread
from shapes import make_model, make_pairs
from tqdm import tqdm

# Loaded by every Python of an arm before anything else: stops the process where a trainer begins its first step.
STOP = """
import importlib.abc, importlib.machinery, os, sys, time

class StopAtFirstStep(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "transformers.trainer_callback":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def load(module):
            run(module)
            def started(self, args, state, control):
                with open(os.environ["STARTED_FILE"], "w") as file:
                    file.write(repr(time.time()))
                os._exit(0)
            module.CallbackHandler.on_step_begin = started
        spec.loader.exec_module = load
        return spec

sys.meta_path.insert(0, StopAtFirstStep())
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
        "adapter.access=open",
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
    recipe = next(index for index, part in enumerate(ours) if part.endswith(".py"))
    return {
        "recipe": ours,
        "recipe, one row held out": quiet,
        "recipe by python, one row held out": [sys.executable, *quiet[recipe:]],
        "trl sft": trl,
    }


def seconds(command: list[str], folder: Path) -> float:
    """From the start of the process to its first step."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        own_folder = Path(temporary)
        (own_folder / "sitecustomize.py").write_text(STOP, encoding="utf-8")
        paths = [str(own_folder), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "STARTED_FILE": str(own_folder / "started"),
            "HF_HOME": str(own_folder / "hub"),
            "HF_HUB_OFFLINE": "1",
        }
        start = time.time()
        for name in ("run", "trl"):
            command = [part.replace(f"{folder}/{name}", f"{own_folder}/{name}") for part in command]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if not (own_folder / "started").exists():
            sys.exit(f"{command[0]} took no step:\n{result.stdout[-1000:]}\n{result.stderr[-3000:]}")
        return float((own_folder / "started").read_text()) - start


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the arm that validates before the first step")
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "rows").mkdir()
        make_model(arguments.shape, arguments.data, folder / "base")
        lines = [json.dumps(pair) for pair in make_pairs(arguments.data)]
        (folder / "rows" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        arms = commands(folder, Path(sys.executable).parent, own_dtype(arguments.dtype))
        if arguments.quick:
            del arms["recipe"]
        seconds(arms["recipe, one row held out"], folder)  # so that the base's fingerprint is cached in all timed runs
        seconds_of_arm: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm in tqdm([arm for _ in range(arguments.rounds) for arm in arms], desc="starts"):
            seconds_of_arm[arm].append(seconds(arms[arm], folder))
    helps = [help_seconds() for _ in range(arguments.rounds)]
    print(f"{machine()}\n{len(lines)} rows, shape {arguments.shape}")
    print(f"{own_dtype(arguments.dtype)}, {arguments.threads} threads")
    theirs = seconds_of_arm["trl sft"]
    print("| command | seconds to the first step, median (range) | of trl sft |\n|---|---|---|")
    for arm, times in seconds_of_arm.items():
        shares = [ours / trl for ours, trl in zip(times, theirs, strict=True)]
        print(f"| {arm} | {spread(times, 1)} | {spread(shares, 2)} |")
    print(f"lora-med --help: {spread(helps, 2)} s")
    shares = tuple(ours / trl for ours, trl in zip(seconds_of_arm["recipe, one row held out"], theirs, strict=True))
    save_figures(
        f"startup_{arguments.shape}",
        [
            Figure(f"time to the first step against trl sft, {arguments.shape}", shares, "", "at most 0.6", ""),
            Figure("lora-med --help", tuple(helps), "s", "under 0.3", ""),
        ],
    )


def help_seconds() -> float:
    """How long `lora-med --help` takes."""
    started = time.perf_counter()
    subprocess.run([str(Path(sys.executable).parent / "lora-med"), "--help"], capture_output=True, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

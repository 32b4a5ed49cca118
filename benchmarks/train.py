"""python benchmarks/train.py --data ../shared/data [--shape 135m] [--rounds 5] [--arms ours trl-best trl]

Tokens per second and peak memory of LoRA training on a CPU, compared with TRL and other toolkits. The rows are prompts
and answers of PubMedQA, with r=16 on all linear layers and batches of 4. Each arm is a process of its own, in
alternating runs. Padding never counts as a token, and the first step is left out. `ours` is lora_med as its recipes
call it, and `ours-4bit` is the same on the base in NF4. `trl` is what `trl sft` sets, except for its number format.
`trl-best` is TRL with weights in that format and no checkpointing. All arms use the format in which this CPU multiplies
fastest. The arms of other toolkits (peer_arm.py) run if `make peers` has made their environments.

All arms take the same batches in the same order. The rows are those around the median length, so that nothing is
padded, as if the toolkits that pad grouped rows by length. Only `trl`, which does not group, takes rows of four
lengths: those at one, two, three and four fifths of the sorted rows, where four rows drawn at random are expected.

First come correctness checks in float32 without dropout. On one batch the loss and gradient must be TRL's, and the
other toolkits must have the same loss and number of trained weights. Each round also measures a bound: how fast the
matrix products of a step alone are at that time. `--shape smollm2` takes SmolLM2-135M-Instruct itself, with its own
tokenizer, in place of random weights (`lora-med base get smollm2`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measure import HERE, Figure, machine, own_dtype, parser_for, run_arm, save_figures, spread
from shapes import make_model, make_pairs, make_rows
from tqdm import tqdm

ARMS = ("ours", "ours-4bit", "trl-best", "trl")
PEERS = {name: HERE / "peers" / name / "bin" / "python" for name in ("llamafactory", "axolotl", "ms-swift")}
LOSS_WITHIN, COSINE_ABOVE, GRADIENT_WITHIN = 1e-4, 0.999, 1e-2
ROWS = 400
BATCH = 4
MIXED = (0.2, 0.4, 0.6, 0.8)  # where four rows drawn at random are expected among all, sorted by length
Reports = dict[str, list[dict[str, Any]]]
Run = Callable[[str, str, dict[str, Any]], dict[str, Any]]  # of an arm, a kind of rows (see `choose`) and options


def write_rows(folder: Path, name: str, rows: list[Any]) -> Path:
    """JSON lines in the model's folder."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def choose(lengths: Sequence[int], steps: int) -> dict[str, list[int]]:
    """The rows of each step, batch after batch: of "like" length, of "mixed" lengths, and the shortest for the "check".

    The check holds the logits of every row, which must fit into memory for any arm.
    """
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    middle = len(order) // 2 - BATCH * steps // 2
    mixed = [order[int(part * len(order)) + step] for step in range(steps) for part in MIXED]
    return {"like": order[middle : middle + BATCH * steps], "mixed": mixed, "check": order[:BATCH]}


def arms_of(folder: Path, data: Path, steps: int, threads: int) -> Run:
    """What runs an arm: ours and TRL's on tokens, the other toolkits' on the same as text."""
    tokens, texts = make_rows(data, ROWS, folder), make_pairs(data)[:ROWS]
    lengths = [len(row["input_ids"]) for row in tokens]
    print(f"{ROWS} rows of {statistics.median(lengths):.0f} tokens in the median ({min(lengths)} to {max(lengths)})")
    for kind, numbers in choose(lengths, steps).items():
        write_rows(folder, f"rows_{kind}.jsonl", [tokens[number] for number in numbers])
        write_rows(folder, f"pairs_{kind}.jsonl", [texts[number] for number in numbers])

    def run(arm: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
        settings = [str(1 if kind == "check" else steps), str(BATCH), json.dumps(options)]
        if arm in PEERS:
            pairs = str(folder / f"pairs_{kind}.jsonl")
            return run_arm("peer_arm.py", [arm, str(folder), pairs, *settings], threads=threads, python=str(PEERS[arm]))
        rows = str(folder / f"rows_{kind}.jsonl")
        return run_arm("train_arm.py", [arm, str(folder), rows, *settings], threads=threads)

    return run


def check_arms(run: Run, arms: list[str]) -> dict[str, str]:
    """The result of each arm's correctness check; the program ends if one fails."""
    exact = {"dtype": "float32", "dropout": 0.0}
    check = run("check", "check", exact)
    gradient = f"gradient difference {check['gradient_difference']:.1e}, cosine {check['cosine']:.6f}"
    ours = f"loss difference {check['loss_difference']:.1e}, {gradient}"
    print(f"correctness check, float32: {ours}")
    passed = check["loss_difference"] <= LOSS_WITHIN and check["gradient_difference"] <= GRADIENT_WITHIN
    if not (passed and check["cosine"] >= COSINE_ABOVE):
        sys.exit("the correctness check failed: what follows would compare different things")
    results = {arm: "none: other weights" if arm == "ours-4bit" else ours for arm in arms}
    for arm in filter(PEERS.__contains__, arms):
        report = run(arm, "check", exact)
        difference = abs(report["loss"] - check["untrained_loss"]) / check["untrained_loss"]
        results[arm] = f"loss difference {difference:.1e}, {report['trained']:,} weights trained"
        print(f"correctness check, {arm}: {results[arm]}")
        if not difference <= LOSS_WITHIN:
            sys.exit(f"{arm} trains something else: loss {report['loss']:.6f}, expected {check['untrained_loss']:.6f}")
        if report["trained"] != check["trained"]:
            sys.exit(f"{arm} trains {report['trained']:,} weights, and the others {check['trained']:,}")
    return results


def measure(run: Run, arms: list[str], arguments: argparse.Namespace) -> Reports:
    """All rounds, each of all arms and of the bound; ends the program if the arms had different tokens."""
    options = {"dtype": own_dtype(arguments.dtype), "dropout": arguments.dropout}
    reports: Reports = {arm: [] for arm in [*arms, "bound"]}
    for arm in tqdm([arm for _ in range(arguments.rounds) for arm in reports], desc="arms"):
        reports[arm].append(run(arm, "mixed" if arm == "trl" else "like", options))
        print(json.dumps(reports[arm][-1]), file=sys.stderr)
    tokens = {tuple(report["step_tokens"]) for arm in arms if arm != "trl" for report in reports[arm]}
    if len(tokens) > 1:
        sys.exit(f"the arms did not train on the same batches: {sorted(tokens)}")
    return reports


def figures(reports: Reports, checks: dict[str, str], shape: str) -> list[Figure]:
    """The figures of the table that these arms give, each round's ratio for itself."""
    speeds = {arm: [report["tokens_per_second"] for report in rounds] for arm, rounds in reports.items()}
    bound, ours = speeds.pop("bound"), speeds.get("ours", [])
    targets = {"trl": "at least 4.5", "trl-best": "at least 2.5", "ours-4bit": "at least 0.9"}
    rows = [Figure(f"tokens/s, {shape}", tuple(ours), "tokens/s", "", checks["ours"])] if ours else []
    for arm, theirs in speeds.items():
        if arm == "ours" or not ours:
            continue
        pairs = zip(ours, theirs, strict=True)
        ratios = tuple(b / a if arm == "ours-4bit" else a / b for a, b in pairs)
        name = "4-bit tokens/s against ours" if arm == "ours-4bit" else f"tokens/s, {shape}, against {arm}"
        rows.append(Figure(name, ratios, "times", targets.get(arm, "") if shape == "135m" else "", checks[arm]))
    if ours:
        share = tuple(speed / limit for speed, limit in zip(ours, bound, strict=True))
        rows.append(Figure(f"share of the bound, {shape}", share, "", "at least 0.5", checks["ours"]))
    if ours and "trl-best" in reports:
        peaks = [[report["peak_mb"] for report in reports[arm]] for arm in ("ours", "trl-best")]
        memory = tuple(a / b for a, b in zip(*peaks, strict=True))
        rows.append(Figure(f"peak memory, {shape}, against trl-best", memory, "", "at most 0.8", checks["ours"]))
    return rows


def print_table(reports: Reports, arguments: argparse.Namespace) -> None:
    """One line an arm, beside the first: the medians of each round's own ratios."""
    speeds = {arm: [report["tokens_per_second"] for report in rounds] for arm, rounds in reports.items()}
    bound, first = speeds.pop("bound"), next(iter(reports))
    rates = [report["gflops"] for report in reports["bound"]]
    print(f"{machine()}\n{arguments.threads} threads, shape {arguments.shape}, {own_dtype(arguments.dtype)}")
    print(f"bound of the matrix products: {spread(bound)} tokens/s at {spread(rates)} GFLOP/s")
    print(f"| arm | tokens timed | tokens/s, median (range) | {first} is | peak MiB | share of the bound |")
    print("|---|---|---|---|---|---|")
    for arm, own in speeds.items():
        times = statistics.median(a / b for a, b in zip(speeds[first], own, strict=True))
        share = statistics.median(a / b for a, b in zip(own, bound, strict=True))
        peak = statistics.median(report["peak_mb"] for report in reports[arm])
        cells = f"{reports[arm][0]['tokens']} | {spread(own)} | {times:.2f} x | {peak:.0f} | {share:.0%}"
        print(f"| {arm} | {cells} |")
    for arm, rounds in reports.items():
        if "versions" in rounds[0]:
            print(f"{arm}: " + ", ".join(f"{name} {number}" for name, number in rounds[0]["versions"].items()))


def main() -> None:
    parser = parser_for(__doc__, real=True)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *PEERS], help="left out: all that are installed")
    parser.add_argument("--steps", type=int, default=2, help="of each arm; the first is not timed")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    arguments = parser.parse_args()
    arms = arguments.arms or [*ARMS, *(name for name, python in PEERS.items() if python.exists())]
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(arguments.shape, arguments.data, Path(temporary))
        run = arms_of(folder, arguments.data, arguments.steps, arguments.threads)
        checks = check_arms(run, arms)
        reports = measure(run, arms, arguments)
    print_table(reports, arguments)
    save_figures(f"train_{arguments.shape}", figures(reports, checks, arguments.shape))


if __name__ == "__main__":
    main()

"""python benchmarks/train.py --data ../shared/data [--shape 135m] [--rounds 5] [--arms ours trl-best trl]

Tokens per second and peak memory of LoRA training on a CPU beside TRL and other toolkits: PubMedQA's prompts and
answers, r=16 on all linear layers, batches of 4. Each arm is a process of its own, by turns; padding never counts as a
token. `ours` is lora_med as its recipes call it, `ours-4bit` on the base in NF4; `trl` is what `trl sft` sets but for
its number format, `trl-best` TRL with weights in that format, no checkpointing and batches of like length. The format
is the one this CPU multiplies fastest in, for all arms. The arms of other toolkits (peer_arm.py) run where `make peers`
has made their environments. Before all, gates: on one batch the loss and gradient must be TRL's, and the other
toolkits' loss too. And a bound: how fast the matrix products of the step alone could be on this machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import HERE, Figure, keep, machine, own_dtype, parser_for, run_arm, spread
from shapes import make_model, make_pairs, make_rows
from tqdm import tqdm

ARMS = ("ours", "ours-4bit", "trl-best", "trl")
PEERS = {name: HERE / "peers" / name / "bin" / "python" for name in ("llamafactory", "axolotl", "ms-swift")}
LOSS_WITHIN, COSINE_ABOVE = 1e-4, 0.999
ROWS = 400
BATCH = 4
GATE_FROM = 40  # rows among which the gate's are looked for
Found = dict[str, list[dict[str, Any]]]


def write_rows(folder: Path, name: str, rows: list[Any]) -> Path:
    """JSON lines in the model's folder."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arms_of(folder: Path, data: Path, threads: int) -> Callable[[str, int, dict[str, Any]], dict[str, Any]]:
    """What runs an arm for so many steps: ours and TRL's on tokens, the other toolkits' on the same as text."""
    tokens, texts = make_rows(data, ROWS), make_pairs(data)[:ROWS]
    # The gate's: short ones, so that the batch fits whatever the arm keeps.
    few = sorted(range(GATE_FROM), key=lambda number: len(tokens[number]["input_ids"]))[:BATCH]
    rows, pairs = write_rows(folder, "rows.jsonl", tokens), write_rows(folder, "pairs.jsonl", texts)
    few_rows = write_rows(folder, "few_rows.jsonl", [tokens[number] for number in few])
    few_pairs = write_rows(folder, "few_pairs.jsonl", [texts[number] for number in few])

    def run(arm: str, steps: int, options: dict[str, Any]) -> dict[str, Any]:
        told = [str(steps), str(BATCH), json.dumps(options)]
        if arm not in PEERS:
            given = few_rows if options.get("gate") else rows
            return run_arm("train_arm.py", [arm, str(folder), str(given), *told], threads=threads)
        given = few_pairs if options.get("gate") else pairs
        return run_arm("peer_arm.py", [arm, str(folder), str(given), *told], threads=threads, python=str(PEERS[arm]))

    return run


def pass_gates(run: Callable[[str, int, dict[str, Any]], dict[str, Any]], arms: list[str]) -> dict[str, str]:
    """What each arm's gate found; ends the program where one is not passed."""
    exact = {"dtype": "float32", "dropout": 0.0, "gate": True}
    gate = run("gate", 1, exact)
    ours = f"loss {gate['loss_apart']:.1e} apart, gradient cosine {gate['cosine']:.6f}"
    print(f"gate, float32: {ours}")
    if gate["loss_apart"] > LOSS_WITHIN or gate["cosine"] < COSINE_ABOVE:
        sys.exit("the gate is not passed: what follows would compare different things")
    told = {arm: "none: other weights" if arm == "ours-4bit" else ours for arm in arms}
    for arm in filter(PEERS.__contains__, arms):
        loss = run(arm, 1, exact)["loss"]
        apart = abs(loss - gate["untrained_loss"]) / gate["untrained_loss"]
        told[arm] = f"loss {apart:.1e} apart"
        print(f"gate, {arm}: {told[arm]}")
        if apart > LOSS_WITHIN:
            sys.exit(f"{arm} trains something else: its loss is {loss:.6f}, not {gate['untrained_loss']:.6f}")
    return told


def figures(found: Found, bound: dict[str, Any], gates: dict[str, str], shape: str) -> list[Figure]:
    """The figures of the table that these arms give, each round's ratio for itself."""
    speeds = {arm: [one["tokens_per_second"] for one in rounds] for arm, rounds in found.items()}
    ours = speeds.get("ours", [])
    reaches = {"trl": "at least 4.5", "trl-best": "at least 2.5", "ours-4bit": "at least 0.9"}
    made = [Figure(f"tokens/s, {shape}", tuple(ours), "tokens/s", "", gates["ours"])] if ours else []
    for arm, theirs in speeds.items():
        if arm == "ours" or not ours:
            continue
        pairs = zip(ours, theirs, strict=True)
        ratios = tuple(b / a if arm == "ours-4bit" else a / b for a, b in pairs)
        name = "4-bit tokens/s against ours" if arm == "ours-4bit" else f"tokens/s, {shape}, against {arm}"
        made.append(Figure(name, ratios, "times", reaches.get(arm, "") if shape == "135m" else "", gates[arm]))
    if ours:
        share = tuple(one / bound["tokens_per_second"] for one in ours)
        made.append(Figure(f"share of the bound, {shape}", share, "", "at least 0.5", gates["ours"]))
    if ours and "trl-best" in found:
        peaks = [[one["peak_mb"] for one in found[arm]] for arm in ("ours", "trl-best")]
        memory = tuple(a / b for a, b in zip(*peaks, strict=True))
        made.append(Figure(f"peak memory, {shape}, against trl-best", memory, "", "at most 0.8", gates["ours"]))
    return made


def print_table(found: Found, bound: dict[str, Any], asked: argparse.Namespace, dtype: str) -> None:
    """One line an arm, beside the first."""
    print(f"{machine()}\n{asked.threads} threads, shape {asked.shape}, {dtype}; bound of the matrix products: ", end="")
    print(f"{bound['tokens_per_second']:.0f} tokens/s at {bound['gflops']:.0f} GFLOP/s")
    first = next(iter(found))
    base = statistics.median(one["tokens_per_second"] for one in found[first])
    print(f"| arm | tokens/s, median (range) | {first} is | peak MiB | share of the bound |\n|---|---|---|---|---|")
    for arm, rounds in found.items():
        speeds = [one["tokens_per_second"] for one in rounds]
        peak = statistics.median(one["peak_mb"] for one in rounds)
        share = statistics.median(speeds) / bound["tokens_per_second"]
        print(f"| {arm} | {spread(speeds)} | {base / statistics.median(speeds):.2f} x | {peak:.0f} | {share:.0%} |")
    for arm, rounds in found.items():
        if "versions" in rounds[0]:
            print(f"{arm}: " + ", ".join(f"{name} {one}" for name, one in rounds[0]["versions"].items()))


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *PEERS], help="left out: all that are installed")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    asked = parser.parse_args()
    arms = asked.arms or [*ARMS, *(name for name, python in PEERS.items() if python.exists())]
    dtype = own_dtype(asked.dtype)
    options = {"dtype": dtype, "dropout": asked.dropout}
    with tempfile.TemporaryDirectory() as place:
        run = arms_of(make_model(asked.shape, asked.data, Path(place)), asked.data, asked.threads)
        gates = pass_gates(run, arms)
        bound = run("bound", 1, options)
        found: Found = {arm: [] for arm in arms}
        for arm in tqdm([arm for _ in range(asked.rounds) for arm in arms], desc="arms"):
            found[arm].append(run(arm, asked.steps, options))
            print(json.dumps(found[arm][-1]), file=sys.stderr)
    print_table(found, bound, asked, dtype)
    keep(f"train_{asked.shape}", figures(found, bound, gates, asked.shape))


if __name__ == "__main__":
    main()

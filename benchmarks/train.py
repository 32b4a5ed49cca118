"""python benchmarks/train.py --data ../shared/data [--shape 135m] [--rounds 5] [--arms ours trl-best trl]

Tokens per second and peak memory of LoRA training on a CPU beside TRL and other toolkits: PubMedQA's prompts and
answers, r=16 on all linear layers, batches of 4. Each arm is a process of its own, by turns; padding never counts as a
token, and the first step is left out. `ours` is lora_med as its recipes call it, `ours-4bit` on the base in NF4; `trl`
is what `trl sft` sets but for its number format, `trl-best` TRL with weights in that format and no checkpointing. The
format is the one this CPU multiplies fastest in, for all arms. The arms of other toolkits (peer_arm.py) run where `make
peers` has made their environments.

All arms take the same batches in the same order, of the rows around the median length, so that nothing is padded: what
grouping by length would give those that pad. `trl` alone, which does not group, takes rows of four lengths: those a
fifth, two, three and four fifths up the sorted rows, where four rows drawn at random are expected.

Before all, gates in float32 without dropout: on one batch the loss and gradient must be TRL's, and the other toolkits'
loss and number of trained weights too. In each round a bound: how fast the matrix products of a step alone are then.
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

from measure import HERE, Figure, keep, machine, own_dtype, parser_for, run_arm, spread
from shapes import make_model, make_pairs, make_rows
from tqdm import tqdm

ARMS = ("ours", "ours-4bit", "trl-best", "trl")
PEERS = {name: HERE / "peers" / name / "bin" / "python" for name in ("llamafactory", "axolotl", "ms-swift")}
LOSS_WITHIN, COSINE_ABOVE, GRADIENT_WITHIN = 1e-4, 0.999, 1e-2
ROWS = 400
BATCH = 4
MIXED = (0.2, 0.4, 0.6, 0.8)  # where four rows drawn at random are expected among all, sorted by length
Found = dict[str, list[dict[str, Any]]]
Run = Callable[[str, str, dict[str, Any]], dict[str, Any]]  # of an arm, a kind of rows (see `choose`) and options


def write_rows(folder: Path, name: str, rows: list[Any]) -> Path:
    """JSON lines in the model's folder."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def choose(lengths: Sequence[int], steps: int) -> dict[str, list[int]]:
    """The rows of each step, batch after batch: of "like" length, of "mixed" lengths, and the shortest for the "gate".

    The gate keeps logits of every row, which must fit for any arm.
    """
    order = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))
    middle = len(order) // 2 - BATCH * steps // 2
    mixed = [order[int(part * len(order)) + step] for step in range(steps) for part in MIXED]
    return {"like": order[middle : middle + BATCH * steps], "mixed": mixed, "gate": order[:BATCH]}


def arms_of(folder: Path, data: Path, steps: int, threads: int) -> Run:
    """What runs an arm: ours and TRL's on tokens, the other toolkits' on the same as text."""
    tokens, texts = make_rows(data, ROWS), make_pairs(data)[:ROWS]
    lengths = [len(row["input_ids"]) for row in tokens]
    print(f"{ROWS} rows of {statistics.median(lengths):.0f} tokens in the median ({min(lengths)} to {max(lengths)})")
    for kind, numbers in choose(lengths, steps).items():
        write_rows(folder, f"rows_{kind}.jsonl", [tokens[number] for number in numbers])
        write_rows(folder, f"pairs_{kind}.jsonl", [texts[number] for number in numbers])

    def run(arm: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
        told = [str(1 if kind == "gate" else steps), str(BATCH), json.dumps(options)]
        if arm in PEERS:
            given = [arm, str(folder), str(folder / f"pairs_{kind}.jsonl"), *told]
            return run_arm("peer_arm.py", given, threads=threads, python=str(PEERS[arm]))
        return run_arm("train_arm.py", [arm, str(folder), str(folder / f"rows_{kind}.jsonl"), *told], threads=threads)

    return run


def pass_gates(run: Run, arms: list[str]) -> dict[str, str]:
    """What each arm's gate found; ends the program where one is not passed."""
    exact = {"dtype": "float32", "dropout": 0.0}
    gate = run("gate", "gate", exact)
    far = f"gradient {gate['gradient_apart']:.1e} apart, cosine {gate['cosine']:.6f}"
    ours = f"loss {gate['loss_apart']:.1e} apart, {far}"
    print(f"gate, float32: {ours}")
    passed = gate["loss_apart"] <= LOSS_WITHIN and gate["gradient_apart"] <= GRADIENT_WITHIN
    if not (passed and gate["cosine"] >= COSINE_ABOVE):
        sys.exit("the gate is not passed: what follows would compare different things")
    told = {arm: "none: other weights" if arm == "ours-4bit" else ours for arm in arms}
    for arm in filter(PEERS.__contains__, arms):
        found = run(arm, "gate", exact)
        apart = abs(found["loss"] - gate["untrained_loss"]) / gate["untrained_loss"]
        told[arm] = f"loss {apart:.1e} apart, {found['trained']:,} weights trained"
        print(f"gate, {arm}: {told[arm]}")
        if not apart <= LOSS_WITHIN:
            sys.exit(f"{arm} trains something else: its loss is {found['loss']:.6f}, not {gate['untrained_loss']:.6f}")
        if found["trained"] != gate["trained"]:
            sys.exit(f"{arm} trains {found['trained']:,} weights, and the others {gate['trained']:,}")
    return told


def measure(run: Run, arms: list[str], asked: argparse.Namespace) -> Found:
    """All rounds, each of all arms and of the bound; ends the program where arms were given other tokens."""
    options = {"dtype": own_dtype(asked.dtype), "dropout": asked.dropout}
    found: Found = {arm: [] for arm in [*arms, "bound"]}
    for arm in tqdm([arm for _ in range(asked.rounds) for arm in found], desc="arms"):
        found[arm].append(run(arm, "mixed" if arm == "trl" else "like", options))
        print(json.dumps(found[arm][-1]), file=sys.stderr)
    tokens = {tuple(one["step_tokens"]) for arm in arms if arm != "trl" for one in found[arm]}
    if len(tokens) > 1:
        sys.exit(f"the arms did not train on the same batches: {sorted(tokens)}")
    return found


def figures(found: Found, gates: dict[str, str], shape: str) -> list[Figure]:
    """The figures of the table that these arms give, each round's ratio for itself."""
    speeds = {arm: [one["tokens_per_second"] for one in rounds] for arm, rounds in found.items()}
    bound, ours = speeds.pop("bound"), speeds.get("ours", [])
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
        share = tuple(one / most for one, most in zip(ours, bound, strict=True))
        made.append(Figure(f"share of the bound, {shape}", share, "", "at least 0.5", gates["ours"]))
    if ours and "trl-best" in found:
        peaks = [[one["peak_mb"] for one in found[arm]] for arm in ("ours", "trl-best")]
        memory = tuple(a / b for a, b in zip(*peaks, strict=True))
        made.append(Figure(f"peak memory, {shape}, against trl-best", memory, "", "at most 0.8", gates["ours"]))
    return made


def print_table(found: Found, asked: argparse.Namespace) -> None:
    """One line an arm, beside the first: the medians of each round's own ratios."""
    speeds = {arm: [one["tokens_per_second"] for one in rounds] for arm, rounds in found.items()}
    bound, first = speeds.pop("bound"), next(iter(found))
    rates = [one["gflops"] for one in found["bound"]]
    print(
        f"{machine()}\n{asked.threads} threads, shape {asked.shape}, {own_dtype(asked.dtype)}; bound of the matrix ",
        end="",
    )
    print(f"products: {spread(bound)} tokens/s at {spread(rates)} GFLOP/s")
    print(f"| arm | tokens timed | tokens/s, median (range) | {first} is | peak MiB | share of the bound |")
    print("|---|---|---|---|---|---|")
    for arm, own in speeds.items():
        times = statistics.median(a / b for a, b in zip(speeds[first], own, strict=True))
        share = statistics.median(a / b for a, b in zip(own, bound, strict=True))
        peak = statistics.median(one["peak_mb"] for one in found[arm])
        told = f"{found[arm][0]['tokens']} | {spread(own)} | {times:.2f} x | {peak:.0f} | {share:.0%}"
        print(f"| {arm} | {told} |")
    for arm, rounds in found.items():
        if "versions" in rounds[0]:
            print(f"{arm}: " + ", ".join(f"{name} {one}" for name, one in rounds[0]["versions"].items()))


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *PEERS], help="left out: all that are installed")
    parser.add_argument("--steps", type=int, default=2, help="of each arm; the first is not timed")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    asked = parser.parse_args()
    arms = asked.arms or [*ARMS, *(name for name, python in PEERS.items() if python.exists())]
    with tempfile.TemporaryDirectory() as place:
        run = arms_of(make_model(asked.shape, asked.data, Path(place)), asked.data, asked.steps, asked.threads)
        gates = pass_gates(run, arms)
        found = measure(run, arms, asked)
    print_table(found, asked)
    keep(f"train_{asked.shape}", figures(found, gates, asked.shape))


if __name__ == "__main__":
    main()

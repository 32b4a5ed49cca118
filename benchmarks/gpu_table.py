"""The results of benchmarks/gpu.py as Markdown: one table for each question, each ratio with its correctness check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SAME_LOSS = 0.01  # bfloat16 and NF4 round: two exact implementations differ by less than that in their first loss
Results = Mapping[str, Mapping[str, Any]]


def table(facts: Mapping[str, Any], results: Results, names: Sequence[str], *, rehearsed: bool) -> str:
    """The page of a run; `names` are those of all parts, `rehearsed` says that its figures mean nothing."""
    lines = ["# lora_med on a GPU", "", f"{facts['gpu']}, CUDA {facts['cuda']}. {facts['machine']}.", ""]
    if rehearsed:
        lines += ["**A rehearsal with tiny shapes: no figure on this page is a measurement.**", ""]
    good = {name: result for name, result in results.items() if "error" not in result}
    for section in (tests, equality, kernels, training, profiles, evaluation):
        lines += section(results if section is tests else good)
    for name in names:
        if name not in good:
            error = results.get(name, {}).get("error", "not run: the time was over")
            lines.append(f"- not done: {name}: {' '.join(str(error).split())[-200:]}")
    return "\n".join([*lines, ""])


def rows(head: str, cells: Sequence[Sequence[object]]) -> list[str]:
    """A table with this head, or nothing if it has no row."""
    columns = head.count("|") + 1
    body = ["| " + " | ".join(map(str, row)) + " |" for row in cells]
    return [f"| {head} |", "|" + "---|" * columns, *body, ""] if cells else []


def tests(results: Results) -> list[str]:
    """How many tests passed, and the names of those that did not."""
    outcomes = results.get("tests", {}).get("outcomes", {})
    if not outcomes:
        return []
    passed = sum(outcome == "passed" for outcome in outcomes.values())
    others = [f"- {name}: {outcome}" for name, outcome in outcomes.items() if outcome != "passed"]
    return [f"Tests marked `gpu`: {passed} of {len(outcomes)} passed.", "", *others, *([""] if others else [])]


def equality(results: Results) -> list[str]:
    """One batch against TRL's."""
    if "equal" not in results:
        return []
    check = results["equal"]
    error = f"loss error {check['loss_difference']:.1e}, gradient error {check['gradient_difference']:.1e}"
    return [f"One batch in float32 against TRL: {error}, cosine {check['cosine']:.6f}.", ""]


def kernels(results: Results) -> list[str]:
    """Each kernel against its reference."""
    pairs = results.get("kernels", {}).get("kernels", [])
    cells = [
        (row["name"], f"{row['ours_ms']:.2f}", f"{row['reference_ms']:.2f}", ratio(row), f"{row['error']:.1e}")
        for row in pairs
    ]
    return rows("kernel | ours, ms | reference, ms | times as fast | error of outputs and gradients", cells)


def ratio(row: Mapping[str, Any]) -> str:
    """How many times as fast as its reference a kernel is."""
    return f"{row['reference_ms'] / row['ours_ms']:.2f}"


def training(results: Results) -> list[str]:
    """Ours beside TRL's best flags, for each shape, number format and kind of rows."""
    cells = []
    for name, ours in results.items():
        if not (name.startswith("speed_") and name.endswith("_ours")):
            continue
        _, shape, quantization, kind, _ = name.split("_")
        theirs = results.get(name.removesuffix("ours") + "trl-best")
        form = "NF4" if quantization == "4bit" else "bfloat16"
        planned = f"{ours['planned_mb']:,} ({(ours['planned_mb'] / ours['peak_mb'] - 1):+.0%})"
        own = (shape, form, kind, f"{ours['tokens_per_second']:,.0f}", f"{ours['peak_mb']:,}", planned)
        cells.append((*own, *(against(ours, theirs, kind) if theirs else ("",) * 4)))
    head = "shape | base | rows | tokens/s | peak MiB | planned MiB | TRL tokens/s | TRL peak MiB | ratio | first loss"
    return rows(head, cells)


def against(ours: Mapping[str, Any], theirs: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """TRL's speed and memory, the ratio of the speeds, and whether both began with the same loss.

    TRL packs other documents together, so there the first losses are of other rows.
    """
    factor = ours["tokens_per_second"] / theirs["tokens_per_second"]
    error = abs(ours["losses"][0] - theirs["losses"][0]) / theirs["losses"][0]
    verdict = "equal" if error <= SAME_LOSS else "NOT EQUAL: the ratio is void"
    check = "other rows" if kind == "packed" else f"{verdict} (error {error:.1e})"
    return f"{theirs['tokens_per_second']:,.0f}", f"{theirs['peak_mb']:,}", f"{factor:.2f}", check


def profiles(results: Results) -> list[str]:
    """Where the time of a step goes."""
    lines: list[str] = []
    for name, result in results.items():
        if name.startswith("profile_"):
            cells = [(row["operator"], f"{row['ms']:.1f}", f"{row['share']:.0%}") for row in result["operators"]]
            lines += rows(f"operator ({name.removeprefix('profile_').replace('_', ', ')}) | own ms | share", cells)
    return lines


def evaluation(results: Results) -> list[str]:
    """Scoring against the pure forward passes, and writing."""
    cells = [
        (
            name.removeprefix("evaluate_"),
            f"{result['scored_tokens_per_second']:,.0f}",
            f"{result['of_pure_passes']:.2f}",
            f"{result['largest_difference']:.1e}",
            f"{result['written_tokens_per_second']:,.0f}",
        )
        for name, result in results.items()
        if name.startswith("evaluate_")
    ]
    head = "shape | scored tokens/s | of the pure passes' time | difference of log-probabilities | written tokens/s"
    return rows(head, cells)

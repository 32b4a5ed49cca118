"""python benchmarks/study_page.py [--out runs/study]: the reports of benchmarks/study.py as docs/results.md and .png.

Each verdict is that of the report; over PubMedQA's folds the items are pooled, and the verdict is made by the same
functions. The difference between lora_med and TRL is paired over the items of both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lora_med.evaluation.measures import Change, Measure, Numbers, Value, changes, values
from lora_med.evaluation.scorers.registry import measures_of
from lora_med.evaluation.sentences import number, signed, span
from lora_med.evaluation.tasks import SCORINGS
from lora_med.metrics.significance import Interval, wilson

MARKER = "<!-- study -->"  # the part of the page that this script writes is between two of these lines
PAGE = Path(__file__).parent.parent / "docs" / "results.md"
TITLES = {
    "pubmedqa": "PubMedQA, from the abstract",
    "entities": "chemicals and diseases, written",
    "tags": "chemicals and diseases, tagged",
    "note": "notes from dialogue",
    "question_summary": "a consumer's question in one sentence",
    "pubmed": "abstracts",
    "exam": "medical examinations",
}


@dataclass(frozen=True)
class Outcome:
    """One task: the measure that decides, each role's score, the best baseline, and the two differences."""

    title: str
    items: int
    measure: Measure
    scores: dict[str, Value]
    baseline: tuple[str, Value] | None
    gain: Change
    from_trl: Change | None


def read_tables(folder: Path) -> tuple[dict[str, Any], dict[str, Numbers], list[str]]:
    """A report's evaluation, the tables of each role (items x columns), and the items' groups."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    (evaluation,) = report["evaluations"]
    lines = [json.loads(line) for line in (folder / evaluation["items_file"]).read_text(encoding="utf-8").splitlines()]
    names = {"base": None}
    for subject in evaluation["subjects"][1:]:
        names.setdefault("trl" if subject["adapter"].endswith("-trl") else "lora_med", subject["adapter"])
    tables = {
        role: np.array([(line["base"] if name is None else line["adapters"][name])["sums"] for line in lines], float)
        for role, name in names.items()
    }
    return evaluation, tables, [line["group"] for line in lines]


def outcome(name: str, folders: Sequence[Path], beside_trl: Sequence[Path]) -> Outcome:
    """The outcome of a task from its reports: one, or one for each fold. `beside_trl` are those with TRL's adapter."""
    parts = [read_tables(folder) for folder in folders]
    evaluation = parts[0][0]
    wanted = SCORINGS[evaluation["scoring"]].verdict_by
    measure = next(each for each in measures_of(evaluation["scoring"], evaluation["layout"]) if each.name == wanted)
    tables = {role: np.vstack([part[role] for _, part, _ in parts]) for role in ("base", "lora_med")}
    groups = [group for _, _, part in parts for group in part]
    options: dict[str, int] = {"samples": evaluation["bootstrap_samples"], "seed": evaluation["seed"]}

    scores = {role: values([measure], table, groups, **options)[wanted] for role, table in tables.items()}
    from_trl: Change | None = None
    if beside_trl:
        peers = [read_tables(folder) for folder in beside_trl]
        of_trl, ours = (np.vstack([part[role] for _, part, _ in peers]) for role in ("trl", "lora_med"))
        of_peers = [group for _, _, part in peers for group in part]
        scores["trl"] = values([measure], of_trl, of_peers, **options)[wanted]
        from_trl = changes([measure], of_trl, ours, of_peers, **options)[wanted]
    return Outcome(
        title=TITLES[name],
        items=len(groups),
        measure=measure,
        scores=scores,
        baseline=best_baseline(measure, [part[0] for part in parts]),
        gain=changes([measure], tables["base"], tables["lora_med"], groups, **options)[wanted],
        from_trl=from_trl,
    )


def best_baseline(measure: Measure, evaluations: Sequence[dict[str, Any]]) -> tuple[str, Value] | None:
    """The best of the answers that take no model; over folds their mean by items, with Wilson's interval."""
    found: dict[str, Value] = {}
    for name in sorted({each["name"] for evaluation in evaluations for each in evaluation["baselines"]}):
        parts = [
            (evaluation["items"], baseline["values"][measure.name])
            for evaluation in evaluations
            for baseline in evaluation["baselines"]
            if baseline["name"] == name
        ]
        if len(parts) < len(evaluations):
            continue
        if len(parts) == 1:
            value = parts[0][1]
            found[name] = Value(value["value"], Interval(value["low"], value["high"], value["method"]))
            continue
        items = sum(count for count, _ in parts)
        mean = sum(count * value["value"] for count, value in parts) / items
        found[name] = Value(mean, wilson(round(mean * items), items))
    order = sorted(found.items(), key=lambda pair: pair[1].value, reverse=not measure.lower_is_better)
    return order[0] if order else None


def shown(value: Value) -> str:
    """A value and its interval."""
    return f"{number(value.value)} [{span(value.interval)}]"


def difference(change: Change) -> str:
    """A difference with its sign, and its interval."""
    return f"{signed(change.difference)} [{span(change.interval, sign=True)}]"


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines of the table of results."""
    lines = [
        "| task | items | measure | base | best baseline | lora_med | difference | verdict | TRL | lora_med − TRL |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in outcomes:
        trl = each.scores.get("trl")
        cells = [
            each.title,
            str(each.items),
            each.measure.label,
            shown(each.scores["base"]),
            "" if each.baseline is None else f"{shown(each.baseline[1])} ({each.baseline[0]})",
            shown(each.scores["lora_med"]),
            difference(each.gain),
            each.gain.verdict,
            "" if trl is None else shown(trl),
            "" if each.from_trl is None else difference(each.from_trl),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def costs(out: Path) -> list[str]:
    """The lines of the table of costs: each training, with TRL's beside ours."""
    lines = ["| training | wall seconds | CPU seconds | peak memory |", "|---|---|---|---|"]
    for path in sorted(out.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if not path.stem.endswith(("-report", "-adopted")):
            seconds = f"{result['seconds']:,.0f} | {result['cpu_seconds']:,.0f}"
            lines.append(f"| {result['name']} | {seconds} | {result['peak_mb']:,} MB |")
    return lines


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """One row for each task: base, best baseline, TRL and lora_med, each with its interval."""
    figure = Figure(figsize=(8, 1.1 + 1.15 * len(outcomes)), layout="constrained")
    axes = figure.subplots(len(outcomes), 1, squeeze=False)[:, 0]
    colors = {"base": "#777777", "best baseline": "#c28e0e", "TRL": "#7a9cc6", "lora_med": "#0b5394"}
    for axis, each in zip(axes, outcomes, strict=True):
        rows = {"base": each.scores["base"]}
        if each.baseline is not None:
            rows["best baseline"] = each.baseline[1]
        if "trl" in each.scores:
            rows["TRL"] = each.scores["trl"]
        rows["lora_med"] = each.scores["lora_med"]
        for line, (label, value) in enumerate(reversed(rows.items())):
            low, high = value.interval.low, value.interval.high
            if low is not None and high is not None:
                axis.plot([low, high], [line, line], color=colors[label], linewidth=2)
            axis.plot([value.value], [line], "o", color=colors[label], markersize=6)
        axis.set_yticks(range(len(rows)), list(reversed(rows)), fontsize=8)
        axis.set_ylim(-0.6, len(rows) - 0.4)
        better = "lower is better" if each.measure.lower_is_better else "higher is better"
        axis.set_title(f"{each.title}: {each.measure.label} ({better}), {each.items} items", fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.25)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def page(outcomes: Sequence[Outcome], out: Path) -> str:
    """The part of the page that this script writes."""
    better = sum(each.gain.verdict == "better" for each in outcomes)
    beside_trl = [each.title for each in outcomes if each.from_trl is not None]
    missing = [title for title in TITLES.values() if title not in {each.title for each in outcomes}]
    said = [f"Better than the base: {better} of {len(outcomes)}."]
    if TITLES["pubmedqa"] not in missing:
        said.append("PubMedQA is the official folds that were run, pooled; no item of its official test was read.")
    said.append(f"TRL alone was trained on: {', '.join(beside_trl)}." if beside_trl else "TRL alone was not trained.")
    if missing:
        said.append(f"Not run yet: {'; '.join(missing)}.")
    return "\n".join(
        [
            MARKER,
            "",
            "## SmolLM2-135M-Instruct on medical tasks",
            "",
            "![Base, best baseline and adapters on each task, with 95% intervals](results.png)",
            "",
            "`make study` trains and scores all of this, and `python benchmarks/study_page.py` writes this part. The",
            "base is the one of `lora-med base get smollm2`. Each adapter is trained by a settings file that ships",
            "(`smollm2_*`); TRL alone takes equal settings and the same rows. Square brackets hold 95% intervals,",
            "paired for the differences. Round brackets name the best answer that takes no model.",
            "",
            *table(outcomes),
            "",
            *said,
            "",
            *costs(out),
            "",
            f"Machine: {platform.machine()}, {os.cpu_count()} cores that other work shared, so the wall seconds are",
            "upper bounds and the CPU seconds are to be compared.",
            "",
            MARKER,
        ]
    )


def with_part(text: str, part: str) -> str:
    """The page's text with this part after its heading, in place of an earlier one."""
    if MARKER in text:
        before, _, after = text.split(MARKER)
    else:
        heading, _, after = text.partition("\n\n")
        before, after = f"{heading}\n\n", f"\n\n{after}"
    return before + part + after


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    reports = options.out / "reports"
    whole = [path.parent for path in sorted(reports.glob("*/report.json"))]
    outcomes = []
    for name in TITLES:
        found = [folder for folder in whole if folder.name.removesuffix("-trl").partition("-fold")[0] == name]
        beside_trl = [folder for folder in found if folder.name.endswith("-trl")]
        if len(found) > len(beside_trl):
            outcomes.append(outcome(name, [each for each in found if each not in beside_trl], beside_trl))
    draw(outcomes, options.page.with_name("results.png"))
    options.page.write_text(
        with_part(options.page.read_text(encoding="utf-8"), page(outcomes, options.out)), encoding="utf-8"
    )


if __name__ == "__main__":
    main()

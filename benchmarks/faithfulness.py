"""python benchmarks/faithfulness.py [--data DIR]: how measures of a summary go along with what people said of it.

The 400 machine summaries of MTS-Dialog's correlation study (Ben Abacha et al. 2023; 100 dialogues, 4 systems), with the
hallucination rate and the factual precision that people gave them. For each measure Spearman's correlation with the
hallucination rate and with factual errors (1 - precision), with 95% intervals by bootstrap over dialogues, and the
difference from ROUGE-L on the same summaries. The tables of words were read against dialogues of even numbers alone;
those of odd numbers are what is reported first. Needs rouge-score and sacrebleu: pip install "lora-med[eval]".
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lora_med.metrics.faithfulness import faithfulness
from lora_med.metrics.overlap import overlaps

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "mts_dialog" / "Correlation-Study"
SUMMARIES = "MTS-Dialog-Automatic-Summaries-ValidationSet.csv"
SCORES = "MTS-Dialog-Manual-Scores4CorrelationStudy.csv"
PEER = "1 - ROUGE-L"
RESAMPLES, SEED = 2000, 42
Numbers = NDArray[np.float64]


def read(folder: Path) -> tuple[list[dict[str, str]], dict[str, Numbers]]:
    """The summaries, and of each the hallucination rate and the share of facts that are wrong."""
    rows, scores = (
        list(csv.DictReader((folder / name).open(encoding="utf-8-sig", newline=""))) for name in (SUMMARIES, SCORES)
    )
    if len(rows) != len(scores):
        raise SystemExit(f"{len(rows)} summaries and {len(scores)} scores in {folder}")
    told = {
        "hallucination rate": np.array([float(one["HallucinationRate"]) for one in scores]),
        "factual errors": 1 - np.array([float(one["FactualPrecision"]) for one in scores]),
    }
    return rows, told


def measured(rows: Sequence[dict[str, str]]) -> dict[str, Numbers]:
    """Each measure of each summary, so that more is worse."""
    texts = [(row["Dialogue"], row["Automatic Summary"], row["Reference Summary"]) for row in rows]
    found = [faithfulness(*one) for one in texts]
    likeness = overlaps([output for _, output, _ in texts], [reference for _, _, reference in texts])

    def share(part: str, whole: str) -> Numbers:
        return np.array([getattr(one, part) / max(1, getattr(one, whole)) for one in found])

    def count(part: str) -> Numbers:
        return np.array([float(getattr(one, part)) for one in found])

    return {
        "faults, share": share("faults", "facts"),
        "faults, count": count("faults"),
        "quantities not in the source, share": share("unsupported_quantities", "quantities"),
        "words not in the source, share": share("unsupported_words", "words"),
        "flipped findings, share": share("flipped_findings", "findings"),
        "flipped sides, share": share("flipped_sides", "sides"),
        "sex not told by the source": count("unsupported_persons"),
        "1 - ROUGE-1": 1 - np.array([one.rouge_1 for one in likeness]),
        "1 - ROUGE-2": 1 - np.array([one.rouge_2 for one in likeness]),
        PEER: 1 - np.array([one.rouge_l for one in likeness]),
        "1 - chrF": 1 - np.array([one.chrf for one in likeness]),
    }


def spearman(one: Numbers, other: Numbers) -> float:
    """Spearman's rank correlation; 0 where either is constant."""
    first, second = rankdata(one), rankdata(other)
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def correlations(measure: Numbers, peer: Numbers, told: Numbers, groups: Sequence[str]) -> dict[str, list[float]]:
    """Correlation and its difference from the peer's, each as value, low, high."""
    members: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    known, draw = list(members.values()), np.random.default_rng(SEED)
    drawn = np.empty((RESAMPLES, 2))
    for row in drawn:
        places = [place for group in draw.integers(0, len(known), len(known)) for place in known[group]]
        own = spearman(measure[places], told[places])
        row[:] = own, own - spearman(peer[places], told[places])
    own = spearman(measure, told)
    lows, highs = np.quantile(drawn, 0.025, axis=0), np.quantile(drawn, 0.975, axis=0)
    apart = own - spearman(peer, told)
    return {
        "correlation": [own, float(lows[0]), float(highs[0])],
        "over_rouge_l": [apart, float(lows[1]), float(highs[1])],
    }


def table(rows: Sequence[dict[str, str]], told: dict[str, Numbers], kept: Sequence[bool]) -> dict[str, dict[str, dict]]:
    """Judgement -> measure -> correlations, over the rows kept."""
    chosen = [place for place, keep in enumerate(kept) if keep]
    measures = {name: values[chosen] for name, values in measured(rows).items()}
    groups = [rows[place]["ID"] for place in chosen]
    return {
        judged: {name: correlations(one, measures[PEER], values[chosen], groups) for name, one in measures.items()}
        for judged, values in told.items()
    }


def show(found: dict[str, dict[str, dict]], about: str) -> None:
    """The table, in Markdown."""
    print(f"\n{about}\n")
    for judged, measures in found.items():
        print(f"| measure | correlation with the {judged} | difference from ROUGE-L |")
        print("|---|---|---|")
        for name, one in measures.items():
            cells = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*one[key]) for key in ("correlation", "over_rouge_l")]
            print(f"| {name} | {cells[0]} | {cells[1] if name != PEER else ''} |")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the correlation study")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    rows, told = read(options.data)
    odd = [int(row["ID"]) % 2 == 1 for row in rows]
    found = {"dialogues of odd numbers": table(rows, told, odd), "all dialogues": table(rows, told, [True] * len(rows))}
    if options.json:
        print(json.dumps(found))
        return
    for name, one in found.items():
        show(one, f"{name} ({sum(odd) if 'odd' in name else len(rows)} summaries)")


if __name__ == "__main__":
    main()

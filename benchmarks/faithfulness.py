"""python benchmarks/faithfulness.py [--data DIR]: how measures of a summary correlate with the judgments of people.

The 400 machine summaries of MTS-Dialog's correlation study (Ben Abacha et al. 2023; 100 dialogues, 4 systems), with the
hallucination rate and the factual precision that people gave them. For each measure Spearman's correlation with the
hallucination rate and with factual errors (1 - precision) is printed, with 95% intervals by bootstrap over dialogues,
and the difference from ROUGE-L on the same summaries. The tables of words were made with the dialogues of even numbers
only. So the dialogues of odd numbers are reported first. Needs rouge-score and sacrebleu: pip install "lora-med[eval]".
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
    judgments = {
        "hallucination rate": np.array([float(score["HallucinationRate"]) for score in scores]),
        "factual errors": 1 - np.array([float(score["FactualPrecision"]) for score in scores]),
    }
    return rows, judgments


def measured(rows: Sequence[dict[str, str]]) -> dict[str, Numbers]:
    """Each measure of each summary, so that more is worse."""
    texts = [(row["Dialogue"], row["Automatic Summary"], row["Reference Summary"]) for row in rows]
    results = [faithfulness(*text) for text in texts]
    similarities = overlaps([output for _, output, _ in texts], [reference for _, _, reference in texts])

    def share(part: str, total: str) -> Numbers:
        return np.array([getattr(result, part) / max(1, getattr(result, total)) for result in results])

    def count(part: str) -> Numbers:
        return np.array([float(getattr(result, part)) for result in results])

    return {
        "unsupported claims, share": share("faults", "facts"),
        "unsupported claims, count": count("faults"),
        "quantities not in the source, share": share("unsupported_quantities", "quantities"),
        "words not in the source, share": share("unsupported_words", "words"),
        "flipped findings, share": share("flipped_findings", "findings"),
        "flipped sides, share": share("flipped_sides", "sides"),
        "sex not stated in the source": count("unsupported_persons"),
        "1 - ROUGE-1": 1 - np.array([scores.rouge_1 for scores in similarities]),
        "1 - ROUGE-2": 1 - np.array([scores.rouge_2 for scores in similarities]),
        PEER: 1 - np.array([scores.rouge_l for scores in similarities]),
        "1 - chrF": 1 - np.array([scores.chrf for scores in similarities]),
    }


def spearman(first: Numbers, second: Numbers) -> float:
    """Spearman's rank correlation; 0 where either is constant."""
    first_ranks, second_ranks = rankdata(first), rankdata(second)
    if first_ranks.std() == 0 or second_ranks.std() == 0:
        return 0.0
    return float(np.corrcoef(first_ranks, second_ranks)[0, 1])


def correlations(measure: Numbers, peer: Numbers, judgment: Numbers, groups: Sequence[str]) -> dict[str, list[float]]:
    """Correlation and its difference from the peer's, each as value, low, high."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    known, draw = list(members.values()), np.random.default_rng(SEED)
    drawn = np.empty((RESAMPLES, 2))
    for row in drawn:
        indices = [index for group in draw.integers(0, len(known), len(known)) for index in known[group]]
        own = spearman(measure[indices], judgment[indices])
        row[:] = own, own - spearman(peer[indices], judgment[indices])
    own = spearman(measure, judgment)
    lows, highs = np.quantile(drawn, 0.025, axis=0), np.quantile(drawn, 0.975, axis=0)
    difference = own - spearman(peer, judgment)
    return {
        "correlation": [own, float(lows[0]), float(highs[0])],
        "over_rouge_l": [difference, float(lows[1]), float(highs[1])],
    }


def table(
    rows: Sequence[dict[str, str]], judgments: dict[str, Numbers], included: Sequence[bool]
) -> dict[str, dict[str, dict]]:
    """Judgment -> measure -> correlations, over the included rows."""
    chosen = [index for index, is_included in enumerate(included) if is_included]
    measures = {name: values[chosen] for name, values in measured(rows).items()}
    groups = [rows[index]["ID"] for index in chosen]
    return {
        judgment: {
            name: correlations(measure, measures[PEER], values[chosen], groups) for name, measure in measures.items()
        }
        for judgment, values in judgments.items()
    }


def show(judgments: dict[str, dict[str, dict]], about: str) -> None:
    """The table, in Markdown."""
    print(f"\n{about}\n")
    for judgment, measures in judgments.items():
        print(f"| measure | correlation with the {judgment} | difference from ROUGE-L |")
        print("|---|---|---|")
        for name, measure in measures.items():
            cells = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*measure[key]) for key in ("correlation", "over_rouge_l")]
            print(f"| {name} | {cells[0]} | {cells[1] if name != PEER else ''} |")
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="the folder of the correlation study")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args()
    rows, judgments = read(options.data)
    odd = [int(row["ID"]) % 2 == 1 for row in rows]
    tables = {
        "dialogues of odd numbers": table(rows, judgments, odd),
        "all dialogues": table(rows, judgments, [True] * len(rows)),
    }
    if options.json:
        print(json.dumps(tables))
        return
    for name, judgments_of in tables.items():
        show(judgments_of, f"{name} ({sum(odd) if 'odd' in name else len(rows)} summaries)")


if __name__ == "__main__":
    main()

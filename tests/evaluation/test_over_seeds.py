"""Runs that differ in their seed: which belong together, and the interval over items and seeds by hand."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from lora_med.adapters.store.card import Card, read_card
from lora_med.config.schema import Settings
from lora_med.evaluation.measures import changes, values
from lora_med.evaluation.report.evaluation_section import runs_table
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.statistics.over_seeds import over_seeds, same_recipe
from lora_med.metrics.significance import paired
from tests.evaluation.published import publish_random
from tests.evaluation.test_report import text_evaluation
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    home = tmp_path_factory.mktemp("seeds")
    settings = Settings.model_validate({"data": {"source": "custom"}}).model_dump(mode="json")
    publish_random(make_tiny("llama", home / "base"), "one", Path(home / "store"), settings=settings)
    return read_card(home / "store/one")


def changed(card: Card, section: str, **values: object) -> Card:
    return replace(card, settings={**card.settings, section: {**card.settings[section], **values}})


def test_only_the_seed_and_where_things_lie_may_differ(card: Card) -> None:
    cards = {
        "a": card,
        "b": changed(card, "train", seed=7),
        "c": changed(changed(card, "train", seed=8), "adapter", name="c"),
        "d": changed(card, "train", seed=9, learning_rate=1e-3),
        "e": changed(card, "lora", r=4),
        "f": replace(card, settings={}),
    }
    assert same_recipe(cards) == [("a", "b", "c")]


def three_runs() -> Evaluation:
    """The text evaluation with the adapter's nll moved by 0, 1 and -2 percent in three runs."""
    whole = text_evaluation()
    base, run = whole.subjects
    groups = [item.group for item in whole.items]
    subjects = [base]
    for name, factor in (("a", 1.0), ("b", 1.01), ("c", 0.98)):
        table = run.table * [factor, 1, 1]
        subjects.append(
            replace(
                run,
                adapter=name,
                table=table,
                values=values(whole.measures, table, groups, samples=100, seed=1),
                changes=changes(whole.measures, base.table, table, groups, samples=100, seed=1),
            )
        )
    return replace(whole, subjects=tuple(subjects), recipes=(("a", "b", "c"),))


def test_the_interval_is_students_over_items_and_seeds() -> None:
    whole = three_runs()
    found = over_seeds(whole, ("a", "b", "c"))
    gains = [whole.subjects[place].changes["bits_per_byte"].difference for place in (1, 2, 3)]
    assert found.mean == pytest.approx(sum(gains) / 3)
    assert found.spread == pytest.approx(statistics.stdev(gains))
    assert (found.lowest, found.highest) == (min(gains), max(gains))
    # The mean of the three runs is one run with the mean of their factors.
    tables = np.hstack([whole.subjects[0].table, whole.subjects[1].table * [2.99 / 3, 1, 1]])
    bits = whole.verdict_by.of_sums
    groups = [item.group for item in whole.items]
    error = paired(tables, groups, lambda sums: bits(sums[..., 3:]) - bits(sums[..., :3]), samples=500, seed=1).error
    assert error is not None
    items, seeds = error**2, statistics.variance(gains) / 3
    freedom = (items + seeds) ** 2 / (items**2 / 59 + seeds**2 / 2)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(items + seeds)
    assert found.interval.low == pytest.approx(found.mean - half)
    assert found.interval.high == pytest.approx(found.mean + half)
    assert found.verdict == "better"


def test_runs_are_in_report_and_page(tmp_path: Path) -> None:
    whole = three_runs()
    report = write_report([whole], tmp_path, title="runs")
    (runs,) = report.content["evaluations"][0]["runs"]
    assert runs["adapters"] == ["a", "b", "c"] and runs["low"] < runs["mean"] < runs["high"] < 0
    assert "a, b, c" in report.html.read_text()
    assert len(runs_table(whole).rows) == 1

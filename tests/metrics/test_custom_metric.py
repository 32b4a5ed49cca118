"""Metrics of the user's own: found, called on resamples of groups, and refused where they give no numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lora_med.errors import DataError, SettingsError
from lora_med.metrics.custom_metric import load_metric, score_custom

TRUTH = [str(number % 3) for number in range(60)]
GROUPS = [number // 2 for number in range(60)]


def right(predictions: list[str], references: list[str]) -> dict[str, float]:
    hits = sum(a == b for a, b in zip(predictions, references, strict=True))
    return {"right": hits / len(references), "wrong": 1 - hits / len(references)}


def test_a_function_beside_the_user_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_the_test.py").write_text("def length(predictions, references):\n    return {'n': 1}\n")
    monkeypatch.chdir(tmp_path)
    assert load_metric("mine_of_the_test:length")([], []) == {"n": 1}
    with pytest.raises(SettingsError, match="has no function 'width'"):
        load_metric("mine_of_the_test:width")


@pytest.mark.parametrize("spec", ["nowhere_at_all:score", "json", "json:", ":dumps", "../x:y", "os;x:y"])
def test_what_names_no_function_is_refused(spec: str) -> None:
    with pytest.raises(SettingsError):
        load_metric(spec)


def test_intervals_and_verdicts_follow_the_direction() -> None:
    base = ["0"] * 60
    better = [truth if number % 10 else "none" for number, truth in enumerate(TRUTH)]
    first, second = score_custom(right, [base, better], TRUTH, GROUPS, lower_is_better=["wrong"], seed=1)
    assert first["right"].value == pytest.approx(1 / 3) and first["right"].verdict is None
    assert second["right"].value == 0.9
    assert second["right"].difference == pytest.approx(0.9 - 1 / 3)
    assert (second["right"].verdict, second["wrong"].verdict) == ("better", "better")
    (_, turned) = score_custom(right, [base, better], TRUTH, GROUPS, seed=1)
    assert turned["wrong"].verdict == "worse"


def test_the_interval_of_a_mean_is_that_of_its_groups() -> None:
    draw = np.random.default_rng(2)
    predictions = [TRUTH[n] if draw.random() < 0.7 else "none" for n in range(60)]
    (found,) = score_custom(right, [predictions], TRUTH, list(range(60)), samples=4000)
    share = found["right"].value
    half = 1.96 * np.sqrt(share * (1 - share) / 60)
    interval = found["right"].interval
    assert interval.low == pytest.approx(share - half, abs=0.02)
    assert interval.high == pytest.approx(share + half, abs=0.02)


def test_one_group_has_no_interval() -> None:
    (found,) = score_custom(right, [TRUTH], TRUTH, ["one"] * 60)
    assert found["right"].interval.low is None


def test_a_stranger_in_the_resamples_is_refused() -> None:
    calls = []

    def changing(predictions: list[str], references: list[str]) -> dict[str, float]:
        calls.append(1)
        return {"a" if len(calls) == 1 else "b": 1.0}

    with pytest.raises(DataError, match="the same names"):
        score_custom(changing, [TRUTH], TRUTH, GROUPS)


@pytest.mark.parametrize(
    "metric",
    [lambda a, b: 0.5, lambda a, b: {}, lambda a, b: {"x": "much"}, lambda a, b: {"x": float("nan")}],
)
def test_what_is_no_dict_of_numbers_is_refused(metric: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(DataError):
        score_custom(metric, [TRUTH], TRUTH, GROUPS)

"""What held-out pairs say of an adapter: by hand, over groups, and with a warning where it wins by saying less."""

from __future__ import annotations

import logging
import math

import pytest

from lora_med.training.preference_scores import (
    HeldOutPairs,
    _log_lengths,
    compare_rewards,
    coverage,
    log_ratios,
    share_interval,
    shortened,
)

GROUPS = [f"g{number}" for number in range(12)]
WINS = [1.0, 0.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.5]


def test_a_tie_counts_half_and_only_an_interval_above_a_half_is_better() -> None:
    none = compare_rewards([0.0] * 12, GROUPS, samples=200)
    assert (none["preference_accuracy"], none["ties"], none["verdict"]) == (0.5, 12, "cannot tell")
    mixed = compare_rewards([0.0, 0.0, 2.0, -1.0], GROUPS[:4], samples=200)
    assert (mixed["preference_accuracy"], mixed["ties"], mixed["reward_margin"]) == (0.5, 2, 0.25)
    assert compare_rewards([0.1] * 12, GROUPS, samples=200)["verdict"] == "better"
    assert compare_rewards([-0.1] * 12, GROUPS, samples=200)["verdict"] == "worse"


def test_where_all_pairs_agree_the_interval_is_wilsons_over_groups() -> None:
    """12 of 12 groups: 12 / (12 + 1.95996**2) = 0.7575; a pair more in a group adds nothing."""
    interval = share_interval([1.0] * 24, GROUPS * 2, samples=200)
    assert (interval.low, interval.high) == (pytest.approx(0.7575, abs=1e-4), 1.0)
    assert interval.method == "Wilson"
    assert share_interval([0.0] * 12, GROUPS, samples=200).high == pytest.approx(1 - 0.7575, abs=1e-4)


def test_pairs_of_one_prompt_do_not_narrow_the_interval() -> None:
    once = share_interval(WINS, GROUPS, samples=500)
    assert share_interval(WINS * 3, GROUPS * 3, samples=500) == once
    assert once.low is not None and once.high is not None
    assert 0 <= once.low < 0.75 < once.high <= 1


HALF, LITTLE = math.log(0.5), math.log(0.95)
HALVED = [HALF + 0.01 * number for number in range(12)]


@pytest.mark.parametrize(
    ("changes", "against_chosen", "explained", "flagged"),
    [
        (HALVED, HALVED, [0.3], True),
        (HALVED, HALVED, [LITTLE], True),
        (HALVED, HALVED, [2 * HALF], False),  # the chosen answers are shorter still
        (HALVED, [0.0, 0.1] * 6, [0.3], False),  # as long as the chosen ones: the reference wrote without an end
        ([HALF, -HALF] * 6, HALVED, [0.0], False),  # cannot be told from no change
    ],
)
def test_shorter_answers_are_told_from_what_the_pairs_explain(
    changes: list[float], against_chosen: list[float], explained: list[float], flagged: bool
) -> None:
    result = shortened(changes, GROUPS, against_chosen=against_chosen, explained=explained, samples=200)
    assert result["shorter_than_explained"] == flagged
    assert result["explained"] == pytest.approx(min(0.0, explained[0]), abs=1e-4)  # longer ones explain nothing


def test_one_group_has_no_interval_and_gives_no_warning() -> None:
    result = shortened([HALF], ["one"], against_chosen=[HALF], explained=[0.0], samples=200)
    assert not result["shorter_than_explained"] and result["change_interval"] is None


def test_lengths_and_coverage_by_hand() -> None:
    assert log_ratios(["one two three"], ["one"]) == [math.log(4 / 2)]
    assert coverage("Aspirin and warfarin for fever", "He takes aspirin.") == pytest.approx(1 / 3)
    assert coverage("of the", "anything") == 1.0


def test_the_warning_names_both_lengths(caplog: pytest.LogCaptureFixture) -> None:
    described = {"words": 8.0, "coverage": 0.5}
    result = {**dict.fromkeys(("before", "after", "chosen", "rejected"), described), "answers": 3}
    with caplog.at_level(logging.WARNING):
        _log_lengths(result | {"change": math.log(0.5), "explained": 0.0, "shorter_than_explained": False})
        assert not caplog.records
        _log_lengths(result | {"change": math.log(0.5), "explained": 0.0, "shorter_than_explained": True})
    assert "got shorter (-50%) by more than the pairs explain (+0%)" in caplog.text


def test_no_pairs_are_no_held_out_pairs() -> None:
    assert HeldOutPairs.of([]).longest == 0

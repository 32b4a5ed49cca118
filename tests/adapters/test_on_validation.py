"""How an adapter's card, README and row in the list say what validation showed beside step 0."""

from __future__ import annotations

import pytest

from lora_med.adapters.store.on_validation import OnValidation, compare_losses


@pytest.mark.parametrize(
    ("comparison", "sentence"),
    [
        (
            OnValidation("eval_loss", 3.15278, 10.0, "worse"),
            "on validation it is worse than its base: 10.00 against 3.15",
        ),
        (
            OnValidation("eval_loss", 3.15278, 3.15101, "better"),
            "on validation it is better than its base: 3.1510 against 3.1528",
        ),
        (
            OnValidation("eval_accuracy", 0.54, 0.5, "cannot tell", (-0.12, 0.04), 50),
            "on validation it cannot be told from its base: accuracy 0.50 against 0.54 (95% of the difference -0.12 "
            "to +0.04, 50 items)",
        ),
    ],
)
def test_the_sentence_names_both_values(comparison: OnValidation, sentence: str) -> None:
    assert comparison.sentence() == sentence


def test_an_adapter_that_continues_another_is_compared_with_that_one() -> None:
    sentence = OnValidation("eval_loss", 2.0, 1.0, "better").sentence("notes")
    assert sentence == "on validation it is better than the adapter notes that it continues: 1.00 against 2.00"


def test_a_card_gives_back_what_was_put_in() -> None:
    for comparison in (
        OnValidation("eval_loss", 2.0, 1.0, "better"),
        OnValidation("eval_accuracy", 0.5, 0.4, "cannot tell", (-0.2, 0.1), 50),
    ):
        chosen = {comparison.metric: comparison.value, "step": 3, **comparison.as_json()}
        if comparison.items is not None:
            chosen["items"] = comparison.items
        assert OnValidation.of({"validation": chosen}) == comparison


@pytest.mark.parametrize("scores", [{}, {"validation": {"eval_loss": 2.0, "step": 3}}, {"f1": 0.5}])
def test_a_card_without_the_value_at_step_0_gives_no_verdict(scores: dict[str, object]) -> None:
    assert OnValidation.of(scores) is None


def test_the_lower_loss_is_better_and_equal_ones_cannot_be_told_apart() -> None:
    assert [compare_losses(2.0, value) for value in (1.9, 2.1, 2.0)] == ["better", "worse", "cannot tell"]

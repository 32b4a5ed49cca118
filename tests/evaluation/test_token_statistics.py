"""One pass over rows against PyTorch's own distribution of the logits, and the attacks' scores worked out from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lora_med.evaluation.likelihood.log_probabilities import ScoredRow, log_probabilities
from lora_med.evaluation.likelihood.token_statistics import token_statistics
from lora_med.models.generation import greedy
from lora_med.workflows.memorization.scored_rows import PatientRow, PatientRows, membership_items, run_passes
from tests.tiny import make_model, make_tokenizer

IDS = ((1, 50, 60, 70, 80, 90, 51), (1, 99, 98, 97))


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("llama")


def rows() -> list[ScoredRow]:
    return [ScoredRow(ids, tuple(range(len(ids) - 1)), ids[1:]) for ids in IDS]


def distribution(model: Any, ids: tuple[int, ...]) -> torch.distributions.Categorical:
    with torch.no_grad():
        return torch.distributions.Categorical(logits=model(input_ids=torch.tensor([ids])).logits[0, :-1].double())


def test_the_statistics_are_those_of_the_predicted_distribution(model: Any) -> None:
    for ids, found in zip(IDS, token_statistics(model, rows()), strict=True):
        predicted = distribution(model, ids)
        logs = predicted.logits  # normalized
        own = predicted.log_prob(torch.tensor(ids[1:]))
        assert found.log_probabilities == pytest.approx(own.numpy(), abs=1e-5)
        assert found.means == pytest.approx(-predicted.entropy().numpy(), abs=1e-5)
        spread = (predicted.probs * logs.square()).sum(1) - predicted.entropy().square()
        assert found.deviations == pytest.approx(spread.sqrt().numpy(), abs=1e-5)
        assert found.is_first.tolist() == (logs.argmax(1) == torch.tensor(ids[1:])).tolist()


def test_the_log_probabilities_are_those_that_scoring_gives(model: Any) -> None:
    for found, scored in zip(token_statistics(model, rows()), log_probabilities(model, rows()), strict=True):
        assert (found.log_probabilities == scored).all()


def test_first_choices_in_one_pass_are_what_the_model_writes(model: Any) -> None:
    """A text that the model wrote greedily has the right first choice at each position; another one has not."""
    tokenizer = make_tokenizer()
    (written,) = greedy(model, tokenizer, [[1, 50, 60]], max_new_tokens=20)
    ids = (1, 50, 60, *written)
    row = ScoredRow(ids, tuple(range(2, len(ids) - 1)), ids[3:])
    assert len(written) >= 5
    assert token_statistics(model, [row])[0].is_first.all()
    other = (*ids[:6], ids[6] + 1, *ids[7:])
    assert not token_statistics(model, [ScoredRow(other, row.positions, other[3:])])[0].is_first.all()


def test_the_scores_of_a_patient_are_over_all_tokens_of_its_rows(model: Any) -> None:
    other = make_model("llama", seed=5)
    parts = tuple(PatientRow(f"u{n}", ids, tuple(range(1, len(ids))), 0, 0) for n, ids in enumerate(IDS))
    patients = [PatientRows("p", "words", parts)]
    items = membership_items(
        patients, run_passes(model, patients), run_passes(other, patients), is_member=[True], repeats=[1]
    )
    own, before = (
        np.concatenate([distribution(each, ids).log_prob(torch.tensor(ids[1:])).numpy() for ids in IDS])
        for each in (model, other)
    )
    assert items.scores["loss"][0] == pytest.approx(own.mean(), abs=1e-5)
    assert items.scores["reference_loss"][0] == pytest.approx((own - before).mean(), abs=1e-5)
    normalized = []
    for ids in IDS:
        predicted = distribution(model, ids)
        mean = (predicted.probs * predicted.logits).sum(1)
        spread = (predicted.probs * (predicted.logits - mean[:, None]).square()).sum(1).sqrt()
        normalized += ((predicted.log_prob(torch.tensor(ids[1:])) - mean) / spread).tolist()
    lowest = sorted(normalized)[:2]  # a fifth of nine tokens, rounded
    assert items.scores["min_k_plus_plus"][0] == pytest.approx(np.mean(lowest), abs=1e-4)

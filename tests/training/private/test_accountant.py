"""What a private run spends: against the formula of its paper, and against another accountant of Opacus."""

from __future__ import annotations

import importlib.util
import math

import pytest

from lora_med.config.parse import parse
from lora_med.config.privacy_settings import PrivacySettings
from lora_med.errors import DependencyMissingError, SettingsError
from lora_med.training.private.accountant import Mechanism, choose_noise, planned_privacy, spending_lines, spent
from lora_med.training.private.private_run import check_private

INSTALLED = importlib.util.find_spec("opacus") is not None
needs_opacus = pytest.mark.skipif(not INSTALLED, reason="opacus is not installed")
CASES = [(10_000, 100, 1.0, 1000, 1e-6), (1000, 8, 0.8, 500, 1e-4), (592, 16, 2.0, 370, 1e-4), (50, 50, 5.0, 20, 1e-3)]


def by_the_paper(rate: float, noise: float, steps: int, delta: float) -> float:
    """Mironov, Talwar and Zhang (2019), section 3.3, at whole orders; to (epsilon, delta) by Balle et al. (2020)."""
    best = math.inf
    for order in range(2, 64):
        terms = [
            math.log(math.comb(order, k))
            + (k * math.log(rate) if k else 0.0)
            + ((order - k) * math.log1p(-rate) if order > k else 0.0)
            + (k * k - k) / (2 * noise**2)
            for k in range(order + 1)
            if rate < 1 or k == order
        ]
        largest = max(terms)
        moment = largest + math.log(sum(math.exp(term - largest) for term in terms))
        renyi = steps * moment / (order - 1)
        best = min(best, renyi + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1))
    return best


@needs_opacus
@pytest.mark.parametrize(("patients", "expected", "noise", "steps", "delta"), CASES)
def test_epsilon_is_that_of_the_formula(patients: int, expected: int, noise: float, steps: int, delta: float) -> None:
    from opacus.accountants import RDPAccountant

    formula = by_the_paper(expected / patients, noise, steps, delta)
    accountant = RDPAccountant()
    accountant.history = [(noise, expected / patients, steps)]
    assert accountant.get_epsilon(delta, alphas=list(range(2, 64))) == pytest.approx(formula, rel=1e-9)
    # By default the accountant also tries orders that are no whole numbers.
    assert 0.95 * formula < Mechanism(patients, expected, noise).epsilon(steps, delta) <= formula * (1 + 1e-9)


@needs_opacus
def test_another_accountant_finds_less_and_not_much_less() -> None:
    from opacus.accountants import PRVAccountant

    for patients, expected, noise, steps, delta in CASES[:3]:
        accountant = PRVAccountant()
        accountant.history = [(noise, expected / patients, steps)]
        tight = accountant.get_epsilon(delta, eps_error=0.02, delta_error=delta / 100)
        upper = Mechanism(patients, expected, noise).epsilon(steps, delta)
        assert 0.7 * upper < tight <= upper + 0.02


@needs_opacus
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_the_noise_spends_the_budget_and_no_more(epsilon: float) -> None:
    privacy = PrivacySettings(epsilon=epsilon, delta=1e-5)
    mechanism = choose_noise(privacy, patients=5000, expected=64, steps=400)
    assert 0.995 * epsilon < mechanism.epsilon(400, 1e-5) <= epsilon
    assert mechanism.epsilon(200, 1e-5) < mechanism.epsilon(400, 1e-5)
    assert mechanism.epsilon(0, 1e-5) == 0.0


@needs_opacus
def test_what_cannot_be_is_refused_with_its_numbers() -> None:
    tight = PrivacySettings(epsilon=0.01, delta=1e-6)
    with pytest.raises(
        SettingsError, match=r"epsilon 0.01 at delta 1e-06 cannot be reached in 100 steps of 10 of 100.* 0.14 can"
    ):
        choose_noise(tight, patients=100, expected=10, steps=100)
    with pytest.raises(SettingsError, match="a step would take 200 patients, and the training data have 100"):
        choose_noise(PrivacySettings(epsilon=1), patients=100, expected=200, steps=100)
    with pytest.raises(SettingsError, match="may fail for one of 100 patients") as raised:
        choose_noise(PrivacySettings(epsilon=1, delta=0.01), patients=100, expected=10, steps=100)
    assert raised.value.fix == "below 1.0e-02, such as 1e-03"


@needs_opacus
def test_the_facts_of_a_run_name_the_accountant_and_the_unit() -> None:
    facts = spent(Mechanism(1000, 10, 1.1), PrivacySettings(epsilon=2, delta=1e-4), 250)
    assert facts["accountant"].startswith("rdp, opacus 1.")
    assert (facts["unit"], facts["patients"], facts["sampling_rate"]) == ("patient", 1000, 0.01)
    assert (facts["steps"], facts["noise_multiplier"], facts["clip"]) == (250, 1.1, 0.1)
    assert facts["epsilon"] == Mechanism(1000, 10, 1.1).epsilon(250, 1e-4)


@needs_opacus
def test_a_plan_says_the_noise_or_that_it_is_not_known() -> None:
    train = parse(None, ["train.privacy.epsilon=3", "train.privacy.delta=1e-4"]).train
    (planned,) = planned_privacy(train, 1000, 300).values()
    assert planned["epsilon"] <= 3 and planned["patients_a_step"] == 4
    assert f"noise multiplier {planned['noise_multiplier']:.3f}; 4 of 1,000" in spending_lines(planned)[0]
    assert planned_privacy(train, None, 300) == {"privacy": None}
    assert "not known" in spending_lines(None)[0]
    assert planned_privacy(parse(None).train, 1000, 300) == {}


@pytest.mark.skipif(INSTALLED, reason="opacus is installed")
def test_without_opacus_the_fix_is_named() -> None:
    with pytest.raises(DependencyMissingError) as raised:
        check_private(parse(None, ["train.privacy.epsilon=3"]))
    assert raised.value.exit_code == 69 and raised.value.fix == 'pip install "lora-med[privacy]"'

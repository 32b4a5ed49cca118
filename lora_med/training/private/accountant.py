"""What a private run spends: epsilon as a function of the sampling rate, the noise, and the number of steps.

Each step is a sampled Gaussian mechanism: every patient takes part with the same probability, independently of the
others. Opacus' accountant composes the steps by Renyi differential privacy (Mironov, Talwar, Zhang 2019), which gives
an upper bound. Two data sets are neighbors if one has a patient, with all rows, that the other lacks.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lora_med.config.privacy_settings import PrivacySettings
from lora_med.config.schema import TrainSettings
from lora_med.errors import DependencyMissingError, SettingsError

ACCOUNTANT = "rdp"
NEIGHBORS = "one patient added or removed, with all rows"
TOLERANCE = 1e-3  # of epsilon, relative, in the search for the noise
MOST_NOISE = 6e5  # multiples of the clip; Opacus searches up to about so much


def require_opacus() -> None:
    """Raise DependencyMissingError if Opacus is not installed."""
    if importlib.util.find_spec("opacus") is None:
        raise DependencyMissingError(
            "train.privacy is set, and the package opacus is not installed", fix='pip install "lora-med[privacy]"'
        )


@dataclass(frozen=True)
class Mechanism:
    """The step of a private run. Its noise has the standard deviation `noise_multiplier` times the clip.

    `expected` is the number of patients that take part in a step on average, of `patients` in all.
    """

    patients: int
    expected: int
    noise_multiplier: float

    @property
    def rate(self) -> float:
        """The probability with which a patient takes part in a step."""
        return self.expected / self.patients

    def epsilon(self, steps: int, delta: float) -> float:
        """What so many steps spend at this delta; 0 for none."""
        from opacus.accountants import RDPAccountant

        if not steps:
            return 0.0
        accountant = RDPAccountant()
        accountant.history = [(self.noise_multiplier, self.rate, steps)]
        with _without_advice():
            return max(float(accountant.get_epsilon(delta=delta)), 0.0)


def choose_noise(privacy: PrivacySettings, *, patients: int, expected: int, steps: int) -> Mechanism:
    """The mechanism with the least noise that spends at most `privacy.epsilon` in so many steps.

    Args:
        patients: who are in the training data.
        expected: of them, how many take part in a step on average.

    Raises:
        SettingsError: there are fewer patients than a step takes; delta is not below one over their number; or no noise
            is enough.
        DependencyMissingError: Opacus is not installed.
    """
    require_opacus()
    if expected > patients:
        raise SettingsError(
            f"a step would take {expected:,} patients, and the training data have {patients:,}",
            where="train.per_device_train_batch_size, train.gradient_accumulation_steps",
            fix=f"together at most {patients:,}; far fewer make privacy cheaper",
        )
    if privacy.delta * patients >= 1:
        raise SettingsError(
            f"with delta {privacy.delta:g} the promise may fail for one of {patients:,} patients",
            where="train.privacy.delta",
            fix=f"below {1 / patients:.1e}, such as {0.1 / patients:.0e}",
        )
    least = Mechanism(patients, expected, MOST_NOISE).epsilon(steps, privacy.delta)
    if least > privacy.epsilon:
        raise SettingsError(
            f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} cannot be reached in {steps:,} steps of "
            f"{expected:,} of {patients:,} patients: whatever the noise, no less than {least:.3g} can be proved",
            where="train.privacy.epsilon",
            fix=f"at least {1.05 * least:.2g}, or a larger delta",
        )
    return Mechanism(patients, expected, _least_noise(privacy.epsilon, privacy.delta, expected / patients, steps))


@functools.lru_cache
def _least_noise(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The search takes up to some seconds."""
    from opacus.accountants.utils import get_noise_multiplier

    with _without_advice():
        noise = get_noise_multiplier(
            target_epsilon=epsilon,
            target_delta=delta,
            sample_rate=rate,
            steps=steps,
            accountant=ACCOUNTANT,
            epsilon_tolerance=TOLERANCE * epsilon,
        )
    return float(noise)


def spent(mechanism: Mechanism, privacy: PrivacySettings, steps: int) -> dict[str, Any]:
    """What a run of so many steps has spent, and how that is known, as JSON values for card.json and run.json."""
    return {
        "epsilon": mechanism.epsilon(steps, privacy.delta),
        "delta": privacy.delta,
        "target_epsilon": privacy.epsilon,
        "unit": privacy.unit,
        "patients": mechanism.patients,
        "patients_a_step": mechanism.expected,
        "sampling_rate": mechanism.rate,
        "noise_multiplier": mechanism.noise_multiplier,
        "clip": privacy.clip,
        "steps": steps,
        "accountant": f"{ACCOUNTANT}, opacus {importlib.metadata.version('opacus')}",
        "neighbors": NEIGHBORS,
    }


def planned_privacy(train: TrainSettings, patients: int | None, steps: int | None) -> dict[str, Any]:
    """`privacy`: what a run with these settings will spend, None where patients or steps are not known.

    Without `train.privacy` an empty dict.

    Raises:
        SettingsError, DependencyMissingError: as `choose_noise`.
    """
    if train.privacy is None:
        return {}
    if patients is None or steps is None:
        return {"privacy": None}
    expected = train.per_device_train_batch_size * train.gradient_accumulation_steps
    mechanism = choose_noise(train.privacy, patients=patients, expected=expected, steps=steps)
    return {"privacy": spent(mechanism, train.privacy, steps)}


def spending_lines(spending: dict[str, Any] | None) -> list[str]:
    """What `planned_privacy` found, as lines of `lora-med plan`."""
    if spending is None:
        return ["privacy      not known without the data and the number of steps"]
    return [
        f"privacy      noise multiplier {spending['noise_multiplier']:.3f}; {spending['patients_a_step']:,} of "
        f"{spending['patients']:,} patients in a step on average",
        f"             {spending['steps']:,} steps spend epsilon {spending['epsilon']:.3f} at delta "
        f"{spending['delta']:g}",
    ]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without the accountant's advice to try other orders: its bound holds for those that it tried."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is")
        yield

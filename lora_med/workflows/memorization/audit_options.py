"""What an audit is asked to do, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_med.audit.memorization.canaries import REPEATS
from lora_med.errors import SettingsError
from lora_med.workflows.memorization.base_notes import WRITERS

CANARIES = 1300  # half in, half out, half of each read: 325 outsiders, enough to speak of 1% of false alarms
PATIENTS = 1000
LEAST_CANARIES, MOST_CANARIES, MOST_REPEATS = 100, 99_999, 99
MOST_EPSILON, MOST_EXTRACTED, OTHERS = 3.0, 0, 3


@dataclass(frozen=True)
class AuditOptions:
    """`out` is the folder of the audit; `data`, `overrides`, `base` and `revision` say where the run's inputs are now.

    `canaries` are drawn for the twin, `patients` at most of each side of the data. `others` patients make a text a
    template. A number that is several times in `repeats` is that much more frequent. The bound is `most_epsilon` and
    `most_extracted`; `delta` is that of the epsilon.
    """

    out: Path
    store: Path = Path("adapters")
    data: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    base: str | None = None
    revision: str | None = None
    twin: bool = True
    canaries: int = CANARIES
    repeats: tuple[int, ...] = REPEATS
    writer: str = "notes"
    patients: int = PATIENTS
    others: int = OTHERS
    most_epsilon: float = MOST_EPSILON
    most_extracted: int = MOST_EXTRACTED
    delta: float = 0.0
    seed: int = 42

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            SettingsError: a value is impossible; the message names it.
        """
        wrong = {
            "--canaries": (
                LEAST_CANARIES <= self.canaries <= MOST_CANARIES,
                f"{self.canaries}, and {LEAST_CANARIES} to {MOST_CANARIES} are possible",
            ),
            "--repeats": (
                bool(self.repeats) and min(self.repeats) >= 1 and max(self.repeats) <= MOST_REPEATS,
                f"{','.join(map(str, self.repeats)) or 'nothing'}, and numbers from 1 to {MOST_REPEATS} are possible",
            ),
            "--writer": (self.writer in WRITERS, f"{self.writer!r}, and {' or '.join(WRITERS)} are possible"),
            "--patients": (self.patients >= 1, f"{self.patients}, and 1 or more are possible"),
            "--template-patients": (self.others >= 1, f"{self.others}, and 1 or more are possible"),
            "--most-epsilon": (self.most_epsilon >= 0, f"{self.most_epsilon}, and 0 or more are possible"),
            "--most-extracted": (self.most_extracted >= 0, f"{self.most_extracted}, and 0 or more are possible"),
            "--delta": (0 <= self.delta < 1, f"{self.delta}, and 0 or more, under 1, are possible"),
            "--seed": (0 <= self.seed < 1 << 32, f"{self.seed}, and 0 to 4294967295 are possible"),
        }
        for option, (is_right, what) in wrong.items():
            if not is_right:
                raise SettingsError(f"{option} is {what}", where=option, fix="lora-med audit memorization --help")

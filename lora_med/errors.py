"""Every error lora_med raises on purpose, and the exit code each one becomes.

    LoraMedError                     70  internal: a bug in lora_med
    |-- SettingsError                 2  a setting or an argument is wrong
    |   `-- UsageError                2  the command line does not have the form of its command
    |-- DataError                    65  a file does not hold what its format promises
    |   `-- PreflightError           65  the data would train something unintended
    |-- InputMissingError            66  a file, adapter or model that was named is not there
    |-- DependencyMissingError       69  an optional package is not installed
    |-- OutputError                  73  the output cannot be created, is not empty, or is locked
    |-- DiskError                    74  disk full, or an input/output error
    |-- StoppedError                 75  stopped on request; the same command resumes
    |-- IntegrityError               76  a hash is wrong or a file is torn
    |   |-- BaseMismatchError        76  an adapter and a base it was not trained on
    |   `-- DisagreementError        76  the processes of one run would train different runs
    |-- NotPermittedError            77  the license or access class forbids it
    `-- DivergedError                78  training met a loss or gradient that is not finite
        `-- WorseThanBaseError       78  on validation, the adapter is worse than where its training began

Each message has three parts: what was wrong with the value, `where` it is, and `fix`, the command or change that helps.
No message may contain text from a clinical source: uids, offsets and counts only.
"""

from __future__ import annotations

import traceback


class LoraMedError(Exception):
    """An error with its location, its fix and its exit code; `str()` gives all three lines."""

    exit_code = 70
    name = "internal"

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    @property
    def code(self) -> str:
        """The stable identifier shown to users, such as `E076-base-mismatch`."""
        return f"E{self.exit_code:03d}-{self.name}"

    def as_json(self) -> dict[str, str | int | None]:
        """The error as a command prints it under --json."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "fix": self.fix,
            "exit_code": self.exit_code,
        }

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.what}"]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[LoraMedError], what: str, where: str | None, fix: str | None) -> LoraMedError:
    return kind(what, where=where, fix=fix)


class SettingsError(LoraMedError):
    exit_code = 2
    name = "settings"


class UsageError(SettingsError):
    name = "usage"

    def __init__(self, what: str, *, where: str | None = "the command line", fix: str | None = None) -> None:
        super().__init__(what, where=where, fix=fix)


class DataError(LoraMedError):
    exit_code = 65
    name = "data"


class PreflightError(DataError):
    name = "preflight"


class InputMissingError(LoraMedError):
    exit_code = 66
    name = "input-missing"


class DependencyMissingError(LoraMedError):
    exit_code = 69
    name = "dependency-missing"


class OutputError(LoraMedError):
    exit_code = 73
    name = "output"


class DiskError(LoraMedError):
    exit_code = 74
    name = "disk"


class StoppedError(LoraMedError):
    exit_code = 75
    name = "stopped"


class IntegrityError(LoraMedError):
    exit_code = 76
    name = "integrity"


class BaseMismatchError(IntegrityError):
    name = "base-mismatch"


class DisagreementError(IntegrityError):
    name = "disagreement"


class NotPermittedError(LoraMedError):
    exit_code = 77
    name = "not-permitted"


class DivergedError(LoraMedError):
    exit_code = 78
    name = "diverged"


class WorseThanBaseError(DivergedError):
    name = "worse-than-base"


def bug(error: Exception) -> LoraMedError:
    """An unexpected exception as an error of ours: its class and line, without its message, which may quote data."""
    frames = traceback.extract_tb(error.__traceback__)
    return LoraMedError(
        f"a bug in lora_med: {type(error).__name__}",
        where=f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else None,
        fix="run it again with --debug and report the traceback",
    )

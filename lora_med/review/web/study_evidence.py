"""Studies of blind rating on the evidence pages: the verdict once there is one, before that only how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lora_med.errors import IntegrityError
from lora_med.files import read_json
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import SEALED, Study, open_study
from lora_med.review.verdict.study_result import VERDICT
from lora_med.review.verdict.study_verdict import SCHEMA


@dataclass(frozen=True)
class StudyEvidence:
    """A study, opened; its state is read anew for each page."""

    study: Study

    @property
    def access(self) -> str:
        """The access class of what is rated."""
        return str(self.study.plan["access"])

    @property
    def sealed(self) -> str:
        """The hash of its sealed sides, by which a report names it."""
        return str(self.study.plan["sha256"][SEALED])

    @property
    def title(self) -> str:
        """Who is rated against whom."""
        return f"Blind rating: {self.study.adapter} against {self.study.other}"

    def sentences(self) -> list[str]:
        """The verdict's sentences, or the progress of a sealed study.

        Raises:
            IntegrityError: verdict.json is not what `lora-med review verdict` writes.
        """
        path = self.study.folder / VERDICT
        if not path.is_file():
            stored, planned = len(RatingLog(self.study).current()), len(self.study.assignments)
            return [f"No verdict yet: {stored:,} of {planned:,} ratings are stored."]
        content = read_json(path)
        sentences = content.get("sentences") if isinstance(content, dict) else None
        if not isinstance(sentences, list) or content.get("schema") != SCHEMA:
            raise IntegrityError("not a verdict", where=str(path), fix="lora-med review verdict STUDY")
        return [str(each) for each in sentences]


def load_study(folder: Path) -> StudyEvidence:
    """The study in a folder.

    Raises:
        InputMissingError, IntegrityError: as `open_study`; or verdict.json is damaged.
    """
    evidence = StudyEvidence(open_study(folder))
    evidence.sentences()
    return evidence

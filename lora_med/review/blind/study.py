"""A study of blind rating as a folder: the plan, the sealed sides, the texts, the raters, the log of events.

| file | holds | who may read it |
|---|---|---|
| plan.json | what is rated, counts, hashes; no sides | anyone |
| sealed.json | the secret seed; for each assignment its item and the adapter's side | the owner |
| texts.jsonl | prompt and both answers of each item, as shown | the owner |
| raters.json | pseudonyms and their tokens | the owner |
| ratings.jsonl | one line a rating, appended (rating_log.py) | the owner |
| events.jsonl | planned, unsealed: appended | the owner |

plan.json holds the SHA-256 of sealed.json and texts.jsonl, so that neither can change after the plan was drawn.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.files import read_json, readable, sha256_file

SCHEMA = "lora_med.blind_study/1"
PLAN, SEALED, TEXTS, RATERS = "plan.json", "sealed.json", "texts.jsonl", "raters.json"
RATINGS, EVENTS = "ratings.jsonl", "events.jsonl"
Kind = Literal["first", "second", "repeat"]
Side = Literal["a", "b"]


@dataclass(frozen=True)
class Assignment:
    """One page of one rater: which item, on which side the adapter's answer is, and why the item is shown.

    `first` is the rating that counts, `second` the same item by another rater, `repeat` the same item by the same
    rater again with the sides exchanged.
    """

    id: str
    rater: str
    position: int
    item: int
    adapter_side: Side
    kind: Kind


@dataclass(frozen=True)
class StudyItem:
    """An item as raters see it: prompt, reference-free, and the two answers; sizes count words of the answers."""

    uid: str
    group: str
    stratum: str
    prompt: str
    adapter_text: str = field(repr=False)
    other_text: str = field(repr=False)

    def as_json(self) -> dict[str, str]:
        """The line of texts.jsonl."""
        return asdict(self)


@dataclass(frozen=True)
class Study:
    """An opened study; its files agree with the hashes in the plan."""

    folder: Path
    plan: Mapping[str, Any] = field(repr=False)
    items: tuple[StudyItem, ...] = field(repr=False)
    assignments: tuple[Assignment, ...] = field(repr=False)
    tokens: Mapping[str, str] = field(repr=False)

    @property
    def adapter(self) -> str:
        """The adapter whose answers are rated."""
        return str(self.plan["adapter"])

    @property
    def other(self) -> str:
        """What it is rated against: `base` or another adapter."""
        return str(self.plan["against"])

    @cached_property
    def by_rater(self) -> dict[str, tuple[Assignment, ...]]:
        """Each rater's assignments in their order."""
        ordered = sorted(self.assignments, key=lambda each: each.position)
        return {rater: tuple(each for each in ordered if each.rater == rater) for rater in self.tokens}

    @cached_property
    def by_id(self) -> dict[str, Assignment]:
        """Each assignment by its identifier."""
        return {each.id: each for each in self.assignments}

    def rater_of(self, token: str) -> str | None:
        """The pseudonym that a token belongs to, compared in constant time; None if it is no token of the study."""
        given = token.encode("utf-8", "surrogatepass")
        matches = [rater for rater, known in self.tokens.items() if hmac.compare_digest(known.encode(), given)]
        return matches[0] if matches else None

    def texts(self, assignment: Assignment) -> tuple[str, str]:
        """The answers on side A and side B."""
        item = self.items[assignment.item]
        on_a, on_b = item.adapter_text, item.other_text
        return (on_a, on_b) if assignment.adapter_side == "a" else (on_b, on_a)


def open_study(folder: Path | str) -> Study:
    """The study in a folder that `lora-med review plan` wrote.

    Raises:
        InputMissingError: there is no study.
        IntegrityError: a file changed after the plan was drawn, or is not what it should be.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file():
        raise InputMissingError("there is no plan.json", where=str(folder), fix="lora-med review plan REPORT")
    plan = read_json(folder / PLAN)
    if not isinstance(plan, dict) or plan.get("schema") != SCHEMA:
        raise IntegrityError("not the plan of a blind study", where=str(folder / PLAN), fix="lora-med review plan")
    for name in (SEALED, TEXTS):
        with readable(folder / name):
            found = sha256_file(folder / name)
        if found != plan.get("sha256", {}).get(name):
            raise IntegrityError(
                f"{name} is not the file that the plan was drawn with (SHA-256 {found[:12]}…)",
                where=str(folder / name),
                fix="restore the file, or draw a new plan in another folder",
            )
    sealed = read_json(folder / SEALED)
    lines = (folder / TEXTS).read_text(encoding="utf-8").split("\n")
    items = tuple(StudyItem(**json.loads(line)) for line in lines if line)
    assignments = tuple(Assignment(**each) for each in sealed["assignments"])
    return Study(folder, plan, items, assignments, _tokens(folder / RATERS, assignments))


def _tokens(path: Path, assignments: tuple[Assignment, ...]) -> dict[str, str]:
    """The raters' tokens, in the order of the pseudonyms."""
    tokens = read_json(path)
    raters = dict.fromkeys(each.rater for each in assignments)
    is_complete = isinstance(tokens, dict) and all(isinstance(tokens.get(rater), str) for rater in raters)
    if not is_complete or len(set(tokens.values())) != len(tokens) or set(tokens) != set(raters):
        raise IntegrityError(
            f"the raters are not those of the plan: {', '.join(raters)}", where=str(path), fix="restore the file"
        )
    return tokens

"""Solved examples before a question, for k-shot prompts; worded and joined as lm-evaluation-harness does it.

The examples come from the training part and are the same for every question (of a subject, where the source tells
subjects), in the order of the file, so that prompts begin alike and the examples are run once for all.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lora_med.data.record import Question, Record
from lora_med.errors import DataError, SettingsError
from lora_med.prompts.render import fitting, render
from lora_med.prompts.row import Row
from lora_med.prompts.templates.templates import find_template

BETWEEN = "\n\n"


@dataclass(frozen=True)
class Shots:
    """Solved examples by subject; questions without a subject have theirs under an empty name."""

    by_subject: Mapping[str, tuple[Question, ...]]

    def before(self, record: Record) -> tuple[Question, ...]:
        """The examples to show before a record.

        Raises:
            DataError: the training part holds none of its subject, or one of them is the record itself or its sibling.
        """
        subject = _subject(record)
        if subject not in self.by_subject:
            raise DataError(
                f"record {record.uid}: the training part has no examples of its subject",
                fix="give the subject's training file too (of mmlu, <subject>_dev.csv), or no shots",
            )
        found = self.by_subject[subject]
        if any(record.uid == shot.uid or record.group == shot.group for shot in found):
            raise DataError(f"record {record.uid} is scored and shown as a solved example", fix="another split or seed")
        return found


def _subject(record: Record) -> str:
    return record.subject if isinstance(record, Question) else ""


def draw_shots(training: Iterable[Record], template: str, number: int, *, seed: int) -> Shots:
    """So many examples of each subject out of the training part, by seed; all of them if there are just so many.

    Raises:
        SettingsError: a number under 1.
        DataError: a subject with too few examples.
    """
    if number < 1:
        raise SettingsError(f"{number} examples cannot be drawn", where="shots", fix="at least 1, or leave it out")
    takes = find_template(template).takes
    pools: dict[str, list[Question]] = {}
    for record in fitting([one for one in training if isinstance(one, takes)], template):
        if isinstance(record, Question) and record.options:
            pools.setdefault(record.subject, []).append(record)
    if not pools:
        raise DataError("the training part has no question to show as an example", where="shots")
    found: dict[str, tuple[Question, ...]] = {}
    for subject, pool in pools.items():
        if len(pool) < number:
            of = f" of {subject}" if subject else ""
            raise DataError(
                f"{number} examples are wanted and the training part has {len(pool)}{of}", where="shots", fix="fewer"
            )
        found[subject] = tuple(pool[place] for place in sorted(random.Random(seed).sample(range(len(pool)), number)))
    return Shots(found)


def render_with_shots(records: Sequence[Record], template: str, shots: Shots | None) -> list[Row]:
    """The rows of the records, each with its solved examples in front; without shots, as `render` gives them.

    A description that the template begins with stands once, in front of all. In a conversation each example is a turn
    of the user's and one of the assistant's.

    Raises:
        SettingsError, DataError: as `render` and `Shots.before`.
    """
    rows = render(records, template)
    if shots is None:
        return rows
    describe = find_template(template).description
    solved = {subject: render(found, template) for subject, found in shots.by_subject.items()}
    found: list[Row] = []
    for record, row in zip(records, rows, strict=True):
        shots.before(record)
        found.append(_behind(row, solved[_subject(record)], len(describe(record))))
    return found


def _behind(row: Row, solved: Sequence[Row], described: int) -> Row:
    if row.turns:
        return replace(row, turns=(*(turn for one in solved for turn in one.turns), *row.turns))
    shown = "".join(one.prompt[described:] + one.completion + BETWEEN for one in solved)
    prompt = row.prompt[:described] + shown + row.prompt[described:]
    start, end = row.context
    return replace(row, prompt=prompt, context=(start + len(shown), end + len(shown)) if end else row.context)

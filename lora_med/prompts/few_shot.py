"""Solved examples before a question, for k-shot prompts, worded and joined as in lm-evaluation-harness.

The examples come from the training split, in the order of the file. They are the same for every question, or for every
question of a subject if the source has subjects. So prompts share a prefix, and the model runs it once.
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
    """Solved examples by subject; questions without a subject use the empty name."""

    by_subject: Mapping[str, tuple[Question, ...]]

    def before(self, record: Record) -> tuple[Question, ...]:
        """The examples to show before a record.

        Raises:
            DataError: the training split has none of its subject, or one is the record itself or of the same group.
        """
        subject = _subject(record)
        if subject not in self.by_subject:
            raise DataError(
                f"record {record.uid}: the training split has no examples of its subject",
                fix="give the subject's training file too (of mmlu, <subject>_dev.csv), or no shots",
            )
        shots = self.by_subject[subject]
        if any(record.uid == shot.uid or record.group == shot.group for shot in shots):
            raise DataError(f"record {record.uid} is scored and shown as a solved example", fix="another split or seed")
        return shots


def _subject(record: Record) -> str:
    return record.subject if isinstance(record, Question) else ""


def draw_shots(training: Iterable[Record], template: str, number: int, *, seed: int) -> Shots:
    """`number` examples of each subject, drawn from the training split by seed.

    Raises:
        SettingsError: `number` is under 1.
        DataError: a subject with too few examples.
    """
    if number < 1:
        raise SettingsError(f"{number} examples cannot be drawn", where="shots", fix="at least 1, or leave it out")
    takes = find_template(template).takes
    pools: dict[str, list[Question]] = {}
    for record in fitting([question for question in training if isinstance(question, takes)], template):
        if isinstance(record, Question) and record.options:
            pools.setdefault(record.subject, []).append(record)
    if not pools:
        raise DataError("the training split has no question to show as an example", where="shots")
    drawn: dict[str, tuple[Question, ...]] = {}
    for subject, pool in pools.items():
        if len(pool) < number:
            of = f" of {subject}" if subject else ""
            raise DataError(
                f"{number} examples are wanted and the training split has {len(pool)}{of}", where="shots", fix="fewer"
            )
        drawn[subject] = tuple(pool[index] for index in sorted(random.Random(seed).sample(range(len(pool)), number)))
    return Shots(drawn)


def render_with_shots(records: Sequence[Record], template: str, shots: Shots | None) -> list[Row]:
    """The rows of the records, each with its solved examples in front; without shots, the same as `render`.

    A description at the beginning of the template is written once, before all examples. In a conversation each example
    is one turn of the user and one of the assistant.

    Raises:
        SettingsError, DataError: as `render` and `Shots.before`.
    """
    rows = render(records, template)
    if shots is None:
        return rows
    describe = find_template(template).description
    solved = {subject: render(examples, template) for subject, examples in shots.by_subject.items()}
    with_shots: list[Row] = []
    for record, row in zip(records, rows, strict=True):
        shots.before(record)
        with_shots.append(_with_examples(row, solved[_subject(record)], len(describe(record))))
    return with_shots


def _with_examples(row: Row, solved: Sequence[Row], described: int) -> Row:
    if row.turns:
        return replace(row, turns=(*(turn for example in solved for turn in example.turns), *row.turns))
    examples_text = "".join(example.prompt[described:] + example.completion + BETWEEN for example in solved)
    prompt = row.prompt[:described] + examples_text + row.prompt[described:]
    start, end = row.context
    return replace(
        row, prompt=prompt, context=(start + len(examples_text), end + len(examples_text)) if end else row.context
    )

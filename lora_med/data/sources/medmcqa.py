"""MedMCQA: questions of Indian medical entrance exams, four options each.

Rows (question, opa to opd, cop, exp, id) in JSON lines, JSON or Parquet. `cop`, the right option, counts from 1 in the
original files and from 0 in the Hub copy. A file with a 4 counts from 1, a file with a 0 counts from 0, and a file
with neither is refused. Rows without an answer (the test file; -1 on the Hub) are dropped as
empty_answer. Published scores use the 4,183 rows of the validation file. License MIT. Pal et al. 2022,
https://proceedings.mlr.press/v174/pal22a.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lora_med.data.formats.row_fields import Empty, Wrong, optional_text_of, outcomes, stem, text_of
from lora_med.data.formats.tables import TableRow, rows
from lora_med.data.outcome import Again, Drop, Input, Outcome, ReadOptions, TableFormat
from lora_med.data.record import Question
from lora_med.errors import DataError

OPTIONS = ("opa", "opb", "opc", "opd")


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the inputs; every file is read once before, to find whether `cop` counts from 0 or 1.

    Drops: empty_answer; with an error: bad, unknown_base, and those of the row formats.
    """

    def again() -> Iterator[Outcome]:
        for item in inputs:
            base = _base(item, options.table)
            if isinstance(base, Drop):
                yield base
            else:
                yield from outcomes([item], lambda values, _, first=base: _question(values, first), options.table)

    return Again(again)


def _number(values: Mapping[str, Any]) -> int | None:
    value = values.get("cop")
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():  # as a column with gaps is written by pandas
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _base(item: Input, table: TableFormat) -> int | Drop:
    """0 or 1, by the numbers in the file; a drop with an error if they do not decide it."""
    seen = {_number(row.values) for row in rows(item, table) if isinstance(row, TableRow)} & set(range(5))
    if {0, 4} <= seen:
        what, fix = "cop is 0 in some rows and 4 in others", "do not mix the original files with the Hub's"
    elif seen and not seen & {0, 4}:
        what = f"cop is only {', '.join(map(str, sorted(map(int, filter(None, seen)))))}: it may count from 0 or from 1"
        fix = "give the whole file, in which 0 or 4 occurs"
    else:
        return 1 if 4 in seen else 0
    return Drop("unknown_base", DataError(what, where=str(item), fix=fix))


def _question(values: Mapping[str, Any], base: int) -> Question:
    uid, question = text_of(values, "id"), text_of(values, "question")
    number = _number(values)
    if (number is None and values.get("cop") in (None, "")) or number == -1:
        raise Empty("empty_answer")
    if number is None or not 0 <= number - base < len(OPTIONS):
        raise Wrong(f"cop: expected a number from {base} to {base + len(OPTIONS) - 1}")
    choices = tuple(text_of(values, name) for name in OPTIONS)
    return Question(
        f"medmcqa:{uid}",
        stem(question),
        "medmcqa",
        question,
        choices[number - base],
        options=choices,
        explanation=optional_text_of(values, "exp"),
        right=number - base,
    )

"""MedQA (USMLE): a clinical vignette with four or five options, one of them right.

Two shapes are read: the original JSON lines (question, options {A: ...}, answer_idx, meta_info) and the rows of the Hub
copy `GBaker/MedQA-USMLE-4-options-hf` (sent1, ending0 to ending3, label). License MIT. Jin et al. 2020,
https://arxiv.org/abs/2009.13081. The published files are the splits; questions with the same wording are one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.row_fields import Wrong, optional_text_of, outcomes, stem, text_of
from lora_med.data.outcome import Input, Outcome, ReadOptions
from lora_med.data.record import Question

LETTERS = "ABCDEFGH"


def read(inputs: Sequence[Input], options: ReadOptions) -> Iterable[Outcome]:
    """The questions of the inputs. Drops with an error: bad, and those of the row formats."""
    return outcomes(inputs, _question, options.table)


def _question(values: Mapping[str, Any], position: str) -> Question:
    if "sent1" in values:
        question = "\n".join(
            sentence for sentence in (text_of(values, "sent1"), optional_text_of(values, "sent2")) if sentence
        )
        choices = tuple(text_of(values, f"ending{number}") for number in range(4))
        label = values.get("label")
        index = label if isinstance(label, int) and not isinstance(label, bool) else -1
        name = "label"
    else:
        question, choices = text_of(values, "question"), _choices(values.get("options"))
        letter = values.get("answer_idx")
        index = LETTERS.find(letter) if isinstance(letter, str) and len(letter) == 1 else -1
        name = "answer_idx"
    if not 0 <= index < len(choices):
        raise Wrong(f"{name}: expected one of the {len(choices)} options")
    if "answer" in values and values["answer"] != choices[index]:
        raise Wrong(f"answer: expected the text of option {LETTERS[index]}, which {name} names")
    uid = values["id"] if isinstance(values.get("id"), str) and values["id"].strip() else position
    return Question(f"medqa:{uid}", stem(question), "medqa", question, choices[index], (), choices)


def _choices(options: object) -> tuple[str, ...]:
    if (
        isinstance(options, dict)
        and 2 <= len(options) <= len(LETTERS)
        and list(options) == list(LETTERS[: len(options)])
    ):
        return tuple(text_of(options, letter) for letter in options)
    raise Wrong("options: expected an object with the letters A, B, C, ... in order, each with a text")

"""Which option is right: by its text, its letter or key, or its number from 0 or from 1.

A number counts from 1 where some number of the file equals that of its row's options, and from 0 where some number is
0. Where neither occurs, a column of Hub data sets (`choices` with `answer`, or `label`) counts from 0, and any other is
refused: `data.answer_form` says which it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lora_med.data.outcome import AnswerForm
from lora_med.data.shapes.questions.answer_options import Options, bare_key
from lora_med.data.shapes.row_error import RowError

Form = AnswerForm | Literal["words"]  # words: a text or a letter
LETTERED = re.compile(r"\(?(?P<key>[A-Za-z]|\d{1,2})[).:]+\s+(?P<text>.+)", re.DOTALL)
NO_ANSWER = -1  # in the test files of Hub data sets


@dataclass(frozen=True)
class Decision:
    """How the right options of some files are given, and the reason in a few words; without a form, what is unclear."""

    form: Form | None
    reason: str


def whole_number(value: object) -> int | None:
    """The whole number that a value is: of the type int, a float as pandas writes it, or digits in a text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,4}(\.0)?", value.strip()):
        return int(float(value))
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def is_numbered(options: Options, value: object) -> bool:
    """Whether a value is a number that is no key of the options: from where it counts is to be decided."""
    number = whole_number(value)
    return number is not None and number != NO_ANSWER and not (options.numbered and str(number) in options.keys)


def decide(answers: Iterable[tuple[Options, object]], *, from_0_by_name: bool) -> Decision:
    """How the numbers among the answers of some files count."""
    numbers, zero, last, spelled_out = 0, False, False, False
    fits: dict[Form, bool] = {"text": True, "from_0": True, "from_1": True}
    for options, value in answers:
        number = whole_number(value)
        if number is None or not is_numbered(options, value):
            spelled_out |= isinstance(value, str) and value.strip() in _stripped(options)
            continue
        numbers += 1
        zero, last = zero or number == 0, last or (len(options) > 0 and number == options.positions[-1] + 1)
        fits["text"] &= isinstance(value, str) and value.strip() in _stripped(options)
        fits["from_0"] &= number in options.positions
        fits["from_1"] &= number - 1 in options.positions
    if not numbers or (spelled_out and fits["text"]):
        return Decision("words", "")
    fitting: list[Form] = [form for form, fit in fits.items() if fit]
    if len(fitting) == 1:
        reasons: dict[Form, str] = {
            "text": "each number is the text of an option",
            "from_0": "a 0 occurs" if zero else "no other way fits",
            "from_1": "a number equals that of the options" if last else "no other way fits",
        }
        return Decision(fitting[0], reasons[fitting[0]])
    if zero and last and not fits["text"]:
        return Decision(None, "0 in some rows and the number of options in others")
    if not fitting:
        return Decision("from_0", "")
    if fitting == ["from_0", "from_1"] and from_0_by_name:
        return Decision("from_0", "as on the Hub; no row shows it")
    either = {"text": "be the text of an option", "from_0": "count from 0", "from_1": "count from 1"}
    return Decision(None, "numbers that may " + " or ".join(either[form] for form in fitting))


def _stripped(options: Options) -> list[str]:
    return [text.strip() for text in options.texts]


def right_index(options: Options, value: object, form: Form, name: str) -> int:
    """The index of the right option.

    Raises:
        RowError: the value names none, or one by its text and another by its letter.
    """
    number = whole_number(value)
    if form in ("from_0", "from_1") and number is not None and is_numbered(options, value):
        position = number - (form == "from_1")
        if position in options.positions:
            return options.positions.index(position)
        raise RowError(
            "bad_type", f"{name}: expected one of the {len(options)} options, counted {form.replace('_', ' ')}"
        )
    text = _of_bool(options, value) if isinstance(value, bool) else value
    if number is not None and not isinstance(value, str):
        text = str(number)
    if not isinstance(text, str):
        kind = "nothing" if value is None else type(value).__name__
        raise RowError("bad_type", f"{name}: expected one of the {len(options)} options, got {kind}")
    by_text = None if form == "letter" else _by_text(options, text)
    by_key = None if form == "text" else _by_key(options, text)
    if by_text is not None and by_key is not None and by_text != by_key:
        raise RowError("unclear_answer", f"{name}: the text of one option and the letter of another: data.answer_form")
    index = by_text if by_text is not None else by_key
    if index is None:
        raise RowError("bad_type", f"{name}: expected one of the {len(options)} options, by its text or letter")
    return index


def _of_bool(options: Options, value: bool) -> str | None:
    words = ("yes", "true") if value else ("no", "false")
    return next((text for text in options.texts if text.strip().casefold() in words), None)


def _by_text(options: Options, text: str) -> int | None:
    wanted = text.strip()
    for known in (_stripped(options), [text.casefold() for text in _stripped(options)]):
        if wanted in known:
            return known.index(wanted)
        wanted = wanted.casefold()
    return None


def _by_key(options: Options, text: str) -> int | None:
    keys = [key.upper() for key in options.keys]
    for wanted in (text.strip().upper(), bare_key(text)):
        if wanted in keys:
            return keys.index(wanted)
    both = LETTERED.fullmatch(text.strip())
    if both and both["key"].upper() in keys and _by_text(options, both["text"]) == keys.index(both["key"].upper()):
        return keys.index(both["key"].upper())
    return None

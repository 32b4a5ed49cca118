"""The findings of a medical text: whether each is present or denied, and on which side.

A finding is a content word with its status in its sentence. A denial (`no`, `denies`, `without`) applies to the words
after it until the clause ends or turns (`but`, `except`). Some denials apply to the words before (`was ruled out`).
In a dialogue a question has no status until it is answered: the beginning of the next turn decides. Source of the idea
of cue and scope: Chapman et al. 2001 (NegEx). Not detected: denials across sentences, irony, whose finding it is
(`her mother had`), uncertainty (`may have`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lora_med.metrics.content_words import content_words

Side = Literal["left", "right", "both"]
SENTENCE = re.compile(r"[^.!?;\n]+[.!?;\n]?")
TURN = re.compile(r"^[^\S\n]*+[A-Za-z_]{2,20}(?:[ _]\w++)?\s*+:", re.MULTILINE)
DENIAL = re.compile(
    r"\b(?:no|not|non|none|never|nor|neither|without|denies|denied|denying|deny|negative for|free of|absence of|"
    r"absent|lacks?|rules? out|resolved|\w+n['’]t|cannot|nope|nah)\b",
    re.I,
)
BACKWARD = re.compile(
    r"\b(?:(?:was|were|is|are|been) (?:all )?(?:negative|ruled out|absent|denied|unremarkable))\b", re.I
)
TURNS = re.compile(r"\b(?:but|except|however|although|though|aside from|other than|apart from)\b|[:]", re.I)
NO_DENIAL = re.compile(r"\b(?:no (?:change|longer|further|doubt|problem)|not only|not sure|nothing new)\b", re.I)
YES = re.compile(
    r"^\W*(?:yes|yeah|yep|yup|correct|right|sure|i do|i did|i have|uh[- ]huh|mm[- ]?hm+|of course)\b", re.I
)
NO = re.compile(r"^\W*(?:no|nope|nah|none|never|not|negative|nothing|i don['’]t|i do not|i haven['’]t)\b", re.I)
SIDES: dict[str, Side] = {
    **dict.fromkeys(("left", "lt", "left-sided"), "left"),
    **dict.fromkeys(("right", "rt", "right-sided"), "right"),
    **dict.fromkeys(("bilateral", "bilaterally", "both"), "both"),
}
NOT_A_SIDE = re.compile(
    r"\b(?:right (?:now|away|after|before|when|then|here|there)|all right|that['’]s right|"
    r"left (?:the|a|an|my|his|her|it|for|over|home|work|to))\b",
    re.I,
)
WORD = re.compile(r"[\w'’-]+")
SIDED_WITHIN = 3  # words after its side in which a finding is


@dataclass(frozen=True, slots=True)
class Status:
    """One mention of a word: `there` is True if affirmed, False if denied, None in an open question."""

    word: str
    there: bool | None


def statuses(text: str) -> list[Status]:
    """Every content word of the text with its status, in its order."""
    return [status for turn in _turns(text) for status in turn]


def sides(text: str) -> list[tuple[str, Side]]:
    """`(content word, side)` for each word shortly after a side."""
    pairs: list[tuple[str, Side]] = []
    for sentence in SENTENCE.findall(NOT_A_SIDE.sub(" ", text)):
        words = WORD.findall(sentence)
        for index, word in enumerate(words):
            side = SIDES.get(word.casefold())
            if side is not None:
                after = " ".join(words[index + 1 : index + 1 + SIDED_WITHIN])
                pairs.extend((finding, side) for finding in content_words(after) if finding not in SIDES)
    return pairs


def _turns(text: str) -> Iterator[list[Status]]:
    """The statuses of each turn of a dialogue, a question's answered by the next turn; of other text all at once."""
    starts = [match.start() for match in TURN.finditer(text)]
    if len(starts) < 2:
        yield _of_sentences(text, "")
        return
    cuts = [*starts, len(text)]
    turns = [TURN.sub("", text[begin:end], count=1) for begin, end in itertools.pairwise(cuts)]
    for turn, answer in zip(turns, [*turns[1:], ""], strict=True):
        yield _of_sentences(turn, answer)


def _of_sentences(turn: str, answer: str) -> list[Status]:
    result: list[Status] = []
    answered = True if YES.match(answer) else False if NO.match(answer) else None
    for sentence in SENTENCE.findall(turn):
        if sentence.rstrip().endswith("?"):
            result += [Status(word, answered) for word in content_words(sentence)]
            continue
        result += _of_clauses(sentence)
    return result


def _of_clauses(sentence: str) -> Iterator[Status]:
    """The statuses of a statement: denied after a denial until the clause turns, or all of it before some."""
    plain = NO_DENIAL.sub(lambda match: "x" * len(match.group()), sentence)
    for clause in TURNS.split(plain):
        backward, cue = BACKWARD.search(clause), DENIAL.search(clause)
        before = clause[: cue.start()] if cue else clause
        yield from (Status(word, backward is None) for word in content_words(before))
        if cue:
            yield from (Status(word, False) for word in content_words(clause[cue.end() :]))

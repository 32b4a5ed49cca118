"""Patterns over texts outside audit/ take linear time too: each on the text that it reads longest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lora_med.data.formats.citations import AUTHOR_END, AUTHOR_START, NUMBER, without_citations
from lora_med.data.formats.clinical_notes import note
from lora_med.data.formats.jats.article_text import NUMERIC
from lora_med.data.formats.placeholders import tagged_mimic3, tagged_mimic4
from lora_med.data.formats.pubmed.pubmed_fast import TRUNCATED
from lora_med.data.splitting.overlap_with_tests import without_tags
from lora_med.metrics.content_words import content_words
from lora_med.metrics.faithfulness import headings
from lora_med.metrics.findings import sides, statuses
from lora_med.metrics.quantities import quantities
from lora_med.prompts.answers import read_choice, read_letter
from lora_med.prompts.templates.passage_templates import criteria
from tests.growth import assert_linear

Make = Callable[[int], str]


def run_of(head: str, unit: str, tail: str = "x") -> Make:
    return lambda size: head + unit * (size // len(unit)) + tail


def choice(text: str) -> object:
    return read_choice(text, ["yes", "no", "may be"]), read_letter(text, "ABC", ["yes", "no", "may be"])


BLANKS = [("", " "), ("", "\n"), ("", "\t \n"), ("", "- \n"), ("a", "\xa0")]
CASES: dict[str, tuple[Callable[[str], Any], list[tuple[str, str]]]] = {
    "citations": (
        without_citations,
        [*((f"{NUMBER}a", unit) for _, unit in BLANKS), (NUMBER, "( "), (NUMBER, "(see "), (NUMBER, " , "),
         (f"{NUMBER}({NUMBER}", " and "), ("", f"{AUTHOR_START}a{AUTHOR_END} "), ("", f"({NUMBER},"),
         (f"({NUMBER}", " "),
         (f"[{NUMBER}", ";, ")],
    ),
    "notes": (
        lambda text: note("u", "p", "mimic3", "k", f"a{text}"),
        [*BLANKS, ("", "Aa"), ("", "A: "), ("", "Aa bb cc\n"), ("A", "-")],
    ),
    "MIMIC-III tags": (
        tagged_mimic3,
        [("", "[**"), ("", "[** a **] "), ("", "**]"), ("[**", " "), ("", "[**]"), ("[**a", "1 ")],
    ),
    "MIMIC-III meanings": (
        lambda text: tagged_mimic3(f"[**{text}**]"),
        [("1", " "), (" ", "1"), ("", "1 "), ("\n", "\n ")],
    ),
    "MIMIC-IV tags": (tagged_mimic4, [("", "_"), ("", "___ ")]),
    "PubMed's truncation": (
        lambda text: TRUNCATED.sub("", text),
        [("a", " "), ("", " ("), ("", "(ABSTRACT TRUNCATED) ")],
    ),
    "PMC's labels": (NUMERIC.fullmatch, [("", "1"), ("a", "1"), ("", "1-")]),
    "tags of a test file": (
        without_tags,
        [("", "<"), ("<", "a"), ("", "<a>"), ("", "> ")],
    ),
    "content words": (content_words, [("", "A "), ("", "a'"), ("", "a’’"), ("", "ab ")]),
    "headings": (headings, [*BLANKS, ("ABC", " "), ("", "ABC \n"), ("ABC", " ,"), ("ABC", "\n")]),
    "findings": (
        statuses,
        [*BLANKS, ("", "ab: no? "), ("ab: a?\ncd:", " "), ("ab", "\n"), ("ab", "_"), ("ab: ", "is it? "), ("no ", "'"),
         ("", "not "), ("", "n't "), ("", "but ")],
    ),
    "questions": (
        lambda text: statuses(f"ab: {'is it? ' * (len(text) // 8)}\ncd: {text}"),
        [("", " "), ("", "- ")],
    ),
    "sides": (sides, [("", "left "), ("", "right arm "), ("left", " ")]),
    "quantities": (
        quantities,
        [*BLANKS, (".", "\n"), ("", "5 m "), ("5 m", " "), ("one ", "and "), ("", "twenty "), ("", "1,111"),
         ("1", ",111"), ("", "1. A "), ("1.", " "), ("", "1/2 "), ("q", "a"), ("every ", "a"), ("", "½"), ("a.", "b.")],
    ),
    "answers": (
        choice,
        [("the answer", " "), ("the answer is", "\t"), ("answer:", "( "), ("", "answer "), ("", "yes "), ("", "A, "),
         ("not", " "), ("", "not yes, "), ("yes", "*"), ("", "may "), ("may", " "), ("it may be no", "'")],
    ),
    "eligibility": (
        criteria,
        [*BLANKS, ("Inclusion criteria", " "), ("Inclusion criteria", ":"), ("Inclusion criteria:\n", "* a\n"),
         ("Inclusion criteria:\n", "* a\n  * b\n"), ("Inclusion criteria:", "\n"), ("", "inclusion criteria a: b\n"),
         ("Inclusion criteria:\n- a\nExclusion criteria", "\t")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "head", "unit"), [(name, head, unit) for name, (_, runs) in CASES.items() for head, unit in runs]
)
def test_a_pattern_takes_linear_time(name: str, head: str, unit: str) -> None:
    assert_linear(CASES[name][0], run_of(head, unit))

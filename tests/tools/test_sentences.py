"""Sentences of a page are counted as a reader counts them, and a fault names page, line and text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.sentences import MOST_MEAN, MOST_WORDS, find_dialect, main, measure, split_sentences

PAGE = """# A heading is not a sentence.

One two three. Four five
six seven! Is this `three words here` one?

- first item without a stop
- second item,
  over two lines. And a [link of text](https://example.org/a.b.c).

```
code is never counted. Not here.
```

<!-- nor a
comment. -->

| head | cell |
|---|---|
| a figure, 0.97 | This cell has words. |
"""


def counted(text: str) -> list[tuple[int, int]]:
    return [(one.line, one.words) for one in split_sentences(text)]


def test_each_kind_of_block_is_counted_by_hand() -> None:
    assert counted(PAGE) == [(3, 3), (3, 4), (4, 4), (6, 5), (7, 5), (8, 5), (19, 4)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It takes 0.97 s, e.g. on 2 cores.", [8]),
        ("Kalajdzievski et al. 2023 say so.", [6]),
        ("See docs/data.md and torch 2.13.0 for more.", [7]),
        ("A dash - and a ratio - count nothing.", [7]),
        ("It ends in a code span: `a. B`. Then one more.", [7, 3]),
        ("**Bold words.** Then two.", [2, 2]),
        ("1. first. Second sentence.\n2. another", [1, 2, 1]),
        ("![a picture](one.png)", []),
        ("> a quoted line.", [3]),
    ],
)
def test_what_ends_a_sentence(text: str, words: list[int]) -> None:
    assert [one.words for one in split_sentences(text)] == words


def test_a_long_table_cell_counts_without_a_full_stop() -> None:
    cell = " ".join(["word"] * (MOST_WORDS + 1))
    assert counted(f"| short cell | {cell} |") == [(1, MOST_WORDS + 1)]


def test_a_sentence_one_word_too_long_is_a_fault() -> None:
    fits, long = " ".join(["word"] * MOST_WORDS) + ".", " ".join(["word"] * (MOST_WORDS + 1)) + "."
    short = "So. " * MOST_WORDS
    assert measure("page", f"{short}\n\n{fits}").faults == []
    assert measure("page", f"{short}\n\n{long}").faults == [(3, f"36 words: {long}")]


def test_a_mean_of_18_passes_and_a_mean_above_it_does_not() -> None:
    fits, over = " ".join(["word"] * MOST_MEAN) + ".", " ".join(["word"] * (MOST_MEAN + 1)) + "."
    assert measure("page", fits).faults == []
    ((line, message),) = measure("page", f"{fits[:4].capitalize()}{fits[4:]}\n\n{over}").faults
    assert line == 3
    assert message.startswith("the page's mean is 18.5 words, at most 18; longest: word")


def test_the_old_dialect_is_found_outside_code() -> None:
    found = find_dialect("Fine.\nIt resumes to the bit.\n`to the bit`\n\n```\nby turns\n```\n\n| By turns | x |")
    assert found == [
        (2, "dialect 'to the bit'; write: bit-identical"),
        (9, "dialect 'by turns'; write: alternating runs"),
    ]


def test_a_code_block_that_never_ends_is_a_fault() -> None:
    assert measure("page", "Fine.\n\n```\ncode\n```\nFine.").faults == []
    assert measure("page", "Fine.\n\n```\ncode\n").faults == [(3, "a code block begins here and never ends")]


def test_the_command_prints_each_page_and_fails_on_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text("Two words. Three more words.\n", encoding="utf-8")
    bad.write_text("Fine.\n\nRuns go by turns.\n", encoding="utf-8")
    assert main([str(good)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [str(good), "2", "2.5", "3"]
    assert main([str(good), str(bad)]) == 1
    assert capsys.readouterr().err == f"{bad}:3: dialect 'by turns'; write: alternating runs\n"

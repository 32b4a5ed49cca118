"""What `data check` counts and the preview page shows, on data whose answers are known."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lora_med.audit.baselines import baselines, label_counts
from lora_med.audit.data_check import check_data
from lora_med.audit.fertility import fertility
from lora_med.audit.preview import page, spell
from lora_med.config.parse import parse
from lora_med.data.record import Annotated, Pair, Passage, Question, Record, Section, Span
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import tokenize_rows
from tests.tiny import make_tokenizer


def exam(number: int, answer: int, options: tuple[str, ...] = ("a", "bbbb", "c")) -> Question:
    return Question(f"q{number}", f"q{number}", "medqa", f"Q{number}?", options[answer], (), options)


def test_baselines_of_questions_are_the_majority_the_first_and_the_longest() -> None:
    train = [exam(n, 1, (f"x{n}", f"long{n}", f"z{n}")) for n in range(3)] + [exam(3, 0, ("q", "rr", "s"))]
    held = [exam(9, answer, (f"{answer}x", f"{answer}longest", f"{answer}z")) for answer in (0, 1, 1, 2)]
    assert label_counts(train) == {"B": 3, "A": 1}
    assert baselines(train, held) == {
        'always "B", the most frequent in train': 0.5,
        "always the first option": 0.25,
        "always the longest option": 0.5,
    }
    shared = [exam(n, 0) for n in range(2)]
    assert label_counts(shared) == {"a": 2}
    assert baselines(shared, [exam(7, 2)]) == {
        'always "a", the most frequent in train': 0.0,
        "always the first option": 0.0,
    }


def test_baselines_of_pairs_and_entities() -> None:
    pair = Pair("p", "p", "s", "one two three four", "two one five")
    assert baselines([], [pair]) == {"copy the beginning (word F1)": 0.6667}
    train: list[Record] = [Annotated("a", "a", "s", "Iron", (Span(0, 4, "M", "Iron"),))]
    held = Annotated("b", "b", "s", "iron gold", (Span(0, 4, "M", "iron"), Span(5, 9, "M", "gold")))
    assert baselines(train, [held]) == {"repeating what train marks (recall)": 0.5}
    assert baselines([], [Passage("p", "p", "s", "Text.")]) == {}
    assert label_counts([Pair("p", "p", "s", "i", "o", "GENHX"), held]) == {"M": 2, "GENHX": 1}


def test_fertility_counts_words_by_frequency() -> None:
    found = fertility(["iron iron metformin", "at 12"], make_tokenizer(), show=True)
    assert found.data == pytest.approx((2 * 5 + 10) / 3, abs=1e-3)  # a byte is a token here, the space before too
    assert found.terms > 8 and found.words == ()
    assert fertility(["iron " * 9], make_tokenizer(), show=True).words == (("iron", 5, 9),)
    assert fertility(["iron " * 9], make_tokenizer(), show=False).words == ()


def passages(folder: Path, count: int) -> Path:
    rows = [
        {"uid": f"u{n}", "text": f"Seen {n} times: " + " ".join(f"w{n * 31 % 997}x{k}" for k in range(60))}
        for n in range(count)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_ten_thousand_rows_are_checked_within_a_minute(tmp_path: Path) -> None:
    settings = parse(None, ["data.source=custom", f"data.paths=[{passages(tmp_path, 10_000)}]", "train.max_length=100"])
    begun = time.perf_counter()
    check, _ = check_data(settings, make_tokenizer())
    assert time.perf_counter() - begun < 60
    (source,) = check.sources
    assert sum(source.sizes.values()) == source.tally.kept == 10_000
    assert source.lengths["train"].too_long == source.lengths["train"].rows == source.sizes["train"]
    assert sum(count for _, count in source.lengths["train"].histogram) == source.lengths["train"].rows


def test_the_page_marks_what_is_trained_and_escapes_the_rest(tmp_path: Path) -> None:
    tokenizer: Any = make_tokenizer()
    settings = parse(None, ["data.source=custom", f"data.paths=[{passages(tmp_path, 100)}]"])
    (tokens,) = tokenize_rows([Row("<u>", "g", (), "Ask <b>", " Say")], tokenizer)
    html = page(check_data(settings, tokenizer)[0], [spell(tokens, tokenizer)], base="micro")
    assert "Ask &lt;b&gt;" in html and "&lt;u&gt;: " in html
    assert "<b> Say&lt;|end_of_text|&gt;</b>" in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    hidden = page(check_data(settings, tokenizer)[0], [], base="micro")
    assert "Rows of this source may not be shown" in hidden


def test_the_share_of_the_loss_is_reported_by_section(tmp_path: Path) -> None:
    article = (
        "<PubmedArticle><MedlineCitation><PMID>{0}</PMID><Article><Abstract>"
        "<AbstractText Label='AIM' NlmCategory='OBJECTIVE'>{0:04}aaaaaa</AbstractText>"
        "<AbstractText Label='RESULTS' NlmCategory='RESULTS'>{0:04}bbbbbbbbbbbbbbbbbbbbbbbbbb</AbstractText>"
        "</Abstract></Article></MedlineCitation></PubmedArticle>"
    )
    path = tmp_path / "a.xml"
    path.write_text("<PubmedArticleSet>" + "".join(article.format(n) for n in range(1, 50)) + "</PubmedArticleSet>")
    check, _ = check_data(parse(None, [f"data.paths=[{path}]"]), make_tokenizer())
    assert check.sources[0].lengths["train"].by_section == {"RESULTS": 0.75, "OBJECTIVE": 0.25}
    assert check.sources[0].labels["train"].keys() == {"OBJECTIVE", "RESULTS"}
    assert Section("x").label is None

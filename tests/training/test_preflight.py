"""Preflight refuses rows that would train something other than what is meant, and never says what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from lora_med.config.schema import TrainSettings
from lora_med.errors import PreflightError
from lora_med.models.base import Base
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import Tokens, tokenize_rows
from lora_med.training.rows.preflight import color_row, preflight
from tests.training.support import make_base

SECRET = "Alpha-Bravo"


@pytest.fixture(scope="module")
def base() -> Base:
    return make_base()


def settings(**values: Any) -> TrainSettings:
    return TrainSettings(**{"max_length": 40, **values})


def tokens(base: Base, *rows: Row) -> list[Tokens]:
    return tokenize_rows(rows, base.tokenizer)


def text(uid: str, content: str) -> Row:
    return Row(uid, uid, (), "", content, too_long="chunk_by_section")


def answer(uid: str, prompt: str, completion: str) -> Row:
    return Row(uid, uid, (), prompt, completion)


def check(base: Base, documents: list[Tokens], **values: Any) -> Any:
    return preflight(documents, base, settings(**values), access="open", what="validation")


def test_rows_that_fit_pass_unchanged_with_a_report(base: Base) -> None:
    given = tokens(base, answer("a", "Q:", " yes"), answer("b", "QQ:", " no"))
    found = check(base, given)
    assert list(found.documents) == given
    # By hand: BOS, 2 + 4 bytes, end = 8 tokens, 5 of them trained; BOS, 3 + 3 bytes, end = 8 tokens, 4 trained.
    assert found.report["tokens"] == 16
    assert found.report["trained_tokens"] == 9
    assert found.report["length_quantiles"] == dict.fromkeys(("0%", "10%", "50%", "90%", "99%", "100%"), 8)
    assert found.report["share_of_answer_tokens_lost"] == 0


def test_long_running_text_is_chunked_and_no_token_is_lost(base: Base) -> None:
    content = "".join(chr(97 + number % 26) for number in range(100))
    found = check(base, tokens(base, text("long", content)))
    rows = list(found.documents)
    assert all(len(row.input_ids) <= 40 for row in rows)
    trained = [token for row in rows for token, on in zip(row.input_ids, row.trained, strict=True) if on]
    assert base.tokenizer.decode(trained, skip_special_tokens=True) == content
    assert found.report["documents_chunked"] == 1
    assert found.report["uids_chunked"] == ["long"]


def test_rows_to_be_dropped_are_left_out_without_a_limit_and_counted(base: Base) -> None:
    long = Row("long", "long", (), "Q" * 60, " yes", too_long="drop")
    found = check(base, tokens(base, answer("short", "Q:", " yes"), long))
    assert [row.uid for row in found.documents] == ["short"]
    assert found.report["rows_dropped"] == 1 and found.report["tokens_dropped"] > 60


def test_an_answer_too_long_is_refused_by_uid_and_never_cut(base: Base) -> None:
    given = tokens(base, answer("short", "Q:", " yes"), answer("pmid:7", SECRET * 4, " yes"))
    with pytest.raises(PreflightError) as caught:
        check(base, given)
    assert "1 of 2 rows are longer than max_length 40" in caught.value.what
    assert "pmid:7" in caught.value.what
    assert SECRET not in str(caught.value)


def test_the_allowed_share_is_left_out_and_counted(base: Base) -> None:
    given = tokens(base, answer("short", "Q:", " yes"), answer("long", "Q" * 60, " yes"))
    found = check(base, given, allow_rows_dropped=0.5)
    assert [row.uid for row in found.documents] == ["short"]
    assert found.report["rows_dropped"] == 1
    assert found.report["share_of_answer_tokens_lost"] == 0.5
    with pytest.raises(PreflightError):
        check(base, given, allow_rows_dropped=0.4)


@pytest.mark.parametrize(
    ("ids", "trained", "problem"),
    [
        ([1, 40, 41, 2], [False] * 4, "no token to learn from"),
        ([1, 40, 41, 42], [False, False, True, True], "do not end in a trained stop token"),
        ([1, 40, 41, 2], [False, True, True, False], "do not end in a trained stop token"),
        ([1, 1, 40, 2], [False, False, True, True], "begin twice"),
    ],
)
def test_a_row_that_would_train_the_wrong_thing_is_refused(
    base: Base, ids: list[int], trained: list[bool], problem: str
) -> None:
    good = Tokens("good", [1, 40, 2], [False, True, True])
    with pytest.raises(PreflightError, match=problem) as caught:
        check(base, [good, Tokens("pmid:13", ids, trained)])
    assert "1 of 2 rows" in caught.value.what
    assert "pmid:13" in caught.value.what


def test_no_rows_are_refused(base: Base) -> None:
    with pytest.raises(PreflightError, match="no rows"):
        check(base, [])


def test_a_chat_ends_in_its_own_stop_token(base: Base) -> None:
    chat = Row("c", "c", (("user", "hi"), ("assistant", "yes")), "", "yes")
    found = check(base, tokens(base, chat), max_length=200)
    assert next(iter(found.documents)).input_ids[-1] == 4


def test_trained_tokens_are_colored_and_long_rows_shortened(base: Base) -> None:
    (row,) = tokens(base, answer("a", "Question:", " yes"))
    colored = color_row(row, base.tokenizer)
    green = [colored.plain[span.start : span.end] for span in colored.spans if "green" in str(span.style)]
    assert green == [" yes<|end_of_text|>"]
    (long,) = tokens(base, text("b", "x" * 1000))
    assert "[... 882 tokens ...]" in color_row(long, base.tokenizer).plain


@pytest.mark.parametrize(("access", "shown"), [("open", True), ("registered", True), ("credentialed", False)])
def test_rows_are_shown_unless_the_source_is_credentialed(base: Base, access: str, shown: bool, capsys: Any) -> None:
    preflight(tokens(base, answer("a", SECRET, " yes")), base, settings(), access=access)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (SECRET in captured.err) is shown


def test_nothing_of_the_text_is_logged(base: Base, caplog: Any) -> None:
    with caplog.at_level("DEBUG"):
        preflight(tokens(base, answer("a", SECRET, " yes")), base, settings(), access="credentialed")
    assert "1 documents" in caplog.text
    assert SECRET not in caplog.text

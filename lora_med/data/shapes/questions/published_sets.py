"""Question sets as they are published: SQuAD's nested files, BioASQ's golden files, the benchmark.json of MIRAGE.

SQuAD (https://rajpurkar.github.io/SQuAD-explorer): articles of paragraphs, each a context with questions (`qas`).
BioASQ, task b (http://participants-area.bioasq.org): `body` is the question, `snippets` its contexts, `exact_answer` a
yes or no, the names of one thing, or a list of such; a `summary` has the `ideal_answer` alone. MIRAGE: data set ->
identifier -> question, options, answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_med.data.record import Question
from lora_med.data.shapes.columns.cells import checked_text, is_blank
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.questions.question_rows import first_of
from lora_med.data.shapes.row_error import RowError

YES_NO = ("yes", "no")
MOST_LEVELS = 3  # of a benchmark: the file, its data sets, their questions


def unrolled(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows within a nested row of a published set; none where it is no such row."""
    articles = values.get("data")
    if isinstance(values.get("paragraphs"), list):
        yield from _article(values)
    elif isinstance(articles, list) and any(isinstance(each, dict) and "paragraphs" in each for each in articles):
        for article in articles:
            yield from _article(article if isinstance(article, dict) else {})
    elif isinstance(values.get("questions"), list):
        yield from (each for each in values["questions"] if isinstance(each, dict))
    else:
        yield from _collection(values, (), MOST_LEVELS)


def _article(article: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for paragraph in article.get("paragraphs", ()):
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            raise RowError("bad_type", "paragraphs: expected objects with a context and a list qas")
        for asked in paragraph["qas"]:
            if not isinstance(asked, dict):
                raise RowError("bad_type", "paragraphs: expected each of qas to be an object")
            yield {"context": paragraph.get("context"), "title": article.get("title"), **asked}


def _collection(values: Mapping[str, Any], path: tuple[str, ...], levels: int) -> Iterator[dict[str, Any]]:
    if not levels or not values or not all(isinstance(inner, dict) for inner in values.values()):
        return
    for name, inner in values.items():
        if "question" in inner and "answer" in inner:
            yield {"uid": ":".join((*path, name)), **inner}
        else:
            yield from _collection(inner, (*path, name), levels - 1)


def is_bioasq(row: Row) -> bool:
    """Whether a row is a question of BioASQ."""
    return all(isinstance(row.values.get(name), str) for name in ("body", "type")) and (
        "ideal_answer" in row.values or "exact_answer" in row.values
    )


def bioasq(row: Row) -> Question:
    """A question of BioASQ with its snippets; yes or no, a name, names joined by commas, or a text."""
    asked, kind = checked_text(_use(row, "body", "question"), "column 'body'"), _use(row, "type", "type")
    contexts = tuple(
        checked_text(snippet.get("text") if isinstance(snippet, dict) else snippet, f"column 'snippets', item {number}")
        for number, snippet in enumerate(_use(row, "snippets", "contexts") or (), 1)
    )
    exact, ideal = _use(row, "exact_answer", "answer"), _use(row, "ideal_answer", "explanation")
    explanation = "" if is_blank(ideal) else first_of(row, _as_list(ideal), "column 'ideal_answer'")
    if kind == "summary":
        row.used["ideal_answer"] = "answer"
        answer, explanation = checked_text(explanation, "column 'ideal_answer'"), ""
    else:
        answer = _exact(row, str(kind), exact)
    options = YES_NO if kind == "yesno" else ()
    uid = row.values.get("id")
    if isinstance(uid, str) and uid.strip() and "uid" not in row.layout.mapping:
        row.used["id"] = "uid"
    else:
        uid = row.uid()
    return Question(
        uid.strip(), row.group(*(contexts or (asked,))), "custom", asked, answer, contexts, options, explanation
    )


def _use(row: Row, column: str, field: str) -> Any:
    if column in row.values:
        row.used[column] = field
    return row.values.get(column)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _exact(row: Row, kind: str, exact: Any) -> str:
    name = "column 'exact_answer'"
    if kind == "yesno":
        answer = first_of(row, _as_list(exact), name).strip().casefold()
        if answer not in YES_NO:
            raise RowError("bad_type", f"{name}: expected yes or no")
        return answer
    if kind == "factoid":
        synonyms = [synonym for inner in _as_list(exact) for synonym in _as_list(inner)]
        return first_of(row, synonyms, name)
    if kind == "list":
        return ", ".join(first_of(row, _as_list(inner), name) for inner in _as_list(exact))
    raise RowError("bad_type", "column 'type': expected yesno, factoid, list or summary")

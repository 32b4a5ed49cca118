"""Questions as people have them: how options and the right one are given, several answers, published sets."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.record import Question
from lora_med.errors import DataError
from tests.data.own_rows import only, read_path, read_rows

ASKED = "Which one lowers fever?"
TWO = ("Salt", "Paracetamol")
FOUR = ("Salt", "Paracetamol", "Sand", "Ice")
LETTERS = dict(zip("ABCD", FOUR, strict=True))


def question(row: dict[str, Any], folder: Path, **options: Any) -> Question:
    record = only(folder, {"question": ASKED} | row, **options)
    assert isinstance(record, Question)
    return record


@pytest.mark.parametrize(
    "row",
    [
        {"options": LETTERS, "answer": "B"},
        {"options": LETTERS, "answer": "b"},
        {"options": LETTERS, "answer": "(B)"},
        {"options": LETTERS, "answer": "B. Paracetamol"},
        {"options": LETTERS, "answer": "Paracetamol"},
        {"options": LETTERS, "answer": "paracetamol "},
        {"options": LETTERS, "answer": ["B"]},
        {"options": LETTERS, "answer": "Paracetamol", "answer_idx": "B"},
        {"options": LETTERS, "answer_idx": "B"},
        {"options": LETTERS, "label": "B"},
        {"options": list(FOUR), "answer": "Paracetamol"},
        {"options": list(FOUR), "answer": "B"},
        {"options": json.dumps(list(FOUR)), "answer": "B"},
        {"options": str(LETTERS), "answer": "B"},
        {"choices": list(FOUR), "answer": 1},
        {"choices": list(FOUR), "label": 1},
        {"choices": {"text": list(FOUR), "label": ["A", "B", "C", "D"]}, "answerKey": "B", "answer": "B"},
        {"choices": {"text": list(FOUR), "label": ["1", "2", "3", "4"]}, "answer": "2"},
        {"options": [{"letter": key, "content": text} for key, text in LETTERS.items()], "label": "B"},
        {"options": [{"key": key, "value": text} for key, text in LETTERS.items()], "answer_idx": "B"},
        {"options": [{key: text} for key, text in LETTERS.items()], "answer": "B"},
        {"options": {"1": "Salt", "2": "Paracetamol", "3": "Sand", "4": "Ice"}, "answer": 2},
        {"options": LETTERS | {"E": None, "F": ""}, "answer": "B"},
        {**LETTERS, "answer": "B"},
        {**LETTERS, "E": "", "answer": "B"},
        {"opa": "Salt", "opb": "Paracetamol", "opc": "Sand", "opd": "Ice", "cop": "opb"},
        {"option_a": "Salt", "option_b": "Paracetamol", "option_c": "Sand", "option_d": "Ice", "answer": "b"},
        {"Option A": "Salt", "Option B": "Paracetamol", "Option C": "Sand", "Option D": "Ice", "Answer": "B"},
        {"option1": "Salt", "option2": "Paracetamol", "option3": "Sand", "option4": "Ice", "answer": 2},
        {"ending0": "Salt", "ending1": "Paracetamol", "ending2": "Sand", "ending3": "Ice", "label": 1},
        {"1": "Salt", "2": "Paracetamol", "3": "Sand", "4": "Ice", "answer": 2},
        {"answer_choices": list(FOUR), "correct": "B"},
        {"choice_1": "Salt", "choice_2": "Paracetamol", "choice_3": "Sand", "choice_4": "Ice", "answer": "choice_2"},
    ],
)
def test_every_way_to_give_four_options_and_the_right_one_reads_alike(tmp_path: Path, row: dict[str, Any]) -> None:
    found = question(row, tmp_path, ignore_columns=tuple({"answerKey"} & row.keys()))
    assert (found.question, found.options, found.answer) == (ASKED, FOUR, "Paracetamol")


def test_options_as_a_mapping_in_a_cell(tmp_path: Path) -> None:
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([("question", "options", "answer"), (ASKED, str({"A": "Salt", "B": "Ice"}), "Ice")])
    (found,) = read_path(tmp_path / "a.csv").records
    assert isinstance(found, Question) and (found.options, found.answer) == (("Salt", "Ice"), "Ice")


def numbered(*answers: Any, name: str = "answer", **more: Any) -> list[dict[str, Any]]:
    return [
        {"question": f"Which is number {n}?", "options": list(FOUR), name: answer, **more}
        for n, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("answers", "right", "remark"),
    [
        ((1, 0, 3), ("Paracetamol", "Salt", "Ice"), "from 0: a 0 occurs"),
        ((1, 2, 4), ("Salt", "Paracetamol", "Ice"), "from 1: a number equals that of the options"),
        (("1", "2", "4"), ("Salt", "Paracetamol", "Ice"), "from 1"),
        ((1.0, 4.0), ("Salt", "Ice"), "from 1"),
    ],
)
def test_numbers_count_from_where_the_whole_file_shows(
    tmp_path: Path, answers: tuple[Any, ...], right: tuple[str, ...], remark: str
) -> None:
    found = read_rows(tmp_path, *numbered(*answers))
    assert tuple(record.answer for record in found.records if isinstance(record, Question)) == right
    assert any(remark in line for line in found.notes.remarks)


@pytest.mark.parametrize(("form", "right"), [("from_0", "Sand"), ("from_1", "Paracetamol")])
def test_numbers_that_may_count_either_way_are_asked_for(tmp_path: Path, form: Any, right: str) -> None:
    with pytest.raises(DataError, match=r"count from 0 or count from 1") as caught:
        read_rows(tmp_path, *numbered(2, 1))
    assert "data.answer_form=text|letter|from_0|from_1" in str(caught.value)
    first, _ = read_rows(tmp_path, *numbered(2, 1), answer_form=form).records
    assert isinstance(first, Question) and first.answer == right


def test_0_in_some_rows_and_the_number_of_options_in_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 in some rows and the number of options in others"):
        read_rows(tmp_path, *numbered(0, 4))


def test_options_that_are_numbers_themselves_are_asked_for_where_it_matters(tmp_path: Path) -> None:
    rows = [{"question": "How many?", "options": ["2", "3", "4", "5"], "answer": "4"}]
    with pytest.raises(DataError, match="be the text of an option or count from 1"):
        read_rows(tmp_path, *rows)
    (found,) = read_rows(tmp_path, *rows, answer_form="text").records
    assert isinstance(found, Question) and found.answer == "4"
    rows.append({"question": "How many more?", "options": ["20", "30"], "answer": "30"})
    first, second = read_rows(tmp_path, *rows).records
    assert isinstance(first, Question) and isinstance(second, Question) and (first.answer, second.answer) == ("4", "30")


def test_a_letter_that_is_also_an_options_text_is_asked_for(tmp_path: Path) -> None:
    row = {"options": {"A": "B", "B": "O", "C": "AB"}, "answer": "B"}
    with pytest.raises(DataError, match=r"data\.answer_form"):
        question(row, tmp_path)
    assert question(row, tmp_path, answer_form="letter").answer == "O"
    assert question(row, tmp_path, answer_form="text").answer == "B"


def test_of_two_equal_options_the_letter_tells_the_right_one(tmp_path: Path) -> None:
    assert question({"options": {"A": "x", "B": "y", "C": "y"}, "answer": "C"}, tmp_path).right == 2


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"options": list(FOUR), "answer": "Aspirin"}, "one of the 4 options"),
        ({"options": list(FOUR), "answer": "E"}, "one of the 4 options"),
        ({"options": list(FOUR), "answer": ["A", "B"]}, "one right option, got a list of 2"),
        ({"options": list(FOUR), "answer": "Salt", "answer_idx": "B"}, "name different options"),
        ({"options": list(FOUR), "answer": None}, "got nothing"),
        ({"options": list(FOUR), "answer": True}, "got bool"),
        ({"options": "Salt, Paracetamol", "answer": "Salt"}, "expected a list or an object of options, got str"),
        ({"options": list(FOUR), "answer": 7, "choices": []}, "one of the 4 options"),
        ({"answer": True}, "column 'answer': expected a text, got bool"),
        ({"answer": {"value": "Salt", "aliases": []}}, "dict with the keys value, aliases"),
        ({"answer": ""}, "it is empty"),
    ],
)
def test_an_answer_that_names_no_option_is_refused(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        question(row, tmp_path)
    assert expected in str(caught.value) and "rows.jsonl:1" in str(caught.value)


def test_a_bool_answers_a_question_whose_options_are_yes_and_no(tmp_path: Path) -> None:
    assert question({"options": ["no", "yes"], "answer": True}, tmp_path).answer == "yes"


def test_questions_without_an_answer_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [*numbered(0, 3, -1), {"question": "Open?", "answers": {"text": [], "answer_start": []}}]
    found = read_rows(tmp_path, *rows)
    assert found.tally.dropped == {"empty_answer": 1, "unanswerable": 1} and found.tally.kept == 2


@pytest.mark.parametrize(
    ("answer", "first", "further"),
    [
        ("Swelling.", "Swelling.", 0),
        (["Swelling.", "Puffiness."], "Swelling.", 1),
        (["Swelling.", "Swelling.", "swelling.", "Fluid."], "Swelling.", 2),
        ({"text": ["Swelling."], "answer_start": [3]}, "Swelling.", 0),
        ([{"text": "Swelling.", "answer_start": 9}], "Swelling.", 0),
        (4, "4", 0),
        (37.5, "37.5", 0),
    ],
)
def test_of_several_answers_the_first_is_trained_and_the_others_are_counted(
    tmp_path: Path, answer: Any, first: str, further: int
) -> None:
    found = read_rows(tmp_path, {"question": "Define edema.", "answer": answer})
    (record,) = found.records
    assert isinstance(record, Question) and record.answer == first
    assert found.tally.parts_dropped == ({"further_answer": further} if further else {})


@pytest.mark.parametrize(
    "contexts",
    [
        {"context": "Iron rusts."},
        {"contexts": ["Iron rusts."]},
        {"contexts": "Iron rusts."},
        {"Context": "Iron rusts."},
        {"context": {"contexts": ["Iron rusts."], "labels": ["RESULTS"]}},
        {"contexts": [{"text": "Iron rusts.", "id": 1}]},
        {"contexts": json.dumps(["Iron rusts."])},
    ],
)
def test_a_context_in_singular_and_plural(tmp_path: Path, contexts: dict[str, Any]) -> None:
    assert question({"answer": "yes", **contexts}, tmp_path).contexts == ("Iron rusts.",)


def test_questions_on_one_context_are_one_group(tmp_path: Path) -> None:
    rows = [{"question": f"Is it {n}?", "context": "Iron rusts.", "answer": "no"} for n in range(3)]
    assert len({record.group for record in read_rows(tmp_path, *rows).records}) == 1


@pytest.mark.parametrize("nested", [True, False])
def test_squad_is_read_as_published(tmp_path: Path, nested: bool) -> None:
    asked = [
        {"id": "q1", "question": "What is edema?", "answers": [{"text": "swelling", "answer_start": 9}] * 3},
        {"id": "q2", "question": "Who?", "answers": [], "is_impossible": True, "plausible_answers": []},
    ]
    article = {"title": "Edema", "paragraphs": [{"context": "Edema is swelling.", "qas": asked}]}
    (tmp_path / "a.json").write_text(json.dumps({"version": "2.0", "data": [article]} if nested else [article]))
    found = read_path(tmp_path / "a.json")
    (record,) = found.records
    assert record == Question("q1", record.group, "custom", "What is edema?", "swelling", ("Edema is swelling.",))
    assert found.tally.dropped == {"unanswerable": 1}
    assert found.notes.columns["id"] == "uid" and "id" not in found.notes.unused_columns


GOLDEN = [
    {"id": "b1", "type": "yesno", "body": "Is edema swelling?", "exact_answer": "Yes", "ideal_answer": ["Yes, it is."],
     "snippets": [{"text": "Edema is swelling.", "document": "d"}], "documents": ["d"], "concepts": []},
    {"id": "b2", "type": "factoid", "body": "What is it?", "exact_answer": [["iron", "Fe"]], "ideal_answer": "Iron.",
     "snippets": []},
    {"id": "b3", "type": "list", "body": "Which?", "exact_answer": [["iron"], ["gold", "Au"]], "ideal_answer": "Two"},
    {"id": "b4", "type": "summary", "body": "Why?", "ideal_answer": ["Because."], "snippets": []},
]  # fmt: skip


@pytest.mark.parametrize("nested", [True, False])
def test_bioasq_is_read_as_published(tmp_path: Path, nested: bool) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"questions": GOLDEN} if nested else GOLDEN))
    found = read_path(tmp_path / "a.json")
    read = [
        (record.uid, record.question, record.answer, record.options, record.contexts, record.explanation)
        for record in found.records
        if isinstance(record, Question)
    ]
    assert read == [
        ("b1", "Is edema swelling?", "yes", ("yes", "no"), ("Edema is swelling.",), "Yes, it is."),
        ("b2", "What is it?", "iron", (), (), "Iron."),
        ("b3", "Which?", "iron, gold", (), (), "Two"),
        ("b4", "Why?", "Because.", (), (), ""),
    ]
    assert found.tally.parts_dropped == {"further_answer": 2}
    assert {"documents", "concepts"} <= found.notes.unused_columns.keys()


def test_mirage_is_read_as_published(tmp_path: Path) -> None:
    benchmark = {
        "mmlu": {"anatomy-000": {"question": ASKED, "options": dict(zip("AB", TWO, strict=True)), "answer": "B"}},
        "pubmedqa": {"31": {"question": "Is it?", "options": {"A": "yes", "B": "no", "C": "maybe"}, "answer": "C",
                            "PMID": [31]}},
    }  # fmt: skip
    (tmp_path / "benchmark.json").write_text(json.dumps(benchmark))
    first, second = read_path(tmp_path / "benchmark.json").records
    assert isinstance(first, Question) and isinstance(second, Question)
    assert (first.uid, first.options, first.answer) == ("mmlu:anatomy-000", TWO, "Paracetamol")
    assert (second.uid, second.answer) == ("pubmedqa:31", "maybe")


def test_medxpertqa_loses_the_choices_that_its_questions_repeat(tmp_path: Path) -> None:
    listed = " ".join(f"({key}) {text}" for key, text in LETTERS.items())
    row = {"id": "Text-0", "question": f"{ASKED}\nAnswer Choices: {listed}", "options": LETTERS, "label": "B",
           "medical_task": "Treatment", "body_system": "Other"}  # fmt: skip
    found = only(tmp_path, row)
    assert (found.question, found.options, found.answer) == (ASKED, FOUR, "Paracetamol")
    other = only(tmp_path, row | {"options": LETTERS | {"D": "Rest"}})
    assert other.question == row["question"], "choices that are no options stay"

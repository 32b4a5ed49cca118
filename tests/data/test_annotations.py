"""Rows as annotation tools export them: recognized, read to spans, rejected rows left out, faults named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.outcome import PartDrop
from lora_med.data.record import Annotated, Span
from lora_med.data.shapes.annotations import annotated_columns, annotated_shape, read_annotated
from lora_med.data.shapes.class_names import class_names
from lora_med.data.shapes.row_error import Rejected, RowError
from lora_med.errors import DataError
from tests.data.own_rows import read_rows

TEXT = "Fever after aspirin."
FEVER, ASPIRIN = Span(0, 5, "Disease", "Fever"), Span(12, 19, "Chemical", "aspirin")


def task(*annotations: dict[str, Any], **data: str) -> dict[str, Any]:
    return {"id": 1, "data": data or {"text": TEXT}, "annotations": list(annotations), "predictions": [{"result": []}]}


def result(start: int, end: int, label: str, **value: Any) -> dict[str, Any]:
    return {
        "from_name": "label",
        "to_name": "text",
        "type": "labels",
        "value": {"start": start, "end": end, "labels": [label], **value},
    }


BOTH = [result(0, 5, "Disease", text="Fever"), result(12, 19, "Chemical", text="aspirin")]
ENTITIES = [{"start": 0, "end": 5, "label": "Disease"}, {"start": 12, "end": 19, "label": "Chemical"}]
DOCCANO = [[0, 5, "Disease"], [12, 19, "Chemical"]]
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "doccano label": ("doccano", {"id": 1, "text": TEXT, "label": DOCCANO, "Comments": []}),
    "doccano labels": ("doccano", {"text": TEXT, "labels": DOCCANO}),
    "doccano data": ("doccano", {"id": 1, "data": TEXT, "label": DOCCANO}),
    "doccano relations": (
        "doccano",
        {
            "id": 1,
            "text": TEXT,
            "entities": [
                {"id": 0, "label": "Disease", "start_offset": 0, "end_offset": 5},
                {"id": 1, "label": "Chemical", "start_offset": 12, "end_offset": 19},
            ],
            "relations": [{"id": 0, "from_id": 0, "to_id": 1, "type": "after"}],
        },
    ),
    "doccano in a cell": ("doccano", {"text": TEXT, "label": json.dumps(DOCCANO)}),
    "spaCy": ("doccano", {"text": TEXT, "entities": DOCCANO}),
    "Label Studio, short": (
        "doccano",
        {"text": TEXT, "label": [{**one["value"]} for one in BOTH], "annotator": 1, "lead_time": 2.5},
    ),
    "prodigy": (
        "prodigy",
        {
            "text": TEXT,
            "tokens": [{"text": "Fever", "start": 0, "end": 5, "id": 0}],
            "spans": [{**one, "token_start": 0, "token_end": 0} for one in ENTITIES],
            "_input_hash": 1,
            "_task_hash": 2,
            "answer": "accept",
        },
    ),
    "Label Studio": ("Label Studio", task({"id": 2, "result": BOTH, "was_cancelled": False})),
    "Label Studio, another field": (
        "Label Studio",
        task({"result": [{**one, "to_name": "note"} for one in BOTH]}, author="Roe", note=TEXT),
    ),
    "Label Studio, hypertext": (
        "Label Studio",
        task(
            {
                "result": [
                    {
                        **one,
                        "type": "hypertextlabels",
                        "value": {
                            "start": "/p[1]/text()[1]",
                            "end": "/p[1]/text()[1]",
                            "globalOffsets": {"start": one["value"]["start"], "end": one["value"]["end"]},
                            "hypertextlabels": one["value"]["labels"],
                        },
                    }
                    for one in BOTH
                ]
            }
        ),
    ),
    "BigBio": (
        "BigBio",
        {
            "id": "0",
            "document_id": "7",
            "passages": [{"id": "1", "type": "text", "text": [TEXT], "offsets": [[0, 20]]}],
            "entities": [
                {"id": "2", "type": "Disease", "text": ["Fever"], "offsets": [[0, 5]], "normalized": []},
                {"id": "3", "type": "Chemical", "text": ["aspirin"], "offsets": [[12, 19]], "normalized": []},
            ],
            "events": [],
            "relations": [],
        },
    ),
    "our own": (
        "text and spans",
        {
            "uid": "a",
            "text": TEXT,
            "spans": [
                {"start": 0, "end": 5, "type": "Disease", "text": "Fever"},
                {"start": 12, "end": 19, "type": "Chemical", "text": "aspirin"},
            ],
        },
    ),
}
TAGGED = {"id": "0", "tokens": ["Fever", "after", "aspirin", "."], "ner_tags": ["B-Disease", "O", "B-Chemical", "O"]}


@pytest.mark.parametrize("name", ROWS)
def test_a_tool_s_row_gives_its_text_and_mentions(name: str) -> None:
    shape, values = ROWS[name]
    assert annotated_shape(values) == shape
    assert read_annotated(shape, values, "a.jsonl:1") == (TEXT, (FEVER, ASPIRIN), [])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ner_tags": "['B-Disease', 'O', 'B-Chemical', 'O']"},
        {"ner_tags": ["U-Disease", "O", "S-Chemical", "O"]},
        {"ner_tags": ["I-Disease", "O", "I-Chemical", "O"]},
        {"ner_tags": [3, 0, 1, 0]},
        {"ner_tags": ["3", "0", "1", "0"]},
    ],
)
def test_tokens_are_joined_by_blanks_and_their_tags_are_spans(change: dict[str, Any]) -> None:
    values = TAGGED | change
    assert annotated_shape(values) == "tokens and tags"
    labels = ("O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease")
    text, spans, drops = read_annotated("tokens and tags", values, "a:1", labels)
    assert (text, spans, drops) == ("Fever after aspirin .", (FEVER, ASPIRIN), [])


def test_tokens_of_blanks_only_are_not_in_the_text() -> None:
    values = {"tokens": ["Fever", "\n", "", "after", " ", "aspirin"], "ner_tags": ["B-D", "O", "O", "O", "O", "B-C"]}
    text, spans, _ = read_annotated("tokens and tags", values, "a:1")
    assert text == "Fever after aspirin" and spans == (Span(0, 5, "D", "Fever"), Span(12, 19, "C", "aspirin"))
    with pytest.raises(RowError, match="item 4: expected O or a tag"):
        read_annotated("tokens and tags", {**values, "ner_tags": ["B-D", "O", "O", "X-D", "O", "O"]}, "a:1")


def test_the_columns_that_a_shape_uses_are_named() -> None:
    used = {name: annotated_columns(shape, values) for name, (shape, values) in ROWS.items()}
    assert used["doccano label"] == ("text", "label")
    assert used["prodigy"] == ("text", "spans", "answer")
    assert used["BigBio"] == ("passages", "entities")
    assert used["Label Studio"] == ("data", "annotations")
    assert annotated_columns("tokens and tags", TAGGED) == ("tokens", "ner_tags")


@pytest.mark.parametrize(
    "values",
    [
        {"text": TEXT, "label": ["pos"]},
        {"text": TEXT, "label": "pos"},
        {"text": TEXT, "label": []},
        {"text": TEXT, "entities": ["aspirin"]},
        {"text": TEXT},
        {"tokens": ["Fever"], "id": 1},
        {"data": {"text": TEXT}},
        {"question": "Why?", "answer": "So.", "labels": [[0, 5, "Disease"]]},
    ],
)
def test_a_row_of_another_kind_has_no_annotated_shape(values: dict[str, Any]) -> None:
    assert annotated_shape(values) is None


def test_a_row_without_mentions_beside_rows_with_some_is_a_text_without_mentions() -> None:
    for shape, values in (
        ("doccano", {"text": TEXT, "label": []}),
        ("prodigy", {"text": TEXT, "answer": "accept"}),
        ("Label Studio", task({"result": []})),
        ("text and spans", {"text": TEXT, "spans": []}),
    ):
        assert read_annotated(shape, values, "a:1") == (TEXT, (), [])


@pytest.mark.parametrize(
    ("shape", "values", "reason"),
    [
        ("prodigy", {"text": TEXT, "spans": ENTITIES, "answer": "reject"}, "not_accepted"),
        ("prodigy", {"text": TEXT, "spans": ENTITIES, "answer": "ignore"}, "not_accepted"),
        ("Label Studio", task(), "not_annotated"),
        ("Label Studio", task({"result": BOTH, "was_cancelled": True}), "skipped"),
    ],
)
def test_what_the_annotator_rejected_or_skipped_is_not_read(shape: str, values: dict[str, Any], reason: str) -> None:
    assert annotated_shape(values) == shape
    with pytest.raises(Rejected) as caught:
        read_annotated(shape, values, "a:1")
    assert caught.value.reason == reason


def test_of_several_annotators_the_ground_truth_or_what_all_agree_on_is_read() -> None:
    one, other = {"result": BOTH}, {"result": BOTH[:1]}
    assert read_annotated("Label Studio", task(one, one), "a:1")[1] == (FEVER, ASPIRIN)
    assert read_annotated("Label Studio", task(one, other | {"ground_truth": True}), "a:1")[1] == (FEVER,)
    assert read_annotated("Label Studio", task(one, other | {"was_cancelled": True}), "a:1")[1] == (FEVER, ASPIRIN)
    with pytest.raises(RowError, match="2 annotators, who do not agree"):
        read_annotated("Label Studio", task(one, other), "a:1")


def test_offsets_of_javascript_are_corrected_where_the_texts_prove_it() -> None:
    text = "😷 Fever after aspirin."
    shifted = [result(3, 8, "Disease", text="Fever"), result(15, 22, "Chemical", text="aspirin")]
    found = read_annotated("Label Studio", task({"result": shifted}, text=text), "a:1")
    assert [(span.start, span.end, span.text) for span in found[1]] == [(2, 7, "Fever"), (14, 21, "aspirin")]


def test_a_mention_that_does_not_fit_is_left_out_and_the_row_stays() -> None:
    values = {"text": TEXT, "label": [*DOCCANO, [5, 2, "Disease"], [90, 95, "Disease"]]}
    text, spans, drops = read_annotated("doccano", values, "a.jsonl:1")
    assert (text, spans) == (TEXT, (FEVER, ASPIRIN))
    assert drops == [PartDrop("empty_mention", "a.jsonl:1"), PartDrop("outside_text", "a.jsonl:1")]


def test_a_discontinuous_entity_is_left_out_and_pieces_side_by_side_are_one() -> None:
    entities = [
        {"type": "Disease", "text": ["Fever", "aspirin"], "offsets": [[0, 5], [12, 19]]},
        {"type": "Time", "text": ["after", "aspirin"], "offsets": [[6, 11], [12, 19]]},
    ]
    values = {**ROWS["BigBio"][1], "entities": entities}
    _, spans, drops = read_annotated("BigBio", values, "a:1")
    assert spans == (Span(6, 19, "Time", "after aspirin"),)
    assert [drop.reason for drop in drops] == ["discontinuous"]


def test_passages_are_laid_out_at_their_offsets() -> None:
    passages = [
        {"type": "title", "text": ["On fever."], "offsets": [[0, 9]]},
        {"type": "abstract", "text": [TEXT], "offsets": [[10, 30]]},
    ]
    entities = [{"type": "Disease", "text": ["Fever"], "offsets": [[10, 15]]}]
    text, spans, _ = read_annotated("BigBio", {"passages": passages, "entities": entities}, "a:1")
    assert (text, spans) == (f"On fever. {TEXT}", (Span(10, 15, "Disease", "Fever"),))


@pytest.mark.parametrize(
    ("shape", "values", "said"),
    [
        ("doccano", {"text": TEXT, "label": ["pos"]}, "column 'label', item 1: expected an object"),
        ("doccano", {"text": TEXT, "label": [[0, 5]]}, r"item 1: expected \[start, end, type\]"),
        ("doccano", {"text": TEXT, "label": [[80, 85, "D"], [90, 95, "D"]]}, "none of the 2 mentions fits"),
        ("doccano", {"text": " ", "label": DOCCANO}, "column 'text': expected a text, it is empty"),
        (
            "doccano",
            {
                "text": TEXT,
                "tokens": ["Fever", "after", "aspirin", "."],
                "entities": [{"start": 2, "end": 3, "type": "D"}],
            },
            r"may count characters or the 4 tokens of column 'tokens'.*data\.ignore_columns=tokens",
        ),
        ("prodigy", {"text": TEXT, "spans": ENTITIES, "answer": "accept", "_is_binary": True}, "not all: merge them"),
        ("text and spans", {"text": TEXT, "spans": None}, "column 'spans': expected a list, got nothing"),
        ("text and spans", {"text": TEXT, "spans": [{"start": 0, "end": "5"}]}, "as whole numbers"),
        ("tokens and tags", TAGGED | {"ner_tags": ["O"]}, "4 tokens, and 1 tags"),
        ("tokens and tags", TAGGED | {"ner_tags": [3, 0, 1, 0]}, r"name the classes in order in data\.labels"),
        ("tokens and tags", TAGGED | {"ner_tags": ["X-D", "O", "O", "O"]}, "item 1: expected O or a tag"),
        ("Label Studio", task({"result": [result(0, 5, "D") | {"type": "paragraphlabels"}]}), "not of one text"),
        ("Label Studio", task({"result": BOTH}, first=TEXT, second=TEXT), "the texts are first, second"),
    ],
)
def test_a_row_that_does_not_have_its_shape_is_named_without_its_text(
    shape: str, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(RowError, match=said) as caught:
        read_annotated(shape, values, "a:1")
    assert "aspirin" not in str(caught.value)


def test_the_names_of_class_numbers_are_in_a_parquet_file_s_metadata(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["O", "B-Disease", "I-Disease"]
    features = datasets.Features(
        tokens=datasets.Sequence(datasets.Value("string")),
        ner_tags=datasets.Sequence(datasets.ClassLabel(names=names)),
        label=datasets.ClassLabel(names=["no", "yes"]),
    )
    rows = {"tokens": [["Fever", "."]], "ner_tags": [[1, 0]], "label": [1]}
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    assert class_names(path) == tuple(names)
    assert class_names(path, ("label",)) == ("no", "yes")
    assert class_names(path, ("tokens",)) == ()
    assert class_names(tmp_path / "rows.jsonl") == ()


ODD_VALUES = (
    None,
    True,
    -1,
    10**30,
    0.5,
    float("nan"),
    "",
    " ",
    "x",
    "\ud800",
    "[",
    "[1",
    "{'a': }",
    [],
    {},
    [[]],
    [None],
)


def odd(value: Any, draw: random.Random) -> Any:
    """The value with one of its parts replaced by an odd one, or removed."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        changed = value.copy()
        key = draw.choice(list(changed)) if isinstance(changed, dict) else draw.randrange(len(changed))
        if draw.random() < 0.15:
            del changed[key]
        else:
            changed[key] = odd(changed[key], draw)
        return changed
    return draw.choice(ODD_VALUES)


@pytest.mark.parametrize("name", [*ROWS, "tokens"])
def test_odd_values_anywhere_give_sound_records_or_a_named_error(name: str) -> None:
    shape, values = ROWS.get(name, ("tokens and tags", TAGGED))
    draw = random.Random(f"odd {name}")
    errors = sound = 0
    for _ in range(2000):
        changed = odd(values, draw)
        if not isinstance(changed, dict):
            continue
        for found in {shape, annotated_shape(changed)} - {None}:
            try:
                text, spans, _ = read_annotated(found, changed, "a:1", ("O", "B-Disease"))
                annotated_columns(found, changed)
            except (RowError, Rejected) as error:
                assert error.reason
                errors += 1
                continue
            sound += 1
            assert text.strip() and text.encode()
            assert all(text[one.start : one.end] == one.text and one.type.encode() for one in spans)
    assert errors > 20 and sound > 20


def _task(number: int, *results: dict[str, Any], text: str = "Fever and more.") -> dict[str, Any]:
    return {"id": number, "annotations": [{"id": number, "result": list(results)}], "data": {"text": text}}


FEVER_RESULT = {"type": "labels", "value": {"start": 0, "end": 5, "text": "Fever", "labels": ["Disease"]}}
CHOICE_RESULT = {"type": "choices", "value": {"choices": ["Sick"]}}


def test_classes_of_label_studio_are_counted_beside_mentions_and_refused_alone(tmp_path: Path) -> None:
    found = read_rows(tmp_path, _task(1, FEVER_RESULT, CHOICE_RESULT))
    assert found.tally.parts_dropped == {"other_result": 1} and len(found.records) == 1
    with pytest.raises(DataError, match="results of the type choices are of the whole text"):
        read_rows(tmp_path, _task(1, CHOICE_RESULT))


def test_marks_in_html_are_refused_and_no_record_loses_them(tmp_path: Path) -> None:
    mark = {"type": "hypertextlabels", "value": {"start": "/p[1]", "end": "/p[1]", "text": "Fever",
            "globalOffsets": {"start": 0, "end": 5}, "hypertextlabels": ["Disease"]}}  # fmt: skip
    with pytest.raises(DataError, match="the text is HTML"):
        read_rows(tmp_path, _task(1, mark, text="<p>Fever</p>"))


def test_skipped_rows_of_prodigy_without_spans_are_dropped_and_empty_ones_have_no_mentions(tmp_path: Path) -> None:
    tokens = [{"text": "Fever", "start": 0, "end": 5, "id": 0}]
    task = {"tokens": tokens, "_input_hash": 1, "_task_hash": 2, "_view_id": "ner_manual"}
    span = {"start": 0, "end": 5, "label": "Disease"}
    found = read_rows(
        tmp_path,
        {"text": "Fever", "spans": [span], "answer": "accept", **task},
        {"text": "Ill.", "answer": "ignore", **task},
        {"text": "Well.", "answer": "accept", **task},
    )
    assert found.tally.dropped == {"not_accepted": 1}
    assert [len(record.spans) for record in found.records if isinstance(record, Annotated)] == [1, 0]

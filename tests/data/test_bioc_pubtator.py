"""BioC and PubTator files as they are met: lines, envelopes of PubTator 3, odd offsets, mentions that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadOptions, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated
from lora_med.errors import DataError

ASPIRIN = (0, 7, "Chemical", "Aspirin")


def annotation(start: int, length: int, text: str | None, kind: str | None = "Chemical") -> dict[str, Any]:
    infons = {"identifier": "MESH:D001241", "valid": True} | ({"type": kind} if kind else {})
    return {"id": "1", "infons": infons, "text": text, "locations": [{"offset": start, "length": length}]}


def passage(offset: int, text: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"infons": {}, "offset": offset, "text": text, "sentences": [], "annotations": list(annotations)}


def document(name: object, *passages: dict[str, Any]) -> dict[str, Any]:
    return {"_id": f"{name}|None", "id": name, "infons": {}, "passages": list(passages), "pmid": 1, "relations": []}


FIRST = document("1", passage(0, "Aspirin and fever.", annotation(0, 7, "Aspirin")))
SECOND = document("2", passage(0, "Aspirin, no fever.", annotation(0, 7, "Aspirin")))


def read(path: Path, content: str, source: str = "bioc", *, skip_bad: bool = False) -> tuple[list[Annotated], Tally]:
    path.write_bytes(content.encode("utf-8"))
    reading = read_records(find_source(source), [path], ReadOptions(), skip_bad=skip_bad)
    records = list(reading)
    assert all(isinstance(record, Annotated) for record in records)
    return records, reading.tally  # type: ignore[return-value]


def entities(record: Annotated) -> list[tuple[int, int, str, str]]:
    return [(span.start, span.end, span.type, span.text) for span in record.spans]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"PubTator3": [FIRST, SECOND]}),
        json.dumps({"documents": [FIRST, SECOND]}),
        json.dumps([{"documents": [FIRST]}, {"documents": [SECOND]}]),
        json.dumps([FIRST, SECOND]),
        f"{json.dumps(FIRST)}\n{json.dumps(SECOND)}\n",
        f"{json.dumps(FIRST, indent=1)}\n{json.dumps(SECOND, indent=1)}",
        f"{json.dumps({'documents': [FIRST]})}\n{json.dumps({'documents': [SECOND]})}",
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_documents_are_found_in_each_envelope(content: str, ending: str, tmp_path: Path) -> None:
    records, _ = read(tmp_path / f"a.{ending}", content)
    assert [(record.uid, record.group) for record in records] == [("bioc:1", "1"), ("bioc:2", "2")]
    assert [entities(record) for record in records] == [[ASPIRIN], [ASPIRIN]]


def test_a_bad_line_does_not_affect_the_others(tmp_path: Path) -> None:
    content = f"{json.dumps(FIRST)}\n{{broken\n{json.dumps({'a': 1})}\n{json.dumps(SECOND)}\n"
    with pytest.raises(DataError, match="not one JSON object") as caught:
        read(tmp_path / "a.jsonl", content)
    assert (caught.value.where or "").endswith("a.jsonl:2")
    records, tally = read(tmp_path / "a.jsonl", content, skip_bad=True)
    assert [record.uid for record in records] == ["bioc:1", "bioc:2"] and tally.dropped == {"bad": 2}


@pytest.mark.parametrize(("_id", "uid"), [("12|PMC3", "bioc:12"), ("None|PMC3", "bioc:PMC3"), ("12|None", "bioc:12")])
def test_a_document_without_id_has_that_of_its_export(_id: str, uid: str, tmp_path: Path) -> None:
    values = {name: value for name, value in FIRST.items() if name != "id"} | {"_id": _id}
    assert read(tmp_path / "a.json", json.dumps(values))[0][0].uid == uid


def test_a_mention_that_does_not_fit_costs_itself_only(tmp_path: Path) -> None:
    odd = [annotation(12, 5, "FEVER"), annotation(90, 5, "fever"), annotation(8, 3, "and", None), annotation(7, 0, "")]
    values = document("1", passage(0, "Aspirin and fever.", annotation(0, 7, "Aspirin"), *odd))
    (record,), tally = read(tmp_path / "a.json", json.dumps(values))
    assert entities(record) == [ASPIRIN]
    assert tally.parts_dropped == {"empty_mention": 1, "no_type": 1, "outside_text": 1, "text_differs": 1}


def test_a_mention_without_its_text_is_the_text_at_its_location(tmp_path: Path) -> None:
    values = document("1", passage(0, "Aspirin and fever.", annotation(0, 7, None)))
    assert entities(read(tmp_path / "a.json", json.dumps(values))[0][0]) == [ASPIRIN]


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ([annotation(0, 7, "Aspirin", None)], "an infon of the key type"),
        ([annotation(1, 7, "Aspirin"), annotation(11, 5, "fever")], "none of the 2 annotations has the text"),
        ([{**annotation(0, 7, "Aspirin"), "locations": [{"offset": "0", "length": 7}]}], "an offset and a length"),
    ],
)
def test_a_document_whose_annotations_are_of_another_text_is_refused(
    annotations: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.json", json.dumps(document("1", passage(0, "Aspirin and fever.", *annotations))))


def test_passages_that_each_count_on_their_own_are_joined_where_mentions_prove_it(tmp_path: Path) -> None:
    passages = (
        passage(0, "On aspirin.", annotation(3, 7, "aspirin")),
        passage(0, "Aspirin.", annotation(0, 7, "Aspirin")),
    )
    (record,), _ = read(tmp_path / "a.json", json.dumps(document("1", *passages)))
    assert record.text == "On aspirin. Aspirin."
    assert entities(record) == [(3, 10, "Chemical", "aspirin"), (12, 19, "Chemical", "Aspirin")]
    odd = passage(0, "Aspirin.", annotation(0, 7, "Aspirin"), annotation(0, 4, "iron"))
    with pytest.raises(DataError, match="the passages overlap"):
        read(tmp_path / "c.json", json.dumps(document("1", passage(0, "On aspirin."), odd)))
    with pytest.raises(DataError, match="the passages overlap"):
        read(tmp_path / "b.json", json.dumps(document("1", passage(0, "On aspirin."), passage(0, "Aspirin."))))


def test_passages_are_read_in_the_order_of_their_offsets(tmp_path: Path) -> None:
    values = document("1", passage(12, "Then.", annotation(12, 4, "Then", "Time")), passage(0, "First this."))
    (record,), _ = read(tmp_path / "a.json", json.dumps(values))
    assert record.text == "First this. Then." and entities(record) == [(12, 16, "Time", "Then")]


PUBTATOR = "1|t|Fever.\n1|a|None seen.\n"


@pytest.mark.parametrize(
    "rows",
    [
        "1\t0\t5\tFever\tDisease\n",
        "1\t0\t5\tFever\tDisease\t\n",
        "1\t0\t5\tFever\tDisease\t\t\t\n",
        "1\t0\t5\tFever\tDisease\tD005334\r\n",
        "1\t0\t5\tFever\tDisease\tD005334\n1\tCID\tD001\tD002\n",
        "1\t0\t5\tFever\tDisease\tD005334\n1\tAssociation\tD005334\t672\tNovel\n",
        "1\t0\t5\tFever\tDisease\t1\n1\tBind\t673\t672\tNo\n",
        "1\t0\t5\tFever\tDisease\t1\n1\tcause\tChemical|MESH:D001\tDisease|MESH:D005334\n",
    ],
)
def test_rows_of_pubtator_may_lack_an_identifier_or_be_relations(rows: str, tmp_path: Path) -> None:
    (record,), tally = read(tmp_path / "a.txt", PUBTATOR + rows, "bc5cdr")
    assert entities(record) == [(0, 5, "Disease", "Fever")]
    assert (record.text, tally.parts_dropped) == ("Fever. None seen.", {})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1\t7\t11\tSome\tDisease\tD1", "text_differs"),
        ("1\t7\t1100\tNone\tDisease\tD1", "outside_text"),
        ("1\t11\t7\tNone\tDisease\tD1", "empty_mention"),
        ("1\t7\t11\tNone\t \tD1", "no_type"),
    ],
)
def test_a_mention_of_pubtator_that_does_not_fit_costs_itself_only(row: str, reason: str, tmp_path: Path) -> None:
    (record,), tally = read(tmp_path / "a.txt", f"{PUBTATOR}1\t0\t5\tFever\tDisease\tD1\n{row}\n", "bc5cdr")
    assert entities(record) == [(0, 5, "Disease", "Fever")]
    assert tally.parts_dropped == {reason: 1}


def test_a_document_may_lack_its_abstract_and_the_empty_line_after_it(tmp_path: Path) -> None:
    content = "1|t|Fever.\n1\t0\t5\tFever\tDisease\nPMC2|t|Rash.\nPMC2|a|Mild.\nPMC2\t0\t4\tRash\tDisease\n"
    records, _ = read(tmp_path / "a.txt", content, "bc5cdr")
    assert [(record.uid, record.group, record.text) for record in records] == [
        ("pmid:1", "1", "Fever. "),
        ("pmc:PMC2", "PMC2", "Rash. Mild."),
    ]
    assert [entities(record)[0][3] for record in records] == ["Fever", "Rash"]


def test_offsets_in_bytes_are_corrected_where_the_mentions_prove_it(tmp_path: Path) -> None:
    content = "1|t|α-rash.\n1|a|Fever.\n1\t0\t7\tα-rash\tDisease\n1\t9\t14\tFever\tDisease\n"
    (record,), _ = read(tmp_path / "a.txt", content, "bc5cdr")
    assert entities(record) == [(0, 6, "Disease", "α-rash"), (8, 13, "Disease", "Fever")]


def test_a_document_whose_mentions_are_of_another_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 2 mentions is the text at its offsets"):
        read(tmp_path / "a.txt", f"{PUBTATOR}1\t0\t4\tRash\tDisease\n1\t7\t11\tSome\tDisease\n", "bc5cdr")


def test_documents_of_one_text_under_two_names_are_read_and_counted(tmp_path: Path) -> None:
    second = document("2", passage(0, "Aspirin and fever.", annotation(0, 7, "Aspirin")))
    third = document("1", passage(0, "Aspirin and fever.", annotation(0, 7, "Aspirin")))
    content = "".join(json.dumps(item) + "\n" for item in (FIRST, second, third))
    records, tally = read(tmp_path / "a.json", content)
    assert [record.group for record in records] == ["1", "2"]
    assert tally == Tally(3, 2, {"duplicate": 1}, repeated=1)
    assert str(tally).endswith("dropped: duplicate 1; 1 repeats the text of another: left out of training")


def test_a_nul_character_costs_its_document_and_no_other(tmp_path: Path) -> None:
    content = "1|t|A\0B\n1|a|\n\n2|t|Fever.\n2|a|\n2\t0\t5\tFever\tDisease\n"
    with pytest.raises(DataError, match="line 1 holds a NUL character"):
        read(tmp_path / "a.txt", content, "bc5cdr")
    records, tally = read(tmp_path / "a.txt", content, "bc5cdr", skip_bad=True)
    assert [record.group for record in records] == ["2"] and tally.dropped == {"bad": 1}

"""Preferences are read from texts and from turns; pairs that prefer nothing are dropped by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lora_med.audit.deidentify import deidentified
from lora_med.audit.identifiers import Identifier
from lora_med.cli.main import run
from lora_med.data.formats.jsonl import as_json
from lora_med.data.in_memory import memory_rows
from lora_med.data.record import Pair, content, texts_of
from lora_med.data.shapes.preferences import mined_by
from lora_med.errors import DataError
from tests.data.own_rows import only, read_path, read_rows

ASKED, GOOD, BAD = "What is edema?", "Swelling by fluid.", "A drug."
ROW = {"prompt": ASKED, "chosen": GOOD, "rejected": BAD}
USER = {"role": "user", "content": ASKED}
SIDES = {
    "chosen": [USER, {"role": "assistant", "content": GOOD}],
    "rejected": [USER, {"role": "assistant", "content": BAD}],
}
ANSWERS = {name: turns[1:] for name, turns in SIDES.items()}


def said(record: Any) -> tuple[Any, ...]:
    return record.history, record.input, record.output, record.rejected


def test_a_text_prompt_has_two_answers_and_is_no_conversation(tmp_path: Path) -> None:
    record = only(tmp_path, ROW)
    assert said(record) == ((), ASKED, GOOD, BAD)
    assert not record.is_conversation


@pytest.mark.parametrize(
    "row",
    [
        SIDES,
        {"prompt": ASKED, **SIDES},
        {"prompt": ASKED, **ANSWERS},
        {"prompt": [USER], **ANSWERS},
        {"prompt": [USER], **SIDES},
    ],
    ids=["sides", "prompt and sides", "prompt and answers", "turns and answers", "turns and sides"],
)
def test_the_layouts_of_turns_give_one_record(tmp_path: Path, row: dict[str, Any]) -> None:
    record = only(tmp_path, row)
    assert said(record) == ((), ASKED, GOOD, BAD)
    assert record.is_conversation


def test_earlier_turns_and_a_system_text_stay_before_the_question(tmp_path: Path) -> None:
    before = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    row = {name: [*before, *turns] for name, turns in SIDES.items()} | {"system": "Be brief."}
    record = only(tmp_path, row)
    assert record.history == (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."))
    assert (record.input, record.output, record.rejected) == (ASKED, GOOD, BAD)


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_every_container_holds_preferences_under_mapped_names(tmp_path: Path, kind: str) -> None:
    row = {"question_text": ASKED, "better": GOOD, "worse": BAD}
    path = tmp_path / f"pairs.{kind}"
    if kind == "json":
        path.write_text(json.dumps([row]))
    elif kind == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(row))
            writer.writeheader()
            writer.writerow(row)
    else:
        pq.write_table(pa.Table.from_pylist([row]), path)
    columns = {"prompt": "question_text", "chosen": "better", "rejected": "worse"}
    (record,) = read_path(path, columns=columns).records
    assert said(record) == ((), ASKED, GOOD, BAD)


def test_a_conversation_beside_the_pair_does_not_hide_it(tmp_path: Path) -> None:
    """As in UltraFeedback: `messages` repeats the chosen side, and scores stand beside both."""
    row = {"prompt": ASKED, **SIDES, "messages": SIDES["chosen"], "score_chosen": 8.0, "score_rejected": 2.0}
    found = read_rows(tmp_path, row)
    assert said(found.records[0]) == ((), ASKED, GOOD, BAD)
    assert {"messages", "score_chosen", "score_rejected"} <= set(found.notes.unused_columns)


def test_the_chosen_side_alone_is_read_where_the_other_is_left_out_by_name(tmp_path: Path) -> None:
    columns = {"prompt": "prompt", "completion": "chosen"}
    with pytest.raises(DataError, match="'rejected' holds content"):
        only(tmp_path, ROW, columns=columns)
    record = only(tmp_path, ROW, columns=columns, ignore_columns=("rejected",))
    assert said(record) == ((), ASKED, GOOD, "")


def test_two_equal_answers_are_dropped_by_name(tmp_path: Path) -> None:
    found = read_rows(tmp_path, ROW, ROW | {"rejected": f" {GOOD}\n"}, dict.fromkeys(SIDES, SIDES["chosen"]))
    assert [said(record)[-1] for record in found.records] == [BAD]
    assert found.tally.dropped == {"same_answer": 2}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"chosen": GOOD, "rejected": BAD}, "no column 'prompt'"),
        (ROW | {"rejected": ""}, "'rejected'"),
        (ROW | {"chosen": None}, "'chosen'"),
        (SIDES | {"rejected": [USER | {"content": "Other?"}, *ANSWERS["rejected"]]}, "the same turns but for the last"),
        ({"prompt": "Another question?", **SIDES}, "one of the questions in the turns"),
        ({"prompt": ASKED, "chosen": ANSWERS["chosen"], "rejected": BAD}, "the same turns but for the last"),
        (ROW | {"reasoning": "Think."}, "reasoning before an answer"),
        (ROW | {"completion": "A third."}, "'completion' holds content"),
        (SIDES | {"chosen": [USER]}, "the last two turns"),
    ],
)
def test_what_is_no_pair_is_refused_by_name(tmp_path: Path, row: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError) as caught:
        only(tmp_path, row)
    assert named in str(caught.value)
    assert GOOD not in str(caught.value) and BAD not in str(caught.value)


@pytest.mark.parametrize("row", [ROW, SIDES, {"prompt": ASKED, "system": "Be brief.", **ANSWERS}])
def test_a_preference_is_written_and_read_back(tmp_path: Path, row: dict[str, Any]) -> None:
    record = only(tmp_path, row)
    values = as_json(record)
    assert {"prompt", "chosen", "rejected"} <= values.keys() and not {"input", "output"} & values.keys()
    again = only(tmp_path, values)
    assert said(again) == said(record) and again.is_conversation == record.is_conversation


def test_both_answers_count_as_content(tmp_path: Path) -> None:
    record = only(tmp_path, ROW)
    other = only(tmp_path, ROW | {"rejected": "A fever."})
    assert content(record) != content(other)
    assert texts_of(record) == (ASKED, GOOD, BAD)
    digests = {memory_rows("train", [each], source="custom").sha256 for each in (record, other)}
    assert len(digests) == 2


def test_the_group_is_the_prompt_so_that_it_is_in_one_split(tmp_path: Path) -> None:
    first, second, third = read_rows(
        tmp_path, ROW, ROW | {"chosen": "Fluid in tissue."}, ROW | {"prompt": "What is gout?"}
    ).records
    assert first.group == second.group != third.group


def test_what_a_check_made_says_so(tmp_path: Path) -> None:
    found = read_rows(tmp_path, ROW | {"mined_by": mined_by("faithfulness")})
    (remark,) = found.notes.remarks
    assert remark.startswith("pairs made by faithfulness: this check is never the score")
    assert not read_rows(tmp_path, ROW | {"mined_by": "the night shift"}).notes.remarks


def test_no_text_of_a_pair_keeps_an_identifier() -> None:
    """The reasoning of an answer and the rejected answer hold names too."""

    def find(text: str) -> list[Identifier]:
        starts = [at for at in range(len(text)) if text.startswith("Jane", at)]
        return [Identifier(start, start + 4, "NAME") for start in starts]

    record = Pair("u", "g", "custom", "Jane?", "Jane.", reasoning="Jane is well.", rejected="Not Jane.")
    clean, counts = deidentified(record, find, b"secret")
    assert isinstance(clean, Pair)
    assert "Jane" not in "".join((clean.input, clean.output, clean.reasoning, clean.rejected))
    assert counts["NAME"] == 4


def test_the_command_reads_pairs_and_counts_the_dropped(tmp_path: Path, capsys: Any) -> None:
    path, out = tmp_path / "pairs.jsonl", tmp_path / "out" / "read.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ROW, ROW | {"rejected": GOOD})))
    out.parent.mkdir()
    assert run(["data", "read", "custom", str(path), "--out", str(out), "--access", "open", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dropped"] == {"same_answer": 1}
    assert json.loads(out.read_text())["rejected"] == BAD

"""Pairs made of a report: the answer that the source supports is chosen, not by saying less, and not from the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.cli.main import run
from lora_med.data.record import Pair
from lora_med.errors import DataError, InputMissingError, IntegrityError, NotPermittedError, SettingsError
from lora_med.evaluation.runner import _notes_on_checks, open_adapters
from lora_med.workflows.preferences.mine_pairs import mine_pairs, read_written
from tests.data.own_rows import read_path
from tests.tiny import make_tiny
from tests.workflows.test_train_preferences import words

SOURCE = "Patient: I take aspirin 50 mg daily. I have no fever. My left knee hurts."
RIGHT = "Takes aspirin 50 mg daily. No fever. The left knee hurts."
WRONG = "Takes aspirin 500 mg daily. Fever is present. The left knee hurts."
SHORT = "Takes aspirin."


def record(number: int, **fields: Any) -> Pair:
    return Pair(f"u{number}", f"g{number}", "custom", f"{SOURCE} Note {number}.", "Takes aspirin.", **fields)


def make_report(folder: Path, answers: list[dict[str, str | None]], **entry: Any) -> Path:
    """A report folder with the answers of each item by subject; `entry` changes report.json's evaluation."""
    folder.mkdir(exist_ok=True)
    subjects = [name for name in answers[0] if name != "base"]
    facts: dict[str, Any] = {
        "scoring": "writing",
        "split": "validation",
        "source": "custom",
        "template": "pair",
        "access": "open",
        "items": len(answers),
        "items_file": "items.jsonl",
        "subjects": [{"adapter": None}, *({"adapter": name} for name in subjects)],
    }
    content = {"schema": "lora_med.report/1", "evaluations": [facts | entry]}
    (folder / "report.json").write_text(json.dumps(content))
    lines = []
    for number, texts in enumerate(answers):
        said = {name: {"sums": [1]} | ({} if text is None else {"written": text}) for name, text in texts.items()}
        item = {"uid": f"u{number}", "group": f"g{number}", "base": said.pop("base"), "adapters": said}
        lines.append(json.dumps(item) + "\n")
    (folder / "items.jsonl").write_text("".join(lines))
    return folder


def test_the_supported_answer_is_chosen_whoever_wrote_it(tmp_path: Path) -> None:
    report = make_report(tmp_path / "r", [{"base": WRONG, "notes": RIGHT}, {"base": RIGHT, "notes": WRONG}])
    mined = mine_pairs(read_written(report), [record(0), record(1), record(7)])
    assert [(row["uid"], row["chosen"], row["rejected"]) for row in mined.rows] == [
        ("u0", RIGHT, WRONG),
        ("u1", RIGHT, WRONG),
    ]
    assert mined.rows[0]["prompt"] == f"{SOURCE} Note 0."
    assert (mined.items, mined.left_out) == (2, {})


def test_an_answer_does_not_win_by_saying_less(tmp_path: Path) -> None:
    report = make_report(
        tmp_path / "r",
        [
            {"base": WRONG, "notes": SHORT},
            {"base": RIGHT, "notes": f" {RIGHT}\n"},
            {"base": RIGHT, "notes": ""},
            {"base": RIGHT, "notes": WRONG},
        ],
    )
    mined = mine_pairs(read_written(report), [record(number) for number in range(3)])
    assert not mined.rows
    assert mined.left_out == {"not_among_records": 1, "no_better_answer": 1, "same_answers": 2}


def test_the_rows_are_read_back_as_preferences_that_state_their_check(tmp_path: Path) -> None:
    for name, template in (("plain", "pair"), ("turns", "pair_chat_v2")):
        report = make_report(tmp_path / name, [{"base": WRONG, "notes": RIGHT}], template=template)
        earlier = (("user", "Hello."), ("assistant", "Yes?")) if name == "turns" else ()
        mined = mine_pairs(read_written(report), [record(0, history=earlier)])
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in mined.rows))
        found = read_path(path)
        (pair,) = found.records
        assert isinstance(pair, Pair)
        assert (pair.uid, pair.group, pair.history) == ("u0", "pairs of g0", earlier)
        assert (pair.input, pair.output, pair.rejected) == (f"{SOURCE} Note 0.", RIGHT, WRONG)
        assert pair.is_conversation == (name == "turns")
        (remark,) = found.notes.remarks
        assert "faithfulness: this check is never the score" in remark


@pytest.mark.parametrize(
    ("entry", "texts", "error", "named"),
    [
        ({"split": "test"}, RIGHT, SettingsError, "would have seen the test"),
        ({"scoring": "text"}, RIGHT, SettingsError, "0 evaluations"),
        ({"items": 7}, RIGHT, IntegrityError, "report.json says 7"),
        ({"access": "credentialed"}, None, NotPermittedError, "holds no texts"),
        ({"items_file": "gone.jsonl"}, RIGHT, InputMissingError, "gone.jsonl"),
        ({"subjects": 3}, RIGHT, IntegrityError, "not an item of a report"),
    ],
)
def test_a_report_that_gives_no_pairs_is_refused_by_name(
    tmp_path: Path, entry: dict[str, Any], texts: str | None, error: type[Exception], named: str
) -> None:
    report = make_report(tmp_path / "r", [{"base": texts, "notes": texts}], **entry)
    with pytest.raises(error, match=named):
        read_written(report)


def test_a_folder_without_a_report_and_other_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"no report\.json"):
        read_written(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": "other"}')
    with pytest.raises(IntegrityError, match="not a report"):
        read_written(tmp_path)
    report = make_report(tmp_path / "r", [{"base": WRONG, "notes": RIGHT}])
    with pytest.raises(DataError, match="none of the report's 1 items"):
        mine_pairs(read_written(report), [record(5)])


def test_the_command_makes_a_file_that_trains_and_the_report_on_it_has_a_note(tmp_path: Path, capsys: Any) -> None:
    base = make_tiny("llama", tmp_path / "base")
    rows = [{"uid": f"u{n}", "prompt": f"{SOURCE} Note {n}.", "completion": f" Takes {n} mg."} for n in range(40)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    setting = words(base, tmp_path, f"data.paths=[{data}]", "adapter.name=notes", "data.near_duplicate_similarity=0")
    assert run(["train", *setting]) == 0
    capsys.readouterr()
    report = make_report(tmp_path / "r", [{"base": WRONG, "notes": RIGHT}] * 40)
    out, store = tmp_path / "pairs.jsonl", str(tmp_path / "adapters")
    command = ["data", "pairs", str(report), "--by", "faithfulness", "--store", store]
    assert run([*command, "--out", str(out)]) == 66
    assert "give --data PATH" in capsys.readouterr().err
    command += ["--data", str(data)]
    assert run([*command, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pairs"] > 3 and told["left_out"] == {"not_among_records": 40 - told["pairs"]}  # the held-out ones
    assert "never the score" in told["mined_by"]
    assert [run([*command, "--out", str(path)]) for path in (report / "items.jsonl", data)] == [73, 73]
    capsys.readouterr()
    run_of = ["adapter.name=better", f"train.output_dir={tmp_path / 'dpo'}", "train.max_length=256"]
    run_of.append("data.near_duplicate_similarity=0")
    assert run(["train", *words(base, tmp_path, "train.method=dpo", f"data.paths=[{out}]", *run_of)]) == 0
    opened = open_adapters(("better", "notes"), store)
    (note,) = _notes_on_checks("writing", opened)
    assert note.startswith("better learned from pairs that the check of faithfulness chose")
    assert not list(_notes_on_checks("text", opened))

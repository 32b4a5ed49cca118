"""The account of columns: what was used, what stops a reading, patients, names in another spelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.cli.main import run
from lora_med.config.data_settings import DataSettings
from lora_med.config.schema import Settings
from lora_med.data.corpus import open_corpus
from lora_med.data.record import Pair, Passage, Question, texts_of
from lora_med.data.shapes.columns.patient_columns import is_named_like_a_patient
from lora_med.errors import DataError, SettingsError
from lora_med.workflows.run_identity import data_facts
from tests.data.own_rows import only, read_path, read_rows

PAIR = {"prompt": "Define edema.", "completion": "Swelling."}
ASKED = {"question": "Define edema.", "answer": "Swelling."}
TEXT = {"text": "Edema is swelling."}
TALK = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (PAIR | {"instruction": "Be brief."}, "instruction"),
        (PAIR | {"options": ["a", "b"]}, "options"),
        (ASKED | {"reasoning": "Because."}, "reasoning"),
        (PAIR | {"input": "A note."}, "input"),
        (PAIR | {"answer_choices": ["a", "b"]}, "answer_choices"),
        (ASKED | {"system": "Be brief."}, "system"),
        (ASKED | {"history": [["a", "b"]]}, "history"),
        (ASKED | {"Complex_CoT": "Because."}, "Complex_CoT"),
        (ASKED | {"rationale": "Because."}, "rationale"),
        (ASKED | {"text": "A passage."}, "text"),
        (ASKED | {"case": "A man of 40 years comes with a cough."}, "case"),
        (ASKED | {"label": "x"}, "label"),
        (TEXT | {"spans": "0-5"}, "spans"),
        (TEXT | {"entities": {"a": "b"}}, "entities"),
        (TEXT | {"think": "Hm."}, "think"),
        (TEXT | {"summary": "Swelling."}, "summary"),
        (TEXT | {"question": "What?"}, "question"),
        (TALK | {"tools": [{"name": "lab"}]}, "tools"),
        (TALK | {"label": 1}, "label"),
        ({"instruction": "Do.", "output": "Done.", "explanation": "Because."}, "explanation"),
    ],
)
def test_content_that_a_shape_does_not_use_stops_the_reading_until_it_is_ignored(
    tmp_path: Path, row: dict[str, Any], column: str
) -> None:
    with pytest.raises(DataError, match=f"the column '{column}' holds content") as caught:
        only(tmp_path, row)
    assert f"data.ignore_columns=[{column}]" in str(caught.value) and "rows.jsonl:1" in str(caught.value)
    with pytest.raises(DataError):
        read_rows(tmp_path, row, skip_bad=True)
    found = read_rows(tmp_path, row, ignore_columns=(column,))
    assert found.tally.kept == 1 and column in found.notes.unused_columns


@pytest.mark.parametrize("names", [("A", "B", "C", "D"), ("opa", "opb"), ("Option 1", "Option 2")])
def test_options_in_columns_that_a_shape_does_not_use_stop_the_reading(tmp_path: Path, names: tuple[str, ...]) -> None:
    row = PAIR | dict.fromkeys(names, "Swelling.")
    with pytest.raises(DataError, match="hold content") as caught:
        only(tmp_path, row)
    assert all(repr(name) in str(caught.value) for name in names)
    assert only(tmp_path, row, ignore_columns=names).output == "Swelling."
    assert only(tmp_path, TEXT | {"a": 1, "b": 2}).text == "Edema is swelling.", "small letters are any columns"


def test_the_message_names_both_sides_of_a_text_with_its_summary(tmp_path: Path) -> None:
    row = {"Note": "A long note.", "summary": "A note."}
    with pytest.raises(DataError, match="--column prompt=Note --column completion=summary"):
        only(tmp_path, row, columns={"text": "Note"})
    found = only(tmp_path, row, columns={"prompt": "Note", "completion": "summary"})
    assert isinstance(found, Pair) and (found.input, found.output) == ("A long note.", "A note.")


def test_content_that_is_blank_in_every_row_stops_nothing(tmp_path: Path) -> None:
    blank = {"instruction": "", "context": None, "label": "  ", "options": [], "reasoning": float("nan")}
    assert read_rows(tmp_path, PAIR | blank).tally.kept == 1


def test_content_in_a_later_row_stops_the_reading_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        read_rows(tmp_path, PAIR, {"prompt": "Why?", "completion": "So.", "rationale": "Because."})


def test_a_column_is_mapped_to_the_field_that_the_message_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.columns\.explanation=rationale"):
        only(tmp_path, ASKED | {"rationale": "Because."})
    found = only(tmp_path, ASKED | {"rationale": "Because."}, columns={"explanation": "rationale"})
    assert isinstance(found, Question) and found.explanation == "Because."
    found = only(tmp_path, ASKED | {"case": "A man of 40 comes in."}, columns={"contexts": "case"})
    assert isinstance(found, Question) and found.contexts == ("A man of 40 comes in.",)


def test_a_mapping_that_a_shape_does_not_use_stops_the_reading(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'note'"):
        only(tmp_path, PAIR | {"note": "A note."}, columns={"explanation": "note"})


def test_a_name_to_ignore_that_no_row_has_is_refused_with_its_near_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(PAIR | {"rationale": "So."}))
    settings = {"source": "custom", "paths": [str(tmp_path)], "validation_share": 0, "test_share": 0}
    with pytest.raises(SettingsError, match="did you mean 'remark'"):
        (tmp_path / "a.jsonl").write_text(json.dumps(PAIR | {"remark": "So."}))
        open_corpus(DataSettings(**settings, ignore_columns=["remarks"]))
    assert len(open_corpus(DataSettings(**settings, ignore_columns=["remark"])).train) == 1


@pytest.mark.parametrize(
    "name",
    ["patient", "patient_id", "PatientID", "PATIENT ID", "patientid", "study_subject_no", "subject_id", "SUBJECT_ID",
     "mrn", "MRN", "pat_mrn_id", "pid", "person_id", "PersonID", "case", "case_no", "caseid", "encounter",
     "EncounterKey", "hadm_id", "HADM_ID", "stay_id", "icustay_id", "ICUStayId", "hashedpatientnumber", "pat_id",
     "pt_no", "visit_id", "participant_id", "medical_record_number", "patient_id_1", "paciente_id"],
)  # fmt: skip
def test_names_of_patients(name: str) -> None:
    assert is_named_like_a_patient(name)


@pytest.mark.parametrize(
    "name",
    ["suspicious", "rapid", "lipid_profile", "outpatient", "inpatient_note", "personal_history", "personality",
     "subjective", "lowercase", "showcase", "staying", "text", "id", "uid", "note_id", "record", "visit", "casein",
     "impatient", "department", "turnover", "personnel"],
)  # fmt: skip
def test_names_that_only_resemble_those_of_patients(name: str) -> None:
    assert not is_named_like_a_patient(name)


def test_a_patient_without_a_group_stops_the_reading_until_a_group_is_named(tmp_path: Path) -> None:
    rows = [{"text": f"Note {n}.", "PatientID": n % 2} for n in range(4)]
    with pytest.raises(DataError, match="'PatientID' is named like a patient") as caught:
        read_rows(tmp_path, *rows)
    assert "data.columns.group=PatientID" in str(caught.value) and "data.columns.group=none" in str(caught.value)
    with pytest.raises(DataError):
        read_rows(tmp_path, *rows, skip_bad=True)
    with pytest.raises(DataError):
        read_rows(tmp_path, *rows, ignore_columns=("PatientID",))
    found = read_rows(tmp_path, *rows, columns={"group": "PatientID"})
    assert [record.group for record in found.records] == ["0", "1", "0", "1"]
    assert found.notes.grouping == "the group is the column 'PatientID'"
    found = read_rows(tmp_path, *rows, columns={"group": "none"})
    assert len({record.group for record in found.records}) == 4
    assert found.notes.grouping == "each text is its own group, as data.columns.group=none says"


def test_a_group_column_of_that_name_is_the_group(tmp_path: Path) -> None:
    found = read_rows(tmp_path, TEXT | {"group": 7, "patient_id": 1})
    assert found.records[0].group == "7" and "patient_id" in found.notes.unused_columns


def test_a_patient_column_that_is_empty_or_mapped_to_content_asks_for_nothing(tmp_path: Path) -> None:
    assert read_rows(tmp_path, TEXT | {"patient": None}).tally.kept == 1
    found = only(tmp_path, {"patient": "My head hurts.", "doctor": "Rest."}, columns={"prompt": "patient",
                                                                                   "completion": "doctor"})  # fmt: skip
    assert isinstance(found, Pair) and found.input == "My head hurts."


@pytest.mark.parametrize("name", ["subject", "subject_name"])
def test_the_subject_of_an_exam_is_no_patient_but_a_number_is(tmp_path: Path, name: str) -> None:
    row = ASKED | {"options": ["Swelling.", "Rash."], name: "Anatomy"}
    assert only(tmp_path, row).subject == "Anatomy"
    with pytest.raises(DataError, match="named like a patient"):
        only(tmp_path, row | {name: 10006})
    with pytest.raises(DataError, match="named like a patient"):
        only(tmp_path, TEXT | {name: "S-17"})


@pytest.mark.parametrize(
    "row",
    [
        {"Text": "A note"}, {"TEXT": "A note"}, {" text ": "A note"}, {"text ": "A note"},
    ],
)  # fmt: skip
def test_a_column_in_another_spelling_is_found_and_reported(tmp_path: Path, row: dict[str, Any]) -> None:
    found = read_rows(tmp_path, row)
    assert isinstance(found.records[0], Passage) and found.records[0].text == "A note"
    assert found.notes.columns == {next(iter(row)): "text"}


def test_two_spellings_of_one_field_are_not_chosen_between(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"TEXT, Text both spell 'text'|Text, TEXT both spell 'text'"):
        only(tmp_path, {"Text": "A", "TEXT": "B"})
    assert only(tmp_path, {"text": "A", "TEXT": "B"}).text == "A"
    assert only(tmp_path, {"Text": "A", "TEXT": "B"}, columns={"text": "TEXT"}).text == "B"


def test_a_mapped_column_that_is_not_there_is_named_with_its_near_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'note' for 'text'.*Note_1, id.*did you mean 'Note_1'"):
        only(tmp_path, {"Note_1": "A", "id": 1}, columns={"text": "note"})


def test_a_mapped_column_may_be_inside_another(tmp_path: Path) -> None:
    row = {"ask": {"text": "Why?"}, "say": [{"text": "So."}]}
    found = read_rows(tmp_path, row, columns={"prompt": "ask.text", "completion": "say.0.text"})
    (record,) = found.records
    assert isinstance(record, Pair) and (record.input, record.output) == ("Why?", "So.")
    assert found.notes.columns == {"ask.text": "prompt", "say.0.text": "completion"} and not found.notes.unused_columns


def test_rows_without_a_shape_name_their_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none is among the 2 there are: alpha, Beta"):
        only(tmp_path, {"alpha": 1, "Beta": 2})


def test_a_row_of_another_shape_is_read_as_such_or_refused_by_name(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    both = read_rows(tmp_path, PAIR, {"messages": turns}).records
    assert [record.output for record in both if isinstance(record, Pair)] == ["Swelling.", "Hello"]
    with pytest.raises(DataError, match=r"shape question, answer among rows of the shape text") as caught:
        read_rows(tmp_path, TEXT, ASKED)
    assert "rows.jsonl:2" in str(caught.value)
    assert read_rows(tmp_path, TEXT, ASKED, skip_bad=True).tally.dropped == {"other_shape": 1}


def test_a_text_with_a_label_column_is_classified(tmp_path: Path) -> None:
    found = read_rows(tmp_path, {"text": "Fever.", "label": ["pos"]}, {"text": "None.", "label": ["neg"]})
    first = found.records[0]
    assert isinstance(first, Question) and (first.answer, first.options) == ("pos", ("neg", "pos"))
    assert found.notes.columns == {"text": "text", "label": "label"}
    corpus = open_corpus(
        DataSettings(source="custom", paths=[str(tmp_path / "rows.jsonl")], validation_share=0, test_share=0)
    )
    assert corpus.template == "label"
    with pytest.raises(DataError, match="expected one class, got a list of 2"):
        read_rows(tmp_path, {"text": "Fever.", "label": ["pos", "neg"]})


def test_a_label_column_with_one_value_is_reported_and_not_trained(tmp_path: Path) -> None:
    found = read_rows(tmp_path, TEXT | {"label": "x"})
    assert isinstance(found.records[0], Passage) and list(found.notes.unused_columns) == ["label"]
    assert list(found.notes.remarks) == ["'label' has one value only and is not used"]


ROWS = [{"ask": f"What is {n}?", "say": f"It is {n}.", "PatientID": f"p{n % 20}", "site": "A"} for n in range(60)]
MAPPED = ["prompt=ask", "completion=say", "group=PatientID"]


def report(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """What a data command prints with --json, and without it."""
    shared = ["data.source=custom", f"data.paths=[{path}]", *(f"data.columns.{mapped}" for mapped in MAPPED)]
    assert run(["data", *arguments, *shared, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert run(["data", *arguments, *shared]) == 0
    return values, capsys.readouterr().out


def test_every_command_about_data_says_which_columns_it_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    wanted = {
        "used": {"ask": "prompt", "say": "completion", "PatientID": "group"},
        "unused": ["site"],
        "group": "the group is the column 'PatientID'",
        "remarks": [],
    }
    mapping = [word for mapped in MAPPED for word in ("--column", mapped)]
    out = ["--out", str(tmp_path / "out.jsonl")]
    assert run(["data", "read", "custom", str(path), *out, *mapping, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"] == wanted
    assert run(["data", "read", "custom", str(path), *out, *mapping]) == 0
    said = capsys.readouterr().out
    assert "ask as prompt" in said and "not used: site" in said and "the column 'PatientID'" in said
    values, said = report(path, capsys, "check")
    assert values["sources"][0]["columns"] == wanted
    assert "columns not used: site" in said and "two splits; the group is the column 'PatientID'" in said
    values, said = report(path, capsys, "preview", "--rows", "1")
    assert values["columns"] == [{"source": "custom", **wanted}] and "columns not used: site" in said
    page = tmp_path / "page.html"
    report(path, capsys, "preview", "--out", str(page))
    assert "Columns not used: site." in page.read_text()


def test_the_card_and_the_log_say_which_columns_were_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    columns = {"prompt": "ask", "completion": "say", "group": "PatientID"}
    data = {"source": "custom", "paths": [str(path)], "columns": columns}
    settings = Settings.model_validate({"data": data, "adapter": {"access": "open"}})
    with caplog.at_level("INFO"):
        facts = data_facts(settings, open_corpus(settings.data, access="open"))
    assert facts.columns == [
        {
            "source": "custom",
            "used": {"ask": "prompt", "say": "completion", "PatientID": "group"},
            "unused": ["site"],
            "group": "the group is the column 'PatientID'",
            "remarks": [],
        }
    ]
    assert "custom: columns not used: site" in caplog.messages
    assert "custom: the group is the column 'PatientID'" in caplog.messages


def test_a_check_gives_no_all_clear_for_a_grouping_that_nobody_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Is {n} it?", "completion": f"No {n}."}) + "\n" for n in range(60)))
    assert run(["data", "check", "data.source=custom", f"data.paths=[{path}]"]) == 0
    said = capsys.readouterr().out
    assert "No group" not in said
    assert "each text is its own group; no column names the patient" in said.lower()


def test_stops_have_the_exit_code_of_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion,rationale,mrn\nWhy?,So.,Because.,7\n")
    out = tmp_path / "out.jsonl"
    read = ["data", "read", "custom", str(path), "--out", str(out)]
    assert run(read) == 65
    assert "'rationale'" in capsys.readouterr().err and not out.exists()
    assert run([*read, "--ignore-column", "rationale"]) == 65
    assert "'mrn'" in capsys.readouterr().err and not out.exists()
    assert run([*read, "--ignore-column", "rationale", "--column", "group=mrn"]) == 0
    assert json.loads(out.read_text())["group"] == "7"
    out.unlink()
    assert run([*read, "--ignore-column", "rational", "--ignore-column", "rationale", "--column", "group=mrn"]) == 2
    assert "did you mean 'rationale'" in capsys.readouterr().err and not out.exists()


def test_the_account_of_columns_reads_back_what_data_read_wrote(tmp_path: Path) -> None:
    row = {"uid": "a", "group": "g", "source": "mmlu", "kind": "question", "question": "Which?", "answer": "y",
           "contexts": [], "options": ["x", "y", "y"], "explanation": "", "right": 2, "subject": "anatomy"}  # fmt: skip
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (found,) = read_path(tmp_path / "a.jsonl").records
    assert found == Question("a", "g", "custom", "Which?", "y", (), ("x", "y", "y"), "", 2, "anatomy")


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"instruction": "Why?", "output": "So.", "response": "Because."}, "response"),
        ({"prompt": "Why?", "completion": "So.", "answer": "Because."}, "answer"),
        ({"input": "Why?", "output": "So.", "summary": "Because."}, "summary"),
        ({"question": "Why?", "answer": "So.", "response": "Because."}, "response"),
    ],
)
def test_a_second_answer_in_a_column_of_its_own_stops_the_reading_until_it_is_named(
    row: dict[str, Any], column: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"the column '{column}' holds content"):
        read_rows(tmp_path, row)
    (record,) = read_rows(tmp_path, row, ignore_columns=(column,)).records
    assert "So." in texts_of(record) and "Because." not in texts_of(record)

"""Uids of credentialed data are shown as a hash that only who has the data can look up; `data read` writes them."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.config.data_settings import DataSettings
from lora_med.config.parse import parse
from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Passage, shown_uid
from lora_med.errors import DataError
from lora_med.evaluation.report.compare_reports import side_by_side
from lora_med.evaluation.report.write_report import write_report
from lora_med.workflows.run_identity import data_facts
from tests.audit.test_private import PERMISSION, everything, train
from tests.evaluation.test_report import text_evaluation
from tests.tiny import make_tiny

UID = "Patient-Zweisamkeit"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


def by_hand(uid: str) -> str:
    return "sha256:" + hashlib.sha256(uid.encode()).hexdigest()[:16]


def notes(path: Path, repeated: bool = False) -> Path:
    """Notes whose numbers name a patient; with `repeated`, two of one number."""
    with open(path, "w", newline="") as sheet:
        writer = csv.writer(sheet)
        writer.writerow(["ROW_ID", "SUBJECT_ID", "CATEGORY", "ISERROR", "TEXT"])
        for n in range(30):
            number = 0 if repeated and n == 9 else n
            text = f"Seen by Dr. Roe with {n * 7} complaints, {n * 11} pills and {n} visits. "
            text += f"word{n} " * (n // 3 + 6)
            writer.writerow([f"{UID}-{number}", f"{UID}-group-{n}", "Discharge", "", text])
    return path


def test_the_hash_is_the_documented_one() -> None:
    assert shown_uid("10000032-DS-21", "credentialed") == by_hand("10000032-DS-21")
    assert shown_uid("10000032-DS-21", None) == by_hand("10000032-DS-21")
    assert shown_uid(by_hand("a"), "credentialed") == by_hand("a")
    assert [shown_uid("a", access) for access in ("open", "registered")] == ["a", "a"]


def test_no_command_prints_logs_or_reports_a_uid(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, work = notes(tmp_path / "NOTEEVENTS.csv"), tmp_path / "work"
    train(base, work, source, "train.max_length=190", "train.too_long=drop", "data.max_records=30")
    monkeypatch.chdir(work)
    here = ["data.source=mimic3", f"data.paths=[{source}]", "data.validation_share=0.2", f"model.base={base}"]
    evaluate = ["--adapter", "mine", "--base", str(base), "--data", str(source), "--task", "text"]
    for arguments in (
        ["data", "check", *here],
        ["data", "check", *here, "--json"],
        ["data", "preview", *here, "--permission", PERMISSION],
        ["data", "preview", *here, "--permission", PERMISSION, "--json"],
        ["data", "preview", *here, "--permission", PERMISSION, "--out", "page.html"],
        ["eval", *evaluate, "--split", "validation", "--out", "report"],
        ["adapters", "show", "mine", "--json"],
    ):
        assert run(arguments) == 0, arguments
    shown = capfd.readouterr()
    assert UID not in shown.out and UID not in shown.err
    assert UID.encode() not in everything(work)
    items = [json.loads(line) for line in (work / "report" / "items.jsonl").read_text().splitlines()]
    numbers = {by_hand(f"mimic3:{UID}-{n}"): by_hand(f"mimic3:{UID}-group-{n}") for n in range(30)}
    assert items and all(numbers[item["uid"]] == item["group"] for item in items)
    out = work / "records.jsonl"
    assert run(["data", "read", "mimic3", str(source), "--out", str(out)]) == 0
    written = [json.loads(line)["uid"] for line in out.read_text().splitlines()]
    assert written == [f"mimic3:{UID}-{n}" for n in range(30)]


def test_an_error_of_reading_hashes_the_uid(tmp_path: Path) -> None:
    source = notes(tmp_path / "NOTEEVENTS.csv", repeated=True)
    with pytest.raises(DataError) as raised:
        open_corpus(DataSettings(source="mimic3", paths=[str(source)]))
    assert UID not in str(raised.value) and by_hand(f"mimic3:{UID}-0") in str(raised.value)


def rows(path: Path, count: int) -> None:
    """Rows as `data read` wrote them from notes; the first ones of two files hold the same texts."""
    path.parent.mkdir(exist_ok=True)
    uids = [f"{UID}-{path.stem}-{n}" for n in range(count)]
    lines = [
        {"uid": uid, "group": uid, "source": "mimic3", "kind": "passage", "text": f"Text number {n} of {n * 7} words."}
        for n, uid in enumerate(uids)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_leak_between_published_splits_names_hashes_also_of_rows_that_were_read_before(
    tmp_path: Path, streaming: bool
) -> None:
    rows(tmp_path / "in" / "train.jsonl", 9)
    rows(tmp_path / "in" / "test.jsonl", 4)
    here = DataSettings(source="custom", paths=[str(tmp_path / "in")], streaming=streaming, validation_share=0)
    with pytest.raises(DataError) as raised:
        open_corpus(here)
    assert UID not in str(raised.value) and "sha256:" in str(raised.value)
    dropping = here.model_copy(update={"leaks": "drop"})
    corpus = open_corpus(dropping)
    assert UID not in json.dumps(corpus.decontamination)
    held = open_heldout(dropping, "test")
    assert all(record.uid.startswith("sha256:") for record in (*corpus.train, *held))


def test_the_splits_are_those_of_the_uids_themselves(tmp_path: Path) -> None:
    source = notes(tmp_path / "NOTEEVENTS.csv")
    corpus = open_corpus(DataSettings(source="mimic3", paths=[str(source)], validation_share=0.3, test_share=0.0))
    plain = tmp_path / "plain.jsonl"
    texts = {record.uid: record for record in (*corpus.train, *corpus.validation) if isinstance(record, Passage)}
    lines = []
    for n in range(30):
        record = texts[by_hand(f"mimic3:{UID}-{n}")]
        lines.append(json.dumps({"uid": f"mimic3:{UID}-{n}", "group": f"mimic3:{UID}-group-{n}", "text": record.text}))
    plain.write_text("\n".join(lines))
    own = DataSettings(source="custom", paths=[str(plain)], validation_share=0.3, test_share=0.0)
    same = open_corpus(own, access="open")
    assert {by_hand(record.uid) for record in same.train} == {record.uid for record in corpus.train}


def test_held_out_records_of_a_stricter_class_show_hashes() -> None:
    held = HeldOutRecords((Passage(UID, UID, "custom", "text"),), "credentialed", "custom")
    assert [record.uid for record in held] == [by_hand(UID)]
    with pytest.raises(DataError) as raised:
        HeldOutRecords((Passage(UID, "a", "c", "t"), Passage(UID, "b", "c", "u")), "credentialed", "custom").draw(9, 1)
    assert UID not in str(raised.value)


def test_a_report_hashes_uid_and_group_and_still_pairs_with_an_earlier_one(tmp_path: Path) -> None:
    private = dataclasses.replace(text_evaluation(count=10), access="credentialed")
    for name in ("old", "new"):
        write_report([private], tmp_path / name, title="Notes")
    items = tmp_path / "old" / "items.jsonl"
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    assert [(line["uid"], line["group"]) for line in lines] == [(by_hand(f"u{n}"), by_hand(f"g{n}")) for n in range(10)]
    items.write_text("".join(json.dumps(line | {"uid": f"u{n}"}) + "\n" for n, line in enumerate(lines)))
    assert all(line.change is not None for line in side_by_side(tmp_path / "old", tmp_path / "new").lines)


def test_own_data_that_are_stated_credentialed_show_hashes(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [{"uid": f"{UID}-{n}", "text": f"Seen by Dr. Roe, {n} times, with {'w ' * n}"} for n in range(40)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = parse(None, ["data.source=custom", f"data.paths=[{path}]", "adapter.access=credentialed"])
    facts = data_facts(settings, open_corpus(settings.data, access="credentialed"))
    assert facts.access == "credentialed" and UID not in json.dumps(facts.separation)

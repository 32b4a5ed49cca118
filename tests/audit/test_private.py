"""Credentialed data: a canary in the notes is nowhere but in the notes, files are the owner's, purge finds all."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.push import check_permitted
from lora_med.audit.purge import find_derived
from lora_med.audit_trail import VARIABLE, read_trail
from lora_med.cli.main import run
from lora_med.config.data_settings import DataSettings
from lora_med.config.parse import parse
from lora_med.data.access import require_permission
from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.errors import DataError, NotPermittedError
from lora_med.run import keep_private, start_run
from lora_med.signatures import SIGNATURES
from tests.recipes.test_sft import overrides, recipe
from tests.tiny import make_tiny

CANARY = "Zweisamkeitskanarienvogel"
PERMISSION = "Dr. Example of the data board, 3 May 2026"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


def notes(folder: Path, count: int = 40, bad: bool = False) -> Path:
    path = folder / "NOTEEVENTS.csv"
    with open(path, "w", newline="") as sheet:
        writer = csv.writer(sheet)
        writer.writerow(["ROW_ID", "SUBJECT_ID", "CATEGORY", "ISERROR", "TEXT"])
        for n in range(count):
            text = f"{CANARY} {n}:\nDaughter {CANARY}: seen by [**Name**] on [**2101-5-3**] with {n * 7} complaints."
            writer.writerow([n, "" if bad and n == 7 else n, CANARY, "", text])
    return path


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def everything(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def train(base: Path, folder: Path, source: Path, *extra: str) -> Path:
    data = ["data.source=mimic3", f"data.paths=[{source}]", "data.validation_share=0.2", "train.save_steps=1"]
    recipe("sft_pubmed").main(parse(None, [*data, *overrides(base, folder, *extra)]))
    return folder / "adapters" / "mine"


def test_the_canary_is_in_no_log_error_run_adapter_or_report(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = notes(tmp_path)
    work = tmp_path / "work"
    adapter = train(base, work, source)
    assert read_card(adapter).data.access == "credentialed"
    monkeypatch.chdir(work)
    here = ["data.source=mimic3", f"data.paths=[{source}]", "data.validation_share=0.2", f"model.base={base}"]
    evaluate = ["--adapter", "mine", "--store", str(work / "adapters"), "--base", str(base), "--data", str(source)]
    commands: list[tuple[list[str], int]] = [
        (["data", "check", *here], 0),
        (["data", "check", *here, "--json"], 0),
        (["data", "preview", *here], 77),
        (["data", "preview", *here, "--out", "page.html"], 0),
        (["eval", *evaluate, "--task", "text", "--split", "validation", "--out", "report"], 0),
        (["adapters", "show", "mine", "--store", str(work / "adapters")], 0),
        (["data", "purge", "mimic3", "."], 0),
    ]
    for arguments, code in commands:
        assert run(arguments) == code, arguments
    with pytest.raises(DataError):
        train(base, work, notes(tmp_path, bad=True), "adapter.overwrite=true")
    shown = capfd.readouterr()
    assert CANARY not in shown.out and CANARY not in shown.err
    assert CANARY.encode() not in everything(work)
    assert (work / "page.html").is_file() and (work / "report" / "report.html").is_file()


def test_what_comes_of_credentialed_data_is_the_owners_alone(base: Path, tmp_path: Path) -> None:
    adapter = train(base, tmp_path / "work", notes(tmp_path))
    assert modes(adapter) == {0o700, 0o600}
    assert modes(tmp_path / "work" / "run") == {0o700, 0o600}
    out = tmp_path / "records.jsonl"
    assert run(["data", "read", "mimic3", str(tmp_path / "NOTEEVENTS.csv"), "--out", str(out)]) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_permission_is_written_or_there_is_none(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    card = read_card(train(base, tmp_path / "work", notes(tmp_path)))
    for private, permission in ((True, None), (True, "yes"), (False, PERMISSION)):
        with pytest.raises(NotPermittedError):
            check_permitted(card, private, permission)
    logging.getLogger().addHandler(caplog.handler)  # the run set its own handlers
    check_permitted(card, True, PERMISSION)
    assert PERMISSION in caplog.text
    require_permission("open", "anything", None)
    here = ["data.source=mimic3", f"data.paths=[{tmp_path / 'NOTEEVENTS.csv'}]", f"model.base={base}"]
    capsys.readouterr()
    assert run(["data", "preview", *here, "--permission", PERMISSION]) == 0
    assert CANARY in capsys.readouterr().out
    assert run(["adapters", "push", "mine", "me/mine", "--store", str(tmp_path / "work" / "adapters")]) == 77


def test_purge_finds_and_deletes_all_that_was_made_and_nothing_else(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trail.jsonl"))
    source, work = notes(tmp_path), tmp_path / "work"
    train(base, work, source)
    assert run(["data", "read", "mimic3", str(source), "--out", str(work / "records.jsonl")]) == 0
    (work / "other.jsonl").write_text(json.dumps({"uid": "a", "source": "custom", "text": "mimic3"}) + "\n")
    capsys.readouterr()
    assert run(["data", "purge", "mimic3", str(work), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {Path(one["path"]).name: one["kind"] for one in listed["found"]} == {
        "mine": "adapter",
        "run": "run",
        "records.jsonl": "records",
    }
    assert not listed["deleted"] and (work / "run").is_dir()
    assert run(["data", "purge", "mimic3", str(work), "--yes"]) == 0
    assert sorted(path.name for path in work.iterdir()) == ["adapters", "other.jsonl"]
    assert list((work / "adapters").iterdir()) == []
    assert source.is_file()
    begun, done = read_trail(tmp_path / "trail.jsonl").lines
    assert (begun["action"], begun["source"], begun["found"]) == ("purge", "mimic3", listed["found"])
    assert (done["state"], done["deleted"]) == ("done", 3)


def test_what_was_read_of_credentialed_notes_is_credentialed_when_it_is_read_back(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, again = tmp_path / "read" / "lines.json", tmp_path / "again.jsonl"
    assert run(["data", "read", "mimic3", str(notes(tmp_path)), "--out", str(lines)]) == 0
    assert open_corpus(DataSettings(source="custom", paths=[str(lines)])).access == "credentialed"
    here = DataSettings(source="custom", paths=[str(lines)], validation_share=0.4, streaming=True)
    assert open_corpus(here).access == open_heldout(here, "validation").access == "credentialed"
    assert run(["data", "read", "custom", str(lines), "--out", str(again)]) == 0
    assert stat.S_IMODE(again.stat().st_mode) == 0o600
    assert run(["data", "preview", "data.source=custom", f"data.paths=[{lines}]", f"model.base={base}"]) == 77
    shown = capsys.readouterr()
    assert CANARY not in shown.out + shown.err
    torn = lines.with_name(".lines.json.0a1b2c3d.tmp")
    torn.write_bytes(lines.read_bytes()[:2000])
    assert run(["data", "purge", "mimic3", str(lines.parent), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert sorted(one["path"] for one in found) == sorted(map(str, (torn, lines)))


def test_purge_takes_of_a_folder_only_what_was_written_there(tmp_path: Path) -> None:
    report = {"evaluations": [{"source": "mimic3", "items_file": "items.jsonl"}]}
    run_of = {"settings": {"data": {"mix": [{"source": "mimic3"}]}}}
    merge = {"data": {"source": "custom", "earlier_sources": ["mimic3"]}, "merged": {"files": {"config.json": "0"}}}
    card = {"data": {"source": "mimic3"}, "files": {"README.md": "0"}}
    mine = ("notes.csv", "thesis.md", "plot.png", "items_of_mine.jsonl", "settings.json", "list.txt", "checkpoint-best")
    for folder, marker, content, others in (
        ("", "report.json", report, ("report.html", "items.jsonl", SIGNATURES)),
        ("run", "run.json", run_of, ("loss.png", "checkpoint-12")),
        ("merged", "merge_certificate.json", merge, ("config.json", SIGNATURES)),
        ("adapter", "card.json", card, ("README.md", SIGNATURES)),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / marker).write_text(json.dumps(content))
        for name in (*others, *(mine if folder != "merged" else ())):
            (tmp_path / folder / name).write_text("{}")
    for name, sources in (("a.html", "pubmedqa mimic3"), ("b.html", "mimic3x")):
        (tmp_path / name).write_text(f'<meta name="lora_med-sources" content="{sources}">')
    found = {(one.kind, one.path.relative_to(tmp_path).as_posix()) for one in find_derived("mimic3", [tmp_path])}
    assert found == {
        ("report", "report.json"),
        ("report", "report.html"),
        ("report", "items.jsonl"),
        ("report", SIGNATURES),
        ("run", "run/run.json"),
        ("run", "run/loss.png"),
        ("run", "run/checkpoint-12"),
        ("adapter", "adapter/card.json"),
        ("adapter", "adapter/README.md"),
        ("adapter", f"adapter/{SIGNATURES}"),
        ("merged model", "merged"),
        ("preview page", "a.html"),
    }
    (tmp_path / "merged" / "other").mkdir()
    inside = {one.path.name for one in find_derived("mimic3", [tmp_path / "merged"])}
    assert inside == {"merge_certificate.json", "config.json", SIGNATURES}, (
        "the folder that was named is no folder to delete"
    )


def test_purge_takes_an_export_with_its_folders_and_nothing_laid_beside_it(tmp_path: Path) -> None:
    facts = {"data": {"source": "custom+mimic3", "earlier_sources": []}, "files": {"m.gguf": {}, "adapter/a.json": {}}}
    for name in ("whole", "shared"):
        (tmp_path / name / "adapter").mkdir(parents=True)
        (tmp_path / name / "export.json").write_text(json.dumps(facts))
        for file in facts["files"]:
            (tmp_path / name / file).write_text("{}")
    (tmp_path / "shared/adapter/mine.json").write_text("{}")
    found = {(one.kind, one.path.relative_to(tmp_path).as_posix()) for one in find_derived("mimic3", [tmp_path])}
    inside = {("export", f"shared/{name}") for name in ("export.json", "m.gguf", "adapter/a.json")}
    assert found == {("export", "whole"), *inside}


def test_a_private_folder_leaves_what_its_links_point_to(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("shared")
    (tmp_path / "other").chmod(0o644)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    (folder / "file").write_text("")
    keep_private(folder)
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "file").stat().st_mode) == 0o600


def test_a_restricted_run_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with start_run(tmp_path / "run", settings={}, seed=1) as started:
            started.restrict("credentialed")
            started.restrict("credentialed")
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert modes(tmp_path / "run") == {0o700, 0o600}


def test_an_adapter_that_continues_another_names_its_sources(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path / "work", notes(tmp_path))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"Iron {n} is {n * n}."}) + "\n" for n in range(40)))
    further = ["data.source=custom", f"data.paths=[{rows}]", "lora.continue_from=mine", "adapter.name=next"]
    recipe("sft_pubmed").main(
        parse(None, [*overrides(base, tmp_path / "work"), "train.output_dir=" + str(tmp_path / "two"), *further])
    )
    card = read_card(tmp_path / "work" / "adapters" / "next")
    assert card.data.access == "credentialed" and card.data.earlier_sources == ["mimic3"]
    assert "next" in {one.path.name for one in find_derived("mimic3", [tmp_path])}


@pytest.mark.parametrize(("arguments", "code"), [(["--out", "."], 73), (["--out", "x", "--secret", "short"], 2)])
def test_deidentify_refuses_a_folder_and_a_secret_that_is_none(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("presidio_analyzer")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short").write_text("")
    (tmp_path / "a.jsonl").write_text('{"note": "Dr. Roe saw her."}\n')
    assert run(["data", "deidentify", "custom", "a.jsonl", "--column", "text=note", *arguments]) == code
    assert run(["data", "purge", "mimic3", "gone"]) == 66


def test_deidentify_writes_tags_counts_and_its_recall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("presidio_analyzer")
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"uid": "a", "text": "Dr. Roe saw her on 2021-03-14."}) + "\n")
    out = tmp_path / "clean.jsonl"
    assert run(["data", "deidentify", "custom", str(path), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replaced"] == {"NAME": 1, "DATE": 1} and 0.5 < found["recall"] < 1
    text = json.loads(out.read_text())["text"]
    assert re.fullmatch(r"Dr\. \[NAME-1\] saw her on 202[01]-\d\d-\d\d\.", text) and "2021-03-14" not in text
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    secret = tmp_path / "secret"
    for _ in range(2):
        assert run(["data", "deidentify", "custom", str(path), "--out", str(out), "--secret", str(secret)]) == 0
        assert "This is no legal guarantee" in capsys.readouterr().err
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", {"evaluations": 3}),
        ("run.json", {"settings": {"data": {"mix": True}}}),
        ("card.json", {"data": {"source": "mimic3", "earlier_sources": 1}, "files": 5}),
        ("card.json", {"data": {"source": "mimic3"}, "files": [{"a": 1}]}),
        ("merge_certificate.json", {"data": {"source": "mimic3"}, "merged": {"files": 7}}),
        ("export.json", {"data": {"source": "mimic3"}, "files": 1.5}),
    ],
)
def test_a_strangers_file_of_our_name_does_not_stop_a_purge(name: str, content: Any, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / name).write_text(json.dumps(content))
    (tmp_path / "last.jsonl").write_text('{"source": "mimic3"}\n')
    assert tmp_path / "last.jsonl" in {one.path for one in find_derived("mimic3", [tmp_path])}


def test_a_pipe_does_not_hold_up_a_purge(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "records.jsonl").write_text('{"source": "mimic3"}\n')
    code = (
        "import sys; from pathlib import Path; from lora_med.audit.purge import find_derived; "
        "print([one.path.name for one in find_derived('mimic3', [Path(sys.argv[1])])])"
    )
    asked = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "['records.jsonl']\n"

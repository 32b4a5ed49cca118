"""What a command writes is never what it reads; links, pipes and devices are written to as they are."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_med.cli.data.stdin import spooled
from lora_med.cli.main import run

ROWS = '{"text": "One."}\n{"text": "Two."}\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


def read(*arguments: str) -> int:
    return run(["data", "read", "custom", *arguments])


def hard_link(folder: Path) -> str:
    os.link(folder / "rows.jsonl", folder / "other.jsonl")
    return "other.jsonl"


def link(folder: Path) -> str:
    (folder / "other.jsonl").symlink_to("rows.jsonl")
    return "other.jsonl"


def linked_folder(folder: Path) -> str:
    (folder / "there").symlink_to(folder)
    return "there/rows.jsonl"


NAMES: list[Callable[[Path], str]] = [
    lambda folder: "rows.jsonl",
    lambda folder: "./rows.jsonl",
    lambda folder: str(folder / "rows.jsonl"),
    lambda folder: f"../{folder.name}/rows.jsonl",
    hard_link,
    link,
    linked_folder,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["read", "deidentify", "blocklist"])
def test_an_input_is_never_written_over_by_whatever_name(
    name: Callable[[Path], str], command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = name(here)
    source = ["--source", "custom"] if command == "blocklist" else ["custom"]
    assert run(["data", command, *source, "rows.jsonl", "--out", out, "--access", "open"]) == 73
    assert "is an input, rows.jsonl" in capsys.readouterr().err
    assert (here / "rows.jsonl").read_text() == ROWS


def test_the_input_may_be_the_link_and_the_output_its_target(here: Path) -> None:
    link(here)
    assert read("other.jsonl", "--out", "rows.jsonl") == 73
    assert (here / "rows.jsonl").read_text() == ROWS and (here / "other.jsonl").is_symlink()


@pytest.mark.parametrize(
    ("pattern", "out", "code"),
    [
        ("data", "data/new.jsonl", 73),
        ("data", "data/deep/new.csv", 73),
        ("data", "data/new.jsonl.gz", 73),
        ("data", "data/new.txt", 0),  # a name that the source does not read there
        ("data", "new.jsonl", 0),
        (".", "new.jsonl", 73),
        ("data/*.jsonl", "data/new.jsonl", 73),
        ("data/*.jsonl", "./data/../data/new.jsonl", 73),
        ("data/*.jsonl", "data/new.csv", 0),
        ("data/*.jsonl", "data/deep/new.jsonl", 0),
        ("data/**/*.jsonl", "data/deep/deeper/new.jsonl", 73),
        ("data/**/*.jsonl", "data/new.jsonl", 73),
        ("d*/rows.jsonl", "deeds/rows.jsonl", 73),
        ("da[s-u]a/*", "data/new.txt", 73),
        ("same/*.jsonl", "data/new.jsonl", 73),
        ("data/*.jsonl", "same/new.jsonl", 73),
        ("data", "away.jsonl", 73),
    ],
)
def test_nothing_is_written_where_it_would_be_read_the_next_time(
    pattern: str, out: str, code: int, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "data").mkdir()
    (here / "data" / "rows.jsonl").write_text(ROWS)
    (here / "same").symlink_to("data")
    (here / "away.jsonl").symlink_to("data/away.jsonl")
    assert read(pattern, "--out", out) == code, capsys.readouterr().err
    assert (here / out).exists() == (code == 0)
    if code:
        assert f"would be read from {pattern!r}" in capsys.readouterr().err


def test_standard_input_is_never_written_over(here: Path) -> None:
    command = [sys.executable, "-m", "lora_med", "data", "read", "custom", "-", "--out", "rows.jsonl"]
    with open(here / "rows.jsonl", "rb") as rows:
        done = subprocess.run(command, stdin=rows, capture_output=True, text=True)
    assert done.returncode == 73 and "is standard input" in done.stderr
    assert (here / "rows.jsonl").read_text() == ROWS


def test_a_link_remains_and_its_target_is_written(here: Path) -> None:
    (here / "deep").mkdir()
    (here / "first.jsonl").symlink_to("second.jsonl")
    (here / "second.jsonl").symlink_to(here / "deep" / "target.jsonl")
    for _ in range(2):  # a target that is not there yet, and one that is
        assert read("rows.jsonl", "--out", "first.jsonl") == 0
        assert (here / "first.jsonl").readlink() == Path("second.jsonl")
        assert (here / "second.jsonl").is_symlink() and not (here / "deep" / "target.jsonl").is_symlink()
        assert len((here / "deep" / "target.jsonl").read_text().splitlines()) == 2
    assert sorted(path.name for path in here.iterdir()) == ["deep", "first.jsonl", "rows.jsonl", "second.jsonl"]


def test_a_link_that_leads_to_itself_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "loop").symlink_to("loop")
    assert read("rows.jsonl", "--out", "loop") == 73
    assert "leads to itself" in capsys.readouterr().err and (here / "loop").is_symlink()


@pytest.mark.parametrize("arguments", [["--access", "open"], []])
def test_a_pipe_is_written_to_and_stays_a_pipe(arguments: list[str], here: Path) -> None:
    os.mkfifo(here / "pipe", 0o644)
    taken: list[str] = []
    reader = threading.Thread(target=lambda: taken.append((here / "pipe").read_text()))
    reader.start()
    assert read("rows.jsonl", "--out", "pipe", *arguments) == 0
    reader.join(timeout=10)
    assert [json.loads(line)["text"] for line in taken[0].splitlines()] == ["One.", "Two."]
    mode = (here / "pipe").stat().st_mode
    assert stat.S_ISFIFO(mode) and stat.S_IMODE(mode) == 0o644


def test_a_device_is_written_to_and_stays_a_device(here: Path) -> None:
    before = Path("/dev/null").stat()
    (here / "nothing").symlink_to("/dev/null")
    for out in ("/dev/null", "nothing"):
        assert read("rows.jsonl", "--out", out) == 0
        assert run(["data", "blocklist", "--source", "custom", "rows.jsonl", "--out", out]) == 0
    after = Path("/dev/null").stat()
    assert stat.S_ISCHR(after.st_mode) and (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert not [path for path in Path("/dev").iterdir() if "lora-med" in path.name]


@pytest.mark.parametrize("out", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("to_file", [False, True])
def test_standard_output_holds_the_records_and_nothing_else(out: str, to_file: bool, here: Path) -> None:
    command = [sys.executable, "-m", "lora_med", "data", "read", "custom", "rows.jsonl", "--out", out, "--json"]
    before = Path("/dev/stdout").readlink()
    if to_file:
        (here / "taken").write_text("earlier\n")
        with open(here / "taken", "a") as target:
            done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, text=True)
        lines = (here / "taken").read_text().splitlines()
        assert lines.pop(0) == "earlier", "a redirection that appends is appended to"
        assert stat.S_IMODE((here / "taken").stat().st_mode) == 0o600, "rows that nobody classed"
    else:
        done = subprocess.run(command, capture_output=True, text=True)
        lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["text"] for line in lines] == ["One.", "Two."]
    assert json.loads(done.stderr.splitlines()[-1])["kept"] == 2
    assert Path("/dev/stdout").readlink() == before


def test_standard_input_to_standard_output_leaves_no_file(here: Path) -> None:
    command = [sys.executable, "-m", "lora_med", "data", "read", "custom", "-", "--out", "/dev/stdout"]
    done = subprocess.run(command, input=ROWS, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done.stderr
    assert [path.name for path in here.iterdir()] == ["rows.jsonl"]


def test_a_secret_is_not_the_file_to_write(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = here / "secret"
    secret.write_bytes(bytes(32))
    arguments = ["custom", "rows.jsonl", "--secret", "secret", "--out", "secret"]
    assert run(["data", "deidentify", *arguments]) == 73
    assert "is an input, secret" in capsys.readouterr().err and secret.read_bytes() == bytes(32)


def test_a_list_of_pmids_is_not_written_over(here: Path) -> None:
    (here / "pmids.txt").write_text("123\n")
    assert run(["data", "blocklist", "pmids.txt", "--out", "./pmids.txt"]) == 73
    assert (here / "pmids.txt").read_text() == "123\n"


@pytest.mark.parametrize("out", ["run.yaml", "rows.jsonl", "list.txt", "test.txt", "more.jsonl"])
def test_a_preview_is_written_over_nothing_that_it_reads(out: str, here: Path) -> None:
    for name in ("list.txt", "test.txt", "more.jsonl"):
        (here / name).write_text(ROWS)
    (here / "run.yaml").write_text(
        "data:\n  source: custom\n  paths: [rows.jsonl]\n  block_lists: [list.txt]\n  test_files: [test.txt]\n"
        "  mix: [{source: custom, paths: [more.jsonl]}]\n"
    )
    before = (here / out).read_text()
    assert run(["data", "preview", "--config", "run.yaml", "--out", out]) == 73
    assert (here / out).read_text() == before


def test_a_settings_file_is_copied_to_standard_output_and_never_over_another(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "copy", "micro_label", "--out", "/dev/stdout"]) == 0
    assert "source: custom" in capfd.readouterr().out
    (here / "mine.yaml").write_text("mine")
    assert run(["config", "copy", "micro_label", "--out", "mine.yaml"]) == 73
    assert (here / "mine.yaml").read_text() == "mine"


def test_standard_input_that_is_being_read_is_swept_by_no_other_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(here / "rows.jsonl") as rows:
        monkeypatch.setattr(sys, "stdin", rows)
        with spooled(["-"], None, ".jsonl", here / "out.jsonl") as (first,):
            with spooled(["other.jsonl"], None, ".jsonl", here / "next.jsonl") as others:
                assert others == ["other.jsonl"]
            assert Path(first).read_text() == ROWS
    assert [path.name for path in here.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("source", ["many.jsonl", "-"])
def test_what_a_killed_read_leaves_is_removed_by_the_next(source: str, here: Path) -> None:
    with open(here / "many.jsonl", "w") as many:
        many.writelines(json.dumps({"text": f"Text {n} of it."}) + "\n" for n in range(200_000))
    command = [sys.executable, "-m", "lora_med", "data", "read", "custom", source, "--out", "out.jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.write(ROWS.encode())  # and no end: standard input is still being read when the kill comes
        child.stdin.flush()
        deadline = time.monotonic() + 60
        while not list(here.glob(".*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.kill()
    assert not (here / "out.jsonl").exists()
    left = list(here.glob(".*"))
    assert left
    assert {stat.S_IMODE(path.stat().st_mode) for path in left} <= {0o600, 0o700}, left
    foreign = here / ".notes.12345678.tmp"
    foreign.write_text("mine")
    assert read("rows.jsonl", "--out", "next.jsonl") == 0
    assert sorted(path.name for path in here.iterdir()) == [foreign.name, "many.jsonl", "next.jsonl", "rows.jsonl"]

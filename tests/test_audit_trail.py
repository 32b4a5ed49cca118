"""The audit trail: a line before and after each action; a line that was changed, removed or added is found."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lora_med.audit_trail import VARIABLE, read_trail, recorded, trail_file
from lora_med.cli.main import run
from lora_med.errors import InputMissingError, IntegrityError, OutputError, SettingsError


@pytest.fixture
def trail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trail.jsonl"))
    return tmp_path / "trail.jsonl"


def act(number: int = 0, **facts: Any) -> None:
    with recorded("push", number=number) as found:
        found.update(facts)


def test_an_action_has_a_line_before_and_one_after_it(trail: Path) -> None:
    with recorded("push", adapter="notes", to="me/mine") as facts:
        (begun,) = read_trail(trail).lines
        assert (begun["state"], begun["adapter"], begun["to"]) == ("begun", "notes", "me/mine")
        assert read_trail(trail).unfinished == [begun]
        facts["commit"] = "1" * 40
    begun, done = read_trail(trail).lines
    assert (done["state"], done["id"], done["commit"]) == ("done", begun["id"], "1" * 40)
    assert read_trail(trail).unfinished == []
    assert {"time", "user", "host", "action"} <= done.keys()
    assert trail.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("error", "state", "code"),
    [
        (IntegrityError("Mr. Smith", where="here"), "failed", "E076-integrity"),
        (ValueError("Mr. Smith"), "failed", "ValueError"),
        (SystemExit(0), "stopped", "SystemExit"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
    ],
)
def test_an_error_is_recorded_by_its_code_alone(trail: Path, error: BaseException, state: str, code: str) -> None:
    with pytest.raises(type(error)), recorded("serve"):
        raise error
    last = read_trail(trail).lines[-1]
    assert (last["state"], last["error"]) == (state, code)
    assert b"Smith" not in trail.read_bytes()


def test_each_line_begins_with_the_hash_of_the_one_before(trail: Path) -> None:
    act()
    act(text="ä" * 70_000)  # longer than a block, and the chain goes on after it
    act()
    lines = trail.read_bytes().splitlines()
    previous = [json.loads(line)["previous"] for line in lines]
    assert previous == ["0" * 64, *(hashlib.sha256(line).hexdigest() for line in lines[:-1])]
    assert read_trail(trail).head == hashlib.sha256(lines[-1]).hexdigest()


def test_every_changed_removed_added_or_swapped_line_is_found(trail: Path) -> None:
    for number in range(3):
        act(number)
    whole = trail.read_bytes().splitlines(keepends=True)
    noted = read_trail(trail).head
    for place in range(len(whole)):
        altered = whole[place].replace(b'"push"', b'"pull"')
        others = [
            [*whole[:place], altered, *whole[place + 1 :]],
            [*whole[:place], *whole[place + 1 :]],
            [*whole[: place + 1], *whole[place:]],
            [*whole[:place], *reversed(whole[place : place + 2]), *whole[place + 2 :]],
        ]
        for content in others:
            if content == whole:
                continue
            trail.write_bytes(b"".join(content))
            with pytest.raises(IntegrityError, match=r"line|hash"):
                read_trail(trail, noted)
    trail.write_bytes(b"".join(whole[:4]))  # cut off at the end: only a hash noted elsewhere shows it
    assert len(read_trail(trail).lines) == 4
    with pytest.raises(IntegrityError, match="no line has the hash"):
        read_trail(trail, noted)
    trail.write_bytes(b"".join(whole) + b"no json\n")
    with pytest.raises(IntegrityError, match="line 7 is not JSON"):
        read_trail(trail)


def test_a_noted_hash_holds_after_further_lines(trail: Path) -> None:
    act()
    noted = read_trail(trail).head
    act()
    assert len(read_trail(trail, noted[:16]).lines) == 4
    for wrong in ("", noted[:15], "x" * 64, noted + "0"):
        with pytest.raises(SettingsError, match="not a hash"):
            read_trail(trail, wrong)


def test_processes_that_write_at_once_make_one_chain(trail: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            for _ in range(20):
                act(number)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    lines = read_trail(trail).lines
    assert len(lines) == 160
    assert sorted(line["number"] for line in lines if line["state"] == "begun") == sorted([0, 1, 2, 3] * 20)


def test_a_killed_process_leaves_an_action_without_an_end(trail: Path) -> None:
    child = os.fork()
    if not child:
        with recorded("serve", base="micro"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with trail.open("ab") as stream:  # and half a line
        stream.write(b'{"previous": "')
    act()
    found = read_trail(trail)
    assert [line["action"] for line in found.unfinished] == ["serve"]
    assert len(found.lines) == 3


def test_without_its_first_line_in_a_named_trail_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent" / "trail.jsonl"))
    with pytest.raises(OutputError), recorded("push"):
        raise AssertionError("it ran")


def test_a_default_trail_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with caplog.at_level(logging.WARNING), recorded("push"):
        pass
    assert "push is not in the audit trail" in caplog.text


def test_where_the_trail_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trail_file() == (tmp_path / ".local/state/lora_med/audit-trail.jsonl", False)
    act()
    assert len(read_trail(tmp_path / ".local/state/lora_med/audit-trail.jsonl").lines) == 2
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert trail_file() == (tmp_path / "state/lora_med/audit-trail.jsonl", False)
    monkeypatch.setenv(VARIABLE, "OFF")
    assert trail_file() == (None, True)
    act()
    assert not (tmp_path / "state").exists()
    monkeypatch.delenv(VARIABLE)
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    assert trail_file() == (None, False)


def test_the_command_prints_checks_and_refuses(trail: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "trail"]) == 66
    act(7, files={"a": "1", "b": "2"})
    capsys.readouterr()
    assert run(["audit", "trail"]) == 0
    out, err = capsys.readouterr()
    assert "number 7" in out and "files 2" in out
    assert "2 lines" in err and "0 actions without an end" in err
    assert run(["audit", "trail", "--json", "--last", "1", "--file", str(trail)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["lines"], len(content["shown"]), content["unfinished"]) == (2, 1, [])
    assert run(["audit", "trail", "--holds", content["head"]]) == 0
    trail.write_bytes(trail.read_bytes().replace(b"begun", b"ended"))
    assert run(["audit", "trail"]) == 76
    assert "line 2 does not follow line 1" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="no audit trail"):
        read_trail(tmp_path / "none.jsonl")

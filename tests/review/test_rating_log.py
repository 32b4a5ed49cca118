"""Ratings on disk: appended before the answer, each stored once, none lost by a killed process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lora_med.append_log import append_line, read_lines
from lora_med.errors import IntegrityError, NotPermittedError, OutputError
from lora_med.review.blind.rating import AXES, Mark, Rating
from lora_med.review.blind.rating_log import RatingLog
from lora_med.review.blind.study import RATINGS, Study
from lora_med.review.verdict.study_result import unseal

ROOT = Path(__file__).parents[2]


def rating(study: Study, number: int = 0, choice: str = "a") -> Rating:
    each = study.assignments[number]
    return Rating(each.id, each.rater, choice, dict.fromkeys(AXES, "a"), "a comment", (Mark("a", 0, 5, "wrong"),))


def test_a_stored_rating_is_read_by_another_process(study: Study) -> None:
    assert RatingLog(study).store(rating(study))
    assert RatingLog(study).current() == {study.assignments[0].id: rating(study)}
    assert stat.S_IMODE((study.folder / RATINGS).stat().st_mode) == 0o600


def test_the_same_rating_twice_is_one_line_and_a_correction_is_a_second(study: Study) -> None:
    log, other = RatingLog(study), RatingLog(study)
    assert log.store(rating(study)) and not log.store(rating(study)) and not other.store(rating(study))
    assert log.corrected() == 0
    assert other.store(rating(study, choice="b"))
    assert log.current()[study.assignments[0].id].choice == "b"
    assert log.corrected() == 1
    assert len(read_lines(study.folder / RATINGS)[0]) == 2


def test_a_line_that_a_killed_process_left_torn_does_not_count_and_is_removed(study: Study) -> None:
    path = study.folder / RATINGS
    RatingLog(study).store(rating(study))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"assignment": "R1-00')
    assert len(RatingLog(study).current()) == 1
    RatingLog(study).store(rating(study, 1))
    assert path.read_bytes().startswith(whole)
    assert len(RatingLog(study).current()) == 2


def test_a_damaged_line_in_the_middle_is_named_and_its_text_is_not_shown(study: Study) -> None:
    path = study.folder / RATINGS
    path.write_bytes(b"secret text\n")
    with pytest.raises(IntegrityError) as error:
        RatingLog(study).current()
    assert "secret" not in str(error.value) and "byte 0" in str(error.value)


def test_no_rating_is_stored_after_unsealing(study: Study) -> None:
    log = RatingLog(study)
    log.store(rating(study))
    unseal(study, "the chair, for a test", incomplete=True)
    assert not log.store(rating(study))
    with pytest.raises(NotPermittedError, match="unsealed"):
        log.store(rating(study, 1))
    assert len(log.current()) == 1


def test_unsealing_early_needs_a_word_and_is_logged(study: Study) -> None:
    with pytest.raises(NotPermittedError, match=r"0 of \d+ ratings are stored"):
        unseal(study, "the chair, for a test")
    event = unseal(study, "the chair, for a test", incomplete=True)
    assert read_lines(study.folder / "events.jsonl")[0][-1] == event
    assert event["ratings"] == 0 and event["reason"] == "the chair, for a test"


FULL = """
import resource, sys
from pathlib import Path
from lora_med.errors import DiskError
from lora_med.append_log import append_line
append_line(Path(sys.argv[1]), {"number": 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    append_line(Path(sys.argv[1]), {"filler": "x" * 1000})
except DiskError as error:
    print(error.exit_code)
"""


def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "74"
    assert path.read_bytes() == b'{"number": 0}\n'


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        append_line(tmp_path / "missing" / "log.jsonl", {"a": 1})


WRITER = """
import sys
from pathlib import Path
from lora_med.append_log import append_line
for number in range(100_000):
    append_line(Path(sys.argv[1]), {"number": number, "filler": "x" * 500})
    print(number, flush=True)
"""


@pytest.mark.parametrize("kills", [3])
def test_kill_9_loses_no_acknowledged_line(tmp_path: Path, kills: int) -> None:
    path = tmp_path / "log.jsonl"
    acknowledged = 0
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        for _ in range(40):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
        acknowledged += 40 + rest.count("\n")
        lines, _ = read_lines(path)
        assert acknowledged <= len(lines) <= acknowledged + kills
        acknowledged = len(lines)


def test_a_long_line_survives_the_removal_of_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, {"text": "x" * 300_000})
    with open(path, "ab") as handle:
        handle.write(b"y" * 200_000)
    append_line(path, {"text": "z"})
    assert [len(line["text"]) for line in read_lines(path)[0]] == [300_000, 1]

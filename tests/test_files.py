"""Files are whole or not there: under kills, errors, full disks and second processes."""

from __future__ import annotations

import ctypes
import fcntl
import gzip
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from lora_med.errors import DataError, DiskError, InputMissingError, IntegrityError, OutputError
from lora_med.files import (
    archive_errors,
    atomic_stream,
    full_disk,
    open_stream,
    read_json,
    readable,
    sha256_file,
    sweep,
    write_atomic,
    write_json,
)
from lora_med.folders import fresh_folder, held, lock, replace_folder, sweep_folders


def in_child(work: Callable[[], None]) -> int:
    """Fork, run `work`, and return the child's process id; the child ends with 0, or 1 after an error."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended_well(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def kill_after(child: int, seconds: float) -> None:
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def appeared(folder: Path) -> str:
    """The name of the first file in an empty folder."""
    deadline = time.monotonic() + 20
    while not (found := names(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_atomic_write_makes_its_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "a" / "b" / "note.txt", "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    assert names(path.parent) == ["note.txt"]


def test_a_killed_writer_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    contents = [bytes([letter]) * 400_000 for letter in b"abc"]
    write_atomic(path, contents[0])

    def write_for_ever() -> None:
        while True:
            for content in contents:
                write_atomic(path, content)

    draw = random.Random(0)
    for _ in range(12):
        kill_after(in_child(write_for_ever), draw.uniform(0.005, 0.04))
        assert path.read_bytes() in contents


def test_an_error_in_an_atomic_stream_keeps_the_old_content(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "corpus.jsonl", "old")
    with pytest.raises(ValueError, match="halfway"), atomic_stream(path) as handle:
        handle.write(b"new")
        raise ValueError("halfway")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["corpus.jsonl"]


def test_a_killed_writer_s_file_is_removed_by_the_next_write_into_the_folder(tmp_path: Path) -> None:
    def write_and_wait() -> None:
        with atomic_stream(tmp_path / "a.jsonl") as handle:
            handle.write(b"half")
            handle.flush()
            time.sleep(60)

    child = in_child(write_and_wait)
    left = appeared(tmp_path)
    kill_after(child, 0)
    assert names(tmp_path) == [left]
    write_atomic(tmp_path / "b.jsonl", "whole")
    assert names(tmp_path) == ["b.jsonl"]


def test_the_file_of_a_running_writer_stays(tmp_path: Path) -> None:
    go, come = os.pipe(), os.pipe()

    def write_and_wait() -> None:
        with atomic_stream(tmp_path / "a.jsonl") as handle:
            os.write(come[1], b"x")
            os.read(go[0], 1)
            handle.write(b"whole")

    child = in_child(write_and_wait)
    try:
        os.read(come[0], 1)
        for name in ("a.jsonl", "b.jsonl"):
            write_atomic(tmp_path / name, "mine")
        during = names(tmp_path)
    finally:
        os.write(go[1], b"x")  # before anything is asserted: a child that waits would outlive a failed test
        has_ended_well = ended_well(child)
    assert len(during) == 3
    assert has_ended_well
    assert names(tmp_path) == ["a.jsonl", "b.jsonl"] and (tmp_path / "a.jsonl").read_bytes() == b"whole"


def test_a_file_that_is_being_written_is_locked_and_no_sweep_takes_it(tmp_path: Path) -> None:
    with atomic_stream(tmp_path / "a.jsonl") as handle:
        (temporary,) = tmp_path.iterdir()
        with temporary.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sweep(tmp_path)
        assert names(tmp_path) == [temporary.name]
        handle.write(b"whole")
    assert names(tmp_path) == ["a.jsonl"]
    temporary.write_text("half")  # as a killed writer leaves it: without a lock
    sweep(tmp_path)
    assert names(tmp_path) == ["a.jsonl"]


def test_a_folder_that_is_being_written_is_locked_and_no_sweep_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / ".out.0a1b2c3d.tmp"
    folder.mkdir()
    with held(folder):
        sweep_folders(tmp_path / "out")
        assert folder.is_dir()
        with pytest.raises(BlockingIOError), held(folder):
            pass
    sweep_folders(tmp_path / "out")
    assert names(tmp_path) == []


def test_only_our_own_temporary_files_are_removed(tmp_path: Path) -> None:
    foreign = (".a.jsonl.tmp", ".a.jsonl.0a1b2c3d.tmp", "a.0a1b2c3d.lora-med.tmp", ".a.0a1b2c3.lora-med.tmp")
    for name in foreign:
        (tmp_path / name).write_text("theirs")
    (tmp_path / ".folder.0a1b2c3d.lora-med.tmp").mkdir()
    (tmp_path / ".link.0a1b2c3d.lora-med.tmp").symlink_to(tmp_path / foreign[0])
    (tmp_path / ".a.jsonl.0a1b2c3d.lora-med.tmp").write_text("ours")
    before = set(names(tmp_path))
    write_atomic(tmp_path / "b.jsonl", "")
    assert set(names(tmp_path)) == before - {".a.jsonl.0a1b2c3d.lora-med.tmp"} | {"b.jsonl"}


def test_writers_that_sweep_at_once_lose_nothing(tmp_path: Path) -> None:
    def write_many(letter: str) -> None:
        for number in range(150):
            write_atomic(tmp_path / f"{letter}{number}", letter * number)

    children = [in_child(lambda letter=letter: write_many(letter)) for letter in "abcd"]
    assert [ended_well(child) for child in children] == [True] * 4
    assert names(tmp_path) == sorted(f"{letter}{number}" for letter in "abcd" for number in range(150))
    assert all((tmp_path / f"{letter}{n}").read_text() == letter * n for letter in "abcd" for n in (0, 1, 149))


def test_a_link_to_a_folder_or_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link.json").symlink_to("deep/file.json")
    assert write_json(tmp_path / "link.json", 1) == tmp_path / "link.json"
    (tmp_path / "fresh").symlink_to("deep/fresh")
    with fresh_folder(tmp_path / "fresh") as folder:
        (folder / "a").write_text("1")
    (tmp_path / "old").symlink_to("deep/fresh")

    def fill(folder: Path) -> None:
        (folder / "b").write_text("2")

    assert replace_folder(tmp_path / "old", fill) == tmp_path / "old"
    assert names(tmp_path) == ["deep", "fresh", "link.json", "old"]
    assert all((tmp_path / name).is_symlink() for name in ("fresh", "link.json", "old"))
    assert names(tmp_path / "deep") == ["file.json", "fresh"] and names(tmp_path / "deep" / "fresh") == ["b"]


def test_a_socket_or_a_descriptor_that_is_not_open_cannot_be_written(tmp_path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    for path in (tmp_path / "s", Path("/dev/fd/987"), Path("/proc/self/fd/none")):
        with pytest.raises(OutputError):
            write_atomic(path, "x")
    server.close()
    assert names(tmp_path) == ["s"]


def test_json_refuses_what_no_other_reader_takes(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "scores.json", {"f1": float("nan")})
    assert names(tmp_path) == []
    assert read_json(write_json(tmp_path / "scores.json", {"f1": 0.5, "name": "é"})) == {"f1": 0.5, "name": "é"}


@pytest.mark.parametrize("content", [b'{"patient": "Jane Roe",\n oops}', b"\xff\xfe", b""])
def test_a_torn_json_file_is_named_without_its_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert "Jane" not in str(caught.value)


def test_a_missing_json_file_is_an_input_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"card\.json"):
        read_json(tmp_path / "card.json")


def test_a_hash_is_that_of_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert sha256_file(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # FIPS 180, empty
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180, "abc"


def test_a_fresh_folder_appears_complete_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with fresh_folder(target) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("1")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "1"
    assert names(target.parent) == ["out"]


def test_a_fresh_folder_leaves_nothing_on_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no"), fresh_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise RuntimeError("no")
    assert names(tmp_path) == []


def test_of_two_that_make_one_folder_the_second_is_refused_and_leaves_the_first(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(OutputError, match="not empty"), fresh_folder(target) as late:
        (late / "file").write_text("late")
        with fresh_folder(target) as early:
            (early / "file").write_text("early")
    assert (target / "file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_fresh_folder_refuses_one_with_content_and_takes_an_empty_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with fresh_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(OutputError, match="not empty"), fresh_folder(target):
        pass
    assert names(target) == ["a"]


def test_an_error_of_the_work_inside_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), fresh_folder(tmp_path / "out"):
        raise PermissionError(13, "Permission denied", "the input")
    with pytest.raises(PermissionError):
        replace_folder(tmp_path / "out", lambda folder: (_ for _ in ()).throw(PermissionError(13, "the input")))


def test_replacing_a_folder_keeps_the_old_one_on_an_error(tmp_path: Path) -> None:
    target = tmp_path / "adapter"

    def fill(folder: Path) -> None:
        (folder / "a").write_text("1")

    def fail(folder: Path) -> None:
        (folder / "a").write_text("2")
        raise RuntimeError("halfway")

    replace_folder(target, fill)
    with pytest.raises(RuntimeError, match="halfway"):
        replace_folder(target, fail)
    assert (target / "a").read_text() == "1"
    replace_folder(target, lambda folder: (folder / "b").touch())
    assert names(target) == ["b"]
    assert names(tmp_path) == ["adapter"]


def test_a_replaced_folder_exists_complete_at_every_moment(tmp_path: Path) -> None:
    """A reader beside a writer, and kills: between two renames the name would be gone."""
    target = tmp_path / "adapter"

    def fill_with(letter: str) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            for name in ("a", "b"):
                (folder / name).write_text(letter)

        return fill

    def replace_for_ever() -> None:
        while True:
            for letter in "xy":
                replace_folder(target, fill_with(letter))

    replace_folder(target, fill_with("x"))
    for _ in range(4):
        child = in_child(replace_for_ever)
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            assert target.is_dir()
        kill_after(child, 0.0)
        assert names(target) == ["a", "b"]
        assert (target / "a").read_text() == (target / "b").read_text()


def on_small_disk(disk: Path, work: Callable[[], None]) -> None:
    """Run `work` in a child that sees a file system of 64 KiB at `disk`; no other process sees the mount."""
    disk.mkdir()
    private = subprocess.run(["unshare", "--mount", "true"], capture_output=True)
    if private.returncode:
        pytest.skip("a small file system needs the right to mount one")

    def mounted() -> None:
        new_mounts = 0x00020000  # CLONE_NEWNS
        assert ctypes.CDLL(None).unshare(new_mounts) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
        work()

    assert ended_well(in_child(mounted))


def test_a_full_disk_is_a_disk_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"

    def work() -> None:
        path = write_atomic(disk / "run.json", "old")
        with pytest.raises(DiskError, match="No space left") as caught:
            write_atomic(path, b"x" * 200_000)
        assert str(path) in str(caught.value)
        assert path.read_text() == "old"
        assert names(disk) == ["run.json"]

    on_small_disk(disk, work)


def test_a_disk_that_cannot_read_is_a_disk_error() -> None:
    """The beginning of a process's memory: the kernel answers with EIO, as for a failing disk."""
    with pytest.raises(DiskError, match="cannot read 'mem'") as caught, readable(Path("/proc/self/mem")):
        Path("/proc/self/mem").read_bytes()
    assert caught.value.exit_code == 74


def test_a_full_disk_in_a_folder_under_way_leaves_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"

    def work() -> None:
        with pytest.raises(DiskError), fresh_folder(disk / "out") as folder:
            (folder / "weights").write_bytes(b"x" * 200_000)
        assert names(disk) == []

    on_small_disk(disk, work)


def test_a_file_over_the_allowed_size_is_a_disk_error(tmp_path: Path) -> None:
    def write_too_much() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with pytest.raises(DiskError, match="too large"):
            write_atomic(tmp_path / "a", b"x" * 50_000)
        with pytest.raises(DiskError, match="too large"), full_disk(tmp_path / "b"):
            save_file({"a": numpy.zeros(20_000)}, tmp_path / "b")  # safetensors' own error names the number in words

    assert ended_well(in_child(write_too_much))
    assert "a" not in names(tmp_path)


def test_a_file_in_place_of_a_folder_is_an_output_error(tmp_path: Path) -> None:
    write_atomic(tmp_path / "runs", "a file")
    for target in (tmp_path / "runs" / "run.json", tmp_path / "runs" / "a" / "run.json"):
        with pytest.raises(OutputError, match="cannot write"):
            write_atomic(target, "x")
        with pytest.raises(OutputError, match="cannot write"), fresh_folder(target):
            pass
    with pytest.raises(OutputError, match="cannot write"), lock(tmp_path / "runs"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_forbidden_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        write_atomic(tmp_path / "a", "x")


HOLDER = """
import sys, time
from pathlib import Path
from lora_med.folders import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_refuses_a_second_process_by_its_number_and_a_kill_frees_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(OutputError, match=rf"process {holder.pid}\)") as caught, lock(tmp_path):
        pass
    assert caught.value.exit_code == 73
    holder.kill()
    holder.wait()
    with lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock(tmp_path):
        raise RuntimeError
    with lock(tmp_path), pytest.raises(OutputError, match=f"process {os.getpid()}"), lock(tmp_path):
        pass


def test_two_processes_at_once_get_one_lock(tmp_path: Path) -> None:
    def take_turns() -> None:
        for _ in range(60):
            try:
                with lock(tmp_path):
                    descriptor = os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL)  # fails if another is inside
                    os.close(descriptor)
                    (tmp_path / "inside").unlink()
            except OutputError:
                time.sleep(0.0005)

    children = [in_child(take_turns) for _ in range(3)]
    ends = [ended_well(child) for child in children]
    assert all(ends)


TEXT = b"line one\nline two\n" * 500


@pytest.fixture(params=["isal", "standard library"])
def decompressor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "standard library":
        monkeypatch.setitem(sys.modules, "isal", None)  # as if it were not installed
    else:
        pytest.importorskip("isal")
    return request.param


def test_a_stream_is_opened_by_its_first_bytes_whatever_its_name(tmp_path: Path, decompressor: str) -> None:
    plain, packed = tmp_path / "plain.xml.gz", tmp_path / "packed.xml"
    plain.write_bytes(TEXT)
    packed.write_bytes(gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]))  # two members, as update files have
    for path in (plain, packed):
        with open_stream(path) as stream:
            assert stream.readline() == b"line one\n"
            assert b"line one\n" + stream.read() == TEXT


def test_a_one_byte_file_is_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x1f")
    with open_stream(tmp_path / "a") as stream:
        assert stream.read() == b"\x1f"


def test_closing_a_stream_closes_the_file_below(tmp_path: Path, decompressor: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(TEXT))
    streams = [open_stream(path) for _ in range(5)]
    before = len(os.listdir("/proc/self/fd"))
    for stream in streams:
        stream.close()
    assert len(os.listdir("/proc/self/fd")) == before - 5


def packed_noise() -> bytes:
    return gzip.compress(random.Random(0).randbytes(40_000) + TEXT)


def bad_block() -> bytes:
    packed = bytearray(gzip.compress(TEXT))
    packed[10] = 0x07  # a block of the type that deflate reserves
    return bytes(packed)


DAMAGE = {
    "cut": lambda: packed_noise()[:-300],
    "cut in the checksum": lambda: packed_noise()[:-3],
    "only a header": lambda: packed_noise()[:6],
    "a wrong checksum": lambda: packed_noise()[:-8] + b"1234" + packed_noise()[-4:],
    "a bad block": bad_block,
    "an unknown method": lambda: packed_noise()[:2] + b"\x07" + packed_noise()[3:],
    "text after the end": lambda: packed_noise() + b"garbage after the end",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_archive_is_a_data_error_that_names_it(
    tmp_path: Path, decompressor: str, damage: Callable[[], bytes]
) -> None:
    path = tmp_path / "pubmed.xml.gz"
    path.write_bytes(damage())
    with pytest.raises(DataError, match="gzip archive") as caught, archive_errors(path), open_stream(path) as stream:
        stream.read()
    assert caught.value.exit_code == 65
    assert caught.value.where == str(path)


def test_other_errors_pass_an_archive_reader_unchanged(tmp_path: Path) -> None:
    for error in (OSError("Error reading file"), FileNotFoundError(2, "gone"), ValueError("a bad row")):
        with pytest.raises(type(error)) as caught, archive_errors(tmp_path):
            raise error
        assert caught.value is error


def test_a_missing_or_empty_input_or_a_folder_says_which(tmp_path: Path) -> None:
    (tmp_path / "empty.xml").touch()
    with pytest.raises(DataError, match="0 bytes"):
        open_stream(tmp_path / "empty.xml")
    with pytest.raises(InputMissingError, match=r"no such file: absent\.xml") as caught:
        open_stream(tmp_path / "absent.xml")
    assert caught.value.exit_code == 66
    with pytest.raises(InputMissingError, match="directory"):
        open_stream(tmp_path)


def test_threads_may_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    threads = [threading.Thread(target=write_json, args=(path, {"writer": n})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(path.read_text())["writer"] in range(8)
    assert names(tmp_path) == ["metrics.json"]

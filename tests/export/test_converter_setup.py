"""What is unpacked of a source distribution, what is refused, and how a changed converter is noticed."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_med.errors import DependencyMissingError, InputMissingError, IntegrityError, SettingsError
from lora_med.export.gguf import converter, converter_setup
from lora_med.export.gguf.converter import check_gguf_packages, find_converter
from lora_med.export.gguf.converter_setup import ARCHIVE, INSIDE, digest_tree, set_up_converter, unpack
from lora_med.files import read_json

SCRIPTS = {"convert_hf_to_gguf.py": b"hf = 1\n", "convert_lora_to_gguf.py": b"lora = 1\n"}


def make_archive(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name if "/../" in name or name.startswith("/") else INSIDE + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for entry in others:
            archive.addfile(entry)
    return path


def test_only_named_python_files_are_unpacked(tmp_path: Path) -> None:
    unwanted = {"build.sh": b"x", "conversion/libx.so": b"x", "conversion/deep/a.py": b"x", "tests/a.py": b"x"}
    files = {
        **SCRIPTS,
        "conversion/base.py": b"b\n",
        "gguf-py/gguf/constants.py": b"g\n",
        "LICENSE": b"MIT",
        **unwanted,
    }
    names = unpack(make_archive(tmp_path / "a.tar.gz", files), tmp_path / "out")
    assert sorted(names) == sorted({*SCRIPTS, "conversion/base.py", "gguf-py/gguf/constants.py", "LICENSE"})
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == sorted([*SCRIPTS, "conversion/base.py", "gguf-py/gguf/constants.py", "converter.json"])


@pytest.mark.parametrize("name", ["conversion/../../../escaped.py", "/tmp/escaped.py", f"{INSIDE}../escaped.py"])
def test_a_path_that_leaves_the_folder_is_not_unpacked(name: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", {**SCRIPTS, name: b"x"})
    assert sorted(unpack(archive, tmp_path / "deep/er/out")) == sorted(SCRIPTS)
    assert not list(tmp_path.rglob("escaped.py"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_under_a_wanted_name_is_refused(kind: bytes, tmp_path: Path) -> None:
    entry = tarfile.TarInfo(f"{INSIDE}conversion/base.py")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(IntegrityError, match="no plain file"):
        unpack(make_archive(tmp_path / "a.tar.gz", SCRIPTS, entry), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_too_large_or_there_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = tarfile.TarInfo(f"{INSIDE}convert_hf_to_gguf.py")
    with pytest.raises(IntegrityError, match="twice"):
        unpack(make_archive(tmp_path / "a.tar.gz", SCRIPTS, twice), tmp_path / "out")
    monkeypatch.setattr(converter_setup, "LARGEST_FILE_BYTES", 5)
    with pytest.raises(IntegrityError, match="no plain file"):
        unpack(make_archive(tmp_path / "b.tar.gz", SCRIPTS), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_torn_archive_and_one_without_scripts_are_refused(tmp_path: Path) -> None:
    whole = make_archive(tmp_path / "a.tar.gz", {**SCRIPTS, "LICENSE": bytes(range(256)) * 200})
    torn = tmp_path / "torn.tar.gz"
    torn.write_bytes(whole.read_bytes()[:-60])
    for archive in (torn, make_archive(tmp_path / "b.tar.gz", {"LICENSE": b"MIT"})):
        with pytest.raises(IntegrityError, match="was not unpacked"):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(IntegrityError, match="has SHA-256"):
        set_up_converter(make_archive(tmp_path / "a.tar.gz", SCRIPTS))
    with pytest.raises(InputMissingError, match="no such file"):
        set_up_converter(tmp_path / "absent.tar.gz")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on the loopback address, which pip is told to use; its archive is the one pinned."""
    package = tmp_path / "web/simple/llama-cpp-python"
    package.mkdir(parents=True)
    files = tmp_path / "web/files"
    files.mkdir()
    archive = make_archive(files / ARCHIVE, SCRIPTS)
    (package / "index.html").write_text(
        f'<a href="../../files/{ARCHIVE}.metadata">m</a> <a href="../../files/{ARCHIVE}#sha256=00">{ARCHIVE}</a>'
    )
    monkeypatch.setattr(converter_setup, "ARCHIVE_SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("LLAMA_CPP_DIR", raising=False)
        yield files / ARCHIVE
        server.shutdown()


def test_the_index_of_pip_is_used_and_the_archive_is_deleted(index: Path) -> None:
    folder = set_up_converter()
    facts = read_json(folder / "converter.json")
    lines = [f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(SCRIPTS.items())]
    assert facts["digest"] == hashlib.sha256("".join(lines).encode()).hexdigest() == digest_tree(folder)
    assert facts["archive_sha256"] == hashlib.sha256(index.read_bytes()).hexdigest()
    assert list(folder.parent.glob("download/*")) == []
    index.unlink()
    assert set_up_converter() == folder


def test_an_archive_changed_on_the_index_is_refused(index: Path) -> None:
    index.write_bytes(index.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="another checksum"):
        set_up_converter()
    with pytest.raises(InputMissingError, match="converter is not here"):
        find_converter()


def test_a_converter_changed_in_the_cache_is_refused(index: Path) -> None:
    folder = set_up_converter()
    assert find_converter().digest == digest_tree(folder)
    (folder / "convert_hf_to_gguf.py").write_text("hf = 2\n")
    with pytest.raises(IntegrityError, match="not as it was fetched"):
        find_converter()


def test_an_index_with_a_password_is_refused_and_not_echoed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "https://name:hidden@index.invalid/simple")
    with pytest.raises(SettingsError, match="name and password") as caught:
        set_up_converter()
    assert "hidden" not in str(caught.value)


def test_the_users_checkout_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(make_archive(tmp_path / "a.tar.gz", SCRIPTS), tmp_path / "mine")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "mine"))
    assert find_converter().version == "the checkout in LLAMA_CPP_DIR"
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "absent"))
    with pytest.raises(InputMissingError, match="LLAMA_CPP_DIR") as caught:
        find_converter()
    assert caught.value.exit_code == 66


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(converter.NEEDED, "no_such_module", "no-such")
    with pytest.raises(DependencyMissingError, match="no-such") as caught:
        check_gguf_packages()
    assert caught.value.exit_code == 69
    assert "pip install" in str(caught.value.fix)

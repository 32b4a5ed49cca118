"""lora-med data: what is written, what is counted, and the exit codes of what goes wrong."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_med.cli.main import run
from lora_med.data.catalog import SOURCES
from lora_med.data.download import HOWTOS, Remote, download
from lora_med.data.scanning import record_lines
from lora_med.errors import InputMissingError, IntegrityError
from tests.data.real_files import REAL, needs_real
from tests.data.test_scanning import corpus

FOLDERS = {"conll": "ner_iob"}

XML = (
    "<PubmedArticleSet>"
    '<PubmedArticle><MedlineCitation><PMID Version="1">1</PMID><Article><ArticleTitle>T.</ArticleTitle><Abstract>'
    '<AbstractText Label="AIM" NlmCategory="OBJECTIVE">Why.</AbstractText></Abstract></Article></MedlineCitation>'
    '</PubmedArticle><PubmedArticle><MedlineCitation><PMID Version="2">1</PMID><Article>'
    "<ArticleTitle>T2.</ArticleTitle>"
    '<Abstract><AbstractText Label="AIM" NlmCategory="OBJECTIVE">Why not.</AbstractText></Abstract></Article>'
    "</MedlineCitation></PubmedArticle></PubmedArticleSet>"
)


@pytest.fixture
def abstracts(tmp_path: Path) -> Path:
    path = tmp_path / "a.xml"
    path.write_text(XML)
    return path


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["data", *arguments]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["read", "deidentify"])
def test_encoding_and_delimiter_are_stated_on_the_command_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.csv", tmp_path / "out.jsonl"
    path.write_bytes("text~label\nfièvre élevée, toux~x\n".encode("latin-1"))
    arguments = ["data", command, "custom", str(path), "--out", str(out), "--column", "text=text"]
    assert run([*arguments, "--delimiter", "~"]) == 65
    assert "--encoding windows-1252" in capsys.readouterr().err
    assert run([*arguments, "--delimiter", "~", "--encoding", "latin-1"]) == 0
    assert json.loads(out.read_text())["text"] == "fièvre élevée, toux"
    assert run([*arguments, "--delimiter", "~", "--encoding", "latn-1"]) == 2
    assert "did you mean 'latin-1'" in capsys.readouterr().err


def test_a_list_is_chosen_on_the_command_line_of_standard_input_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps({"train": [{"text": "One."}], "test": [{"text": "Two."}]}).encode("utf-16")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    out = tmp_path / "out.jsonl"
    answer(
        ["read", "custom", "-", "--stdin-filename", "a.json", "--sheet", "test", "--out", str(out), "--json"], capsys
    )
    assert json.loads(out.read_text())["text"] == "Two."


def test_read_writes_each_record_as_a_line_and_counts(
    abstracts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "a.jsonl"
    summary = answer(["read", "pubmed", str(abstracts), "--out", str(out), "--json"], capsys)
    assert summary == {"read": 2, "kept": 1, "dropped": {"superseded": 1}, "articles": 1, "out": str(out)}
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {
            "uid": "pmid:1",
            "group": "1",
            "source": "pubmed",
            "kind": "passage",
            "text": "AIM: Why not.",
            "title": "T2.",
            "sections": [{"text": "Why not.", "label": "AIM", "category": "OBJECTIVE"}],
            "about": {
                "version": 2,
                "year": None,
                "journal": "",
                "languages": [],
                "publication_types": [],
                "mesh": [],
            },
        }
    ]


def test_read_maps_columns_and_skips_what_is_bad_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("ask,say\nq1,a1\nq2\nq3,a3\n")
    out = tmp_path / "a.jsonl"
    arguments = ["read", "custom", str(path), "--out", str(out), "--column", "prompt=ask", "--column", "completion=say"]
    assert run(["data", *arguments]) == 65
    assert f"where: {path}:3" in capsys.readouterr().err
    assert not out.exists()
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written either
    summary = answer([*arguments, "--skip-bad", "--json"], capsys)
    assert (summary["read"], summary["kept"], summary["dropped"]) == (3, 2, {"bad_csv": 1})
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["kind"], line["input"], line["output"]) for line in lines] == [
        ("pair", "q1", "a1"),
        ("pair", "q3", "a3"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["read", "pubmedqq", "a.xml", "--out", "o"], 2),
        (["read", "pubmed", "nowhere.xml", "--out", "o"], 66),
        (["read", "pubmed", "a.xml", "--out", "a.xml/o"], 73),
        (["read", "custom", "a.xml", "--out", "o", "--column", "text"], 2),
        (["check", "data.source=custom"], 2),
    ],
)
def test_what_goes_wrong_has_its_exit_code(
    abstracts: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(abstracts.parent)
    assert run(["data", *arguments]) == code


def test_list_names_every_source_with_its_license(capsys: pytest.CaptureFixture[str]) -> None:
    sources = {source["name"]: source for source in answer(["list", "--json"], capsys)["sources"]}
    assert {"pubmed", "pubmedqa", "custom"} <= set(sources)
    assert all(source["license"] and source["kinds"] for source in sources.values())
    assert run(["data", "list"]) == 0


def test_check_prints_splits_and_preview_what_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{n}?", "completion": f" a{n}"}) + "\n" for n in range(60)))
    here = ["data.source=custom", f"data.paths=[{path}]", "adapter.access=open"]
    found = answer(["check", *here, "--json"], capsys)
    (source,) = found["sources"]
    assert sum(source["sizes"].values()) == source["tally"]["kept"] == 60
    assert source["template"] == "pair"
    assert run(["data", "check", *here]) == 0
    assert "splits       train" in capsys.readouterr().out
    shown = answer(["preview", *here, "--json", "--rows", "1"], capsys)
    (row,) = shown["rows"]
    number = int(row["uid"].rpartition(":")[2]) - 1
    assert row["given"].endswith(f"q{number}?")
    assert row["trained"].startswith(f" a{number}")
    assert run(["data", "preview", *here]) == 0
    assert f"q{number}?" in capsys.readouterr().out


def test_rows_that_nobody_classed_are_read_privately_and_the_class_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps({"text": f"The canary {n}."}) + "\n" for n in range(40)))
    summary = answer(["read", "custom", str(path), "--out", str(out), "--json"], capsys)
    assert summary["access"] is None and stat.S_IMODE(out.stat().st_mode) == 0o600
    out.unlink()
    assert run(["data", "read", "custom", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert said.count("'custom' has no access class until you state one") == 1
    assert all(f"--access {name} (" in said for name in ("open", "registered", "credentialed"))
    listed = tmp_path / "list.txt"
    assert run(["data", "blocklist", "--source", "custom", str(path), "--out", str(listed)]) == 0
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600
    capsys.readouterr()
    for access, mode in (("open", 0o644), ("registered", 0o644), ("credentialed", 0o600)):
        before = os.umask(0o022)
        summary = answer(["read", "custom", str(path), "--out", str(out), "--json", "--access", access], capsys)
        os.umask(before)
        assert summary["access"] == access and stat.S_IMODE(out.stat().st_mode) == mode


def test_a_preview_of_rows_that_nobody_classed_shows_sizes_and_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = tmp_path / "a.jsonl", tmp_path / "page.html"
    path.write_text("".join(json.dumps({"text": f"The canary {n}.", "uid": f"canary{n}"}) + "\n" for n in range(40)))
    here = ["data.source=custom", f"data.paths=[{path}]"]
    for command in (
        ["check", *here],
        ["check", *here, "--json"],
        ["preview", *here],
        ["preview", *here, "--json"],
        ["preview", *here, "--out", str(page)],
    ):
        assert run(["data", *command]) == 0
        shown = capsys.readouterr()
        assert "canary" not in shown.out + shown.err
        assert shown.err.count("adapter.access=open (anyone may read the data)") == 1
        if command == ["preview", *here]:
            assert "row 1: " in shown.out and "text not shown" in shown.out
    assert "canary" not in page.read_text() and stat.S_IMODE(page.stat().st_mode) == 0o600
    assert run(["data", "preview", *here, "adapter.access=open"]) == 0
    assert "canary" in capsys.readouterr().out


def test_rows_of_a_credentialed_source_are_not_shown(abstracts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"data.paths=[{abstracts}]", "data.validation_share=0", "data.test_share=0"]
    assert run(["data", "preview", *arguments, "adapter.access=credentialed"]) == 77
    assert "Why" not in "".join(capsys.readouterr())


def test_articles_are_those_current_after_all_files(
    abstracts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deleted article is none; one that is current but dropped, here for want of an abstract, is one."""
    other = "<MedlineCitation><PMID>2</PMID><Article><ArticleTitle>T.</ArticleTitle></Article></MedlineCitation>"
    third = other.replace("<PMID>2<", "<PMID>3<")
    abstract = "<Abstract><AbstractText>So.</AbstractText></Abstract></Article>"
    update = tmp_path / "b.xml"
    update.write_text(
        f"<PubmedArticleSet><PubmedArticle>{other}</PubmedArticle><PubmedArticle>{third}</PubmedArticle>"
        f"<PubmedArticle>{other.replace('>2<', '>4<').replace('</Article>', abstract)}</PubmedArticle>"
        "<DeleteCitation><PMID>1</PMID></DeleteCitation></PubmedArticleSet>"
    )
    paths = [str(abstracts), str(update)]
    summary = answer(["read", "pubmed", *paths, "--out", str(tmp_path / "o.jsonl"), "--json"], capsys)
    assert summary["dropped"] == {"deleted": 1, "no_abstract": 2, "superseded": 1}
    assert (summary["read"], summary["kept"], summary["articles"]) == (5, 1, 3)


def test_several_processes_write_the_lines_that_one_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = [str(path) for path in corpus(tmp_path)]
    written: list[tuple[bytes, int, str]] = []
    for number, access in enumerate(("open", "open", "credentialed", "credentialed")):
        out = tmp_path / f"{number}.jsonl"
        with monkeypatch.context() as patch:
            if number % 2:
                patch.setattr(record_lines, "LEAST_BYTES", 0)
                patch.setattr(record_lines, "available_processes", lambda: 3)
            assert run(["data", "read", "pubmed", *paths, "--out", str(out), "--access", access, "--json"]) == 0
        summary = capsys.readouterr().out.replace(str(out), "OUT")
        written.append((out.read_bytes(), out.stat().st_mode & 0o777, summary))
    assert written[0] == written[1] and written[2] == written[3]
    assert written[0][0] == written[2][0] and written[3][1] == 0o600
    assert len(written[0][0].splitlines()) == json.loads(written[0][2])["kept"] > 200
    assert len(list((tmp_path / "cache").rglob("*.arrow"))) == 4  # of the open ones


@needs_real
def test_the_real_file_is_read_by_its_glob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = str(REAL / "pubmed_xml" / "pubmed20n10*.xml.gz")
    summary = answer(["read", "pubmed", pattern, "--out", str(tmp_path / "o.jsonl"), "--json"], capsys)
    assert (summary["read"], summary["articles"]) == (756, 754)


def test_templates_are_listed_with_what_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {one["name"]: one for one in answer(["templates", "--json"], capsys)["templates"]}
    assert listed["conclusion"]["needs"] == "sections, the last a conclusion"
    assert listed["text"]["too_long"][0] == "chunk_by_section"
    assert run(["data", "templates"]) == 0


def test_a_block_list_is_made_from_a_source_or_from_pmids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ids.txt").write_text("123\npmid:45\n\n")
    (tmp_path / "test.txt").write_text("123|t|Title\n123|a|Text.\n\n45|t|Title two\n45|a|Text.\n")
    one, two = str(tmp_path / "one.txt"), str(tmp_path / "two.txt")
    assert answer(["blocklist", str(tmp_path / "ids.txt"), "--out", one, "--json"], capsys)["ids"] == 2
    source = ["blocklist", str(tmp_path / "test.txt"), "--source", "bc5cdr", "--out", two, "--json"]
    assert answer(source, capsys)["ids"] == 2
    assert Path(one).read_text().splitlines()[1:] == Path(two).read_text().splitlines()[1:]
    (tmp_path / "ids.txt").write_text("123\nabc\n")
    assert run(["data", "blocklist", str(tmp_path / "ids.txt"), "--out", one]) == 65
    assert run(["data", "blocklist", "--out", one]) == 2
    assert run(["data", "blocklist", "gone.txt", "--out", one]) == 66


def test_every_source_says_how_it_is_obtained(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(HOWTOS) == set(SOURCES)
    assert answer(["get", "mimic3", "--json"], capsys)["access"] == "credentialed"
    assert run(["data", "get", "mts_dialog"]) == 0
    shown = capsys.readouterr().out
    assert "https://raw.githubusercontent.com/abachaa/MTS-Dialog/" in shown and "--download" in shown
    assert run(["data", "get", "mts_dialgo"]) == 2


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder it serves."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_a_download_is_complete_and_has_its_checksum_or_does_not_exist(site: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = site
    content = b"iron" * 100_000
    (folder / "a.bin").write_bytes(content)
    (folder / "b.bin").write_bytes(content)
    (folder / "b.bin.md5").write_text(f"MD5(b.bin)= {hashlib.md5(content).hexdigest()}\n")
    seen: list[int] = []
    good = Remote(f"{address}/a.bin", hashlib.sha256(content).hexdigest())
    assert download(good, tmp_path / "out", lambda done, whole: seen.append(done)).read_bytes() == content
    assert seen[-1] == len(content)
    assert download(Remote(f"{address}/b.bin", None), tmp_path / "out").read_bytes() == content
    with pytest.raises(IntegrityError, match="another checksum"):
        download(Remote(f"{address}/a.bin", "0" * 64), tmp_path / "wrong")
    assert list((tmp_path / "wrong").iterdir()) == []
    for gone in (Remote(f"{address}/c.bin", "0" * 64), Remote("http://127.0.0.1:1/a.bin", "0" * 64)):
        with pytest.raises(InputMissingError, match="cannot be downloaded"):
            download(gone, tmp_path / "gone")
    (folder / "a.bin").unlink()
    assert download(good, tmp_path / "out").name == "a.bin"  # it is there already


@needs_real
@pytest.mark.parametrize("source", sorted(name for name, found in HOWTOS.items() if found.files and name != "pubmed"))
def test_the_checksums_are_those_of_the_real_files(source: str) -> None:
    files = [path for path in (REAL / FOLDERS.get(source, source)).rglob("*") if path.is_file()]
    here = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert {remote.digest for remote in HOWTOS[source].files} <= here

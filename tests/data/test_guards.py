"""Promises of reading, splitting and mixing that nothing else would miss, each on the smallest input that shows it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.corpus import open_corpus, open_heldout
from lora_med.data.download import Remote, download
from lora_med.data.formats import archives as documents
from lora_med.data.formats.clinical_notes import sections
from lora_med.data.formats.row_fields import stem
from lora_med.data.mixture import Ingredient, mix
from lora_med.data.record import Annotated, Passage, Span
from lora_med.data.splitting import pubmedqa_folds as folds
from lora_med.data.splitting.block_lists import write_block_list
from lora_med.data.splitting.leakage import group_of
from lora_med.data.splitting.splits import splits_by_file_name
from lora_med.errors import DataError, InputMissingError
from tests.data.examples_texts import PMC, STUDY
from tests.data.real_files import REAL, needs_real
from tests.data.test_leakage import changed, sentence, settings
from tests.data.test_leakage import passages as numbered
from tests.data.test_leakage import write as write_rows
from tests.data.test_pubmed import article, deletion, passages, tally
from tests.data.test_pubmed import write as write_articles
from tests.data.test_pubmedqa import made_up
from tests.data.test_sources import read, write

WHOLE = {"validation_share": 0, "test_share": 0}


def bioc(name: str, *stretches: tuple[int, str], mentions: tuple[tuple[int, int, str], ...] = ()) -> dict[str, Any]:
    """A BioC document: passages by offset, and mentions by offset and length."""
    marks = [
        {"text": text, "infons": {"type": "Metal"}, "locations": [{"offset": offset, "length": length}]}
        for offset, length, text in mentions
    ]
    held = [{"offset": offset, "text": text} for offset, text in stretches]
    return {"id": name, "passages": held, "annotations": marks}


@pytest.mark.parametrize("source", ["pmc", "bioc"])
def test_an_article_is_block_listed_by_its_pmid_whatever_it_was_read_from(source: str, tmp_path: Path) -> None:
    if source == "pmc":
        other = PMC.content.replace(">31<", ">32<").replace("PMC7", "PMC8").replace("Short.", "Long.")
        (tmp_path / "in").mkdir()
        write(tmp_path / "in", "a.nxml", PMC.content)
        write(tmp_path / "in", "b.nxml", other)
        kept = "pmc:PMC8"
    else:
        both = [bioc("31", (0, "Iron is old.")), bioc("32", (0, "Gold is not."))]
        (tmp_path / "in").mkdir()
        write(tmp_path / "in", "a.json", json.dumps({"documents": both}))
        kept = "bioc:32"
    write_block_list(tmp_path / "mine.txt", ["pmid:31"], "mine")
    here = settings(tmp_path / "in", source=source, block_lists=[str(tmp_path / "mine.txt")], **WHOLE)
    corpus = open_corpus(here, access="open")
    assert [record.uid for record in corpus.train] == [kept]
    assert corpus.tally.dropped == {"blocked": 1}


def test_a_pmid_is_one_group_in_every_source_and_other_names_are_not() -> None:
    same = [Passage("a", "31", source, "T.") for source in ("pubmed", "pmc", "pubmedqa", "bc5cdr", "bioc")]
    assert {group_of(record) for record in same} == {"pmid:31"}
    others = [Passage("a", "31", "custom", "T."), Passage("a", "31", "mimic3", "T."), Passage("a", "PMC7", "pmc", "T.")]
    assert len({group_of(record) for record in [*same, *others]}) == 4


def test_another_seed_mixes_in_other_records_not_only_another_order() -> None:
    parts = [Ingredient("a", 3, numbered("a", 75)), Ingredient("b", 1, numbered("b", 400))]
    drawn = [
        {record.uid for record in mix(parts, "first_exhausted", seed)[0] if record.source == "b"} for seed in range(3)
    ]
    assert [len(one) for one in drawn] == [25, 25, 25]
    assert len({frozenset(one) for one in drawn}) == 3


@pytest.mark.parametrize(
    "name", ["latest_corpus.txt", "Contest.txt", "testimonies.txt", "TestsOfIron.txt", "strain.txt"]
)
def test_a_word_within_another_word_names_no_part_of_a_published_source(name: str) -> None:
    train, test = Path("NCBItrainset_corpus.txt"), Path("CDR_TestSet.PubTator.txt")
    assert splits_by_file_name([train, Path(name)], within=True) is None
    assert splits_by_file_name([test, Path(name)], within=True) is None
    assert splits_by_file_name([train, test], within=True) == {"train": [train], "test": [test]}
    with pytest.raises(DataError, match=f"1 after none: {name}"):
        splits_by_file_name([train, test, Path(name)], within=True)


def test_a_file_of_other_content_is_downloaded_again(tmp_path: Path) -> None:
    served, target = tmp_path / "site" / "a.bin", tmp_path / "out" / "a.bin"
    for path, content in ((served, b"iron" * 100), (target, b"gold" * 100)):
        path.parent.mkdir()
        path.write_bytes(content)
    remote = Remote(served.as_uri(), hashlib.sha256(served.read_bytes()).hexdigest())
    assert download(remote, target.parent).read_bytes() == b"iron" * 100
    target.write_bytes(b"iron" * 99)
    served.unlink()
    with pytest.raises(InputMissingError, match="cannot be downloaded"):
        download(remote, target.parent)


def studies(path: Path, *names: str) -> Path:
    """A zip of studies; the numbers in the names are theirs."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            content = json.dumps(STUDY).replace("NCT00000001", name).replace("Anemia", f"Anemia {name}")
            archive.writestr(f"{name}.json", content)
    return path


def test_an_encrypted_member_of_a_zip_is_one_drop(tmp_path: Path) -> None:
    path = studies(tmp_path / "studies.zip", "NCT00000001", "NCT00000002")
    raw = bytearray(path.read_bytes())
    raw[6] |= 1  # the flag "encrypted" of the first member, here and in the archive's directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    records, counted = read("clinicaltrials", path, skip_bad=True)
    assert [record.uid for record in records] == ["ctgov:NCT00000002"]
    assert counted.dropped == {"damaged_file": 1}
    with pytest.raises(DataError, match="cannot be unpacked") as caught:
        read("clinicaltrials", path)
    assert "member NCT00000001.json" in (caught.value.where or "")


def test_a_document_too_large_to_hold_is_one_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = studies(tmp_path / "studies.zip", "NCT00000001", "NCT00000002")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("NCT00000003.json", json.dumps(STUDY) + " " * 5000)
        longest = max(item.file_size for item in archive.infolist()[:2])
    monkeypatch.setattr(documents, "LONGEST_BYTES", longest)
    records, counted = read("clinicaltrials", path, skip_bad=True)
    assert [record.uid for record in records] == ["ctgov:NCT00000001", "ctgov:NCT00000002"]
    assert counted.dropped == {"damaged_file": 1}
    with pytest.raises(DataError, match=f"more than {longest:,} bytes") as caught:
        read("clinicaltrials", path)
    assert "member NCT00000003.json" in (caught.value.where or "")
    plain = write(tmp_path, "large.json", json.dumps(STUDY) + " " * 5000)
    with pytest.raises(DataError, match=f"more than {longest:,} bytes"):
        read("clinicaltrials", plain)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_limit_of_records_changes_no_split_of_questions(named: bool, streaming: bool, tmp_path: Path) -> None:
    items = made_up(80)
    path = write(tmp_path, "ori_pqal.json", json.dumps(items))
    if named:
        write(tmp_path, folds.GROUND_TRUTH, json.dumps(dict.fromkeys(list(items)[40:], "yes")))
    values = {"source": "pubmedqa", "validation_share": 0.25, "test_share": 0.25, "streaming": streaming}
    whole, short = settings(path, **values), settings(path, max_records=4, **values)
    full, corpus = open_corpus(whole), open_corpus(short)
    assert corpus.split_description == full.split_description
    for part, held in (("train", corpus.train), ("validation", corpus.validation)):
        assert len(held) == len(list(held)) == 4, part
    assert [record.uid for record in corpus.train] == [record.uid for record in full.train][:4]
    assert [record.uid for record in corpus.validation] == [record.uid for record in full.validation][:4]
    assert list(open_heldout(short, "test")) == list(open_heldout(whole, "test"))[:4]
    assert corpus.tally.kept == 12 and corpus.tally.dropped["max_records"] == 68


@needs_real
def test_a_limit_of_records_leaves_the_real_fold_official() -> None:
    here = settings(REAL / "pubmedqa" / "ori_pqal_nontest500.json", source="pubmedqa", max_records=5)
    corpus = open_corpus(here)
    assert "official fold 0 of 10" in corpus.split_description
    assert (len(corpus.train), len(corpus.validation)) == (5, 5)


@pytest.mark.parametrize(("tied", "refused"), [(20, False), (21, True), (30, True)])
def test_near_duplicates_may_tie_a_tenth_of_the_groups_together_and_no_more(
    tied: int, refused: bool, tmp_path: Path
) -> None:
    rows = [{"uid": f"a{n}", "group": f"g{n}", "text": changed(sentence(1, 200), n)} for n in range(tied)]
    rows += [{"uid": f"b{n}", "group": f"h{n}", "text": sentence(n + 2, 200)} for n in range(200 - tied)]
    here = settings(write_rows(tmp_path / "rows.jsonl", rows), validation_share=0.2)
    if refused:
        with pytest.raises(DataError, match=f"near-duplicates tie {tied} of 200 groups together"):
            open_corpus(here)
    else:
        assert open_corpus(here).tally.kept == 200


def test_texts_that_differ_in_case_and_spacing_have_one_name() -> None:
    assert stem("Is Iron\n old?") == stem(" is  iron old? ") == stem("IS\tIRON OLD?")
    assert stem("Straße") == stem("STRASSE")
    assert len({stem("a b", "c"), stem("a", "b c"), stem("a b c"), stem("ab", "c")}) == 4


def test_passages_are_laid_out_by_bytes_where_characters_would_tear_them_apart(tmp_path: Path) -> None:
    long = "é" * 70_000
    content = bioc("7", (0, long), (140_001, "Iron é gold"), mentions=((140_001, 4, "Iron"), (140_009, 4, "gold")))
    (record,), _ = read("bioc", write(tmp_path, "a.json", json.dumps({"documents": [content]})))
    assert isinstance(record, Annotated) and record.text == f"{long} Iron é gold"
    assert record.spans == (Span(70_001, 70_005, "Metal", "Iron"), Span(70_008, 70_012, "Metal", "gold"))


def test_a_mention_that_is_listed_twice_is_one_span(tmp_path: Path) -> None:
    row = "7\t0\t4\tIron\tMetal\tD1\n"
    content = f"7|t|Iron is old.\n7|a|So is gold.\n{row}{row.replace('D1', 'D2')}7\t19\t23\tgold\tMetal\tD3\n"
    (record,), _ = read("bc5cdr", write(tmp_path, "a.txt", content))
    assert isinstance(record, Annotated)
    assert record.spans == (Span(0, 4, "Metal", "Iron"), Span(19, 23, "Metal", "gold"))


def test_a_heading_has_six_words_at_most() -> None:
    text = "One two three four five six: a.\nOne two three four five six seven: b."
    (section,) = sections(text)
    assert section.label == "One two three four five six"
    assert section.text == "a.\nOne two three four five six seven: b."


@pytest.mark.parametrize("streaming", [False, True])
def test_an_article_deleted_then_added_with_a_lower_version_is_current(tmp_path: Path, streaming: bool) -> None:
    text = "<AbstractText>{}</AbstractText>"
    first = write_articles(tmp_path / "a.xml", article(5, text.format("Second."), version=2), deletion(5))
    later = write_articles(tmp_path / "b.xml", article(5, text.format("First.")))
    (record,) = passages(first, later, streaming=streaming)
    assert record.text == "First." and record.about is not None and record.about.version == 1
    assert tally(first, later, streaming=streaming).dropped == {"superseded": 1}

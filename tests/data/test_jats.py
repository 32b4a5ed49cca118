"""JATS of any publisher: who an article is, whatever the envelope and its namespaces, and what of it is read."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from pathlib import Path

import pytest

from lora_med.data.outcome import Tally
from lora_med.data.record import Passage, Record, Section
from lora_med.errors import DataError
from tests.data.test_sources import read, write

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'
DOI = '<article-id pub-id-type="doi">10.1/X</article-id>'
JOURNAL = '<journal-meta><journal-id journal-id-type="nlm-ta">Iron J</journal-id></journal-meta>'


def article(ids: str, body: str = "<p>A result.</p>", more: str = "", attributes: str = "", journal: str = "") -> str:
    return (
        f"<article {XLINK} {attributes}><front>{journal}<article-meta>{ids}<title-group>"
        f"<article-title>T</article-title></title-group><abstract><p>An abstract.</p></abstract></article-meta>"
        f"</front><body>{body}</body>{more}</article>"
    )


def passage(records: list[Record]) -> Passage:
    (record,) = records
    assert isinstance(record, Passage)
    return record


def identifier(kind: str, value: str) -> str:
    return f'<article-id pub-id-type="{kind}">{value}</article-id>'


@pytest.mark.parametrize(
    ("ids", "uid", "group"),
    [
        (identifier("pmc", "12"), "pmc:PMC12", "PMC12"),
        (identifier("pmcid", "PMC12"), "pmc:PMC12", "PMC12"),
        (identifier("pmc-id", "pmc12"), "pmc:PMC12", "PMC12"),
        (identifier("PMC", "PMC 12"), "pmc:PMC12", "PMC12"),
        (
            identifier("pmcid", "PMC12") + identifier("pmcid-ver", "PMC12.1") + identifier("pmcaid", "9"),
            "pmc:PMC12",
            "PMC12",
        ),
        (identifier("doi", "10.1/x") + identifier("pmid", "31") + identifier("pmc", "12"), "pmc:PMC12", "31"),
        (identifier("doi", "10.1/x") + identifier("pmid", "31"), "pmid:31", "31"),
        (identifier("pmc", "none") + identifier("doi", "10.1/x"), "doi:10.1/x", "doi:10.1/x"),
        (DOI, "doi:10.1/x", "doi:10.1/x"),
        (identifier("doi", "https://doi.org/10.1/X"), "doi:10.1/x", "doi:10.1/x"),
        (identifier("doi", "doi: 10.1371/journal.pone.0000217"), *2 * ("doi:10.1371/journal.pone.0000217",)),
        (identifier("publisher-id", "e7 1"), *2 * ("publisher-id:Iron J/e7 1",)),
        (identifier("manuscript", "M7"), *2 * ("publisher-id:Iron J/M7",)),
    ],
)
def test_an_article_is_named_by_pmc_else_pmid_else_doi_else_its_publisher(
    ids: str, uid: str, group: str, tmp_path: Path
) -> None:
    found = passage(read("pmc", write(tmp_path, "a.xml", article(ids, journal=JOURNAL)))[0])
    assert (found.uid, found.group, found.text) == (uid, group, "Abstract\nAn abstract.\n\nA result.")


def test_an_article_that_nothing_names_is_refused_with_the_types_it_has(tmp_path: Path) -> None:
    path = write(tmp_path, "a.xml", article(identifier("elocation", "e1") + identifier("doi", "none")))
    with pytest.raises(DataError, match=r"of the type pmc, pmid, doi or publisher-id; .* elocation, doi") as caught:
        read("pmc", path)
    assert (caught.value.where or "").endswith("a.xml:1")
    with pytest.raises(DataError, match="the article has none"):
        read("pmc", write(tmp_path, "b.xml", article("")))


@pytest.mark.parametrize("prefix", ["", "j:"])
def test_a_namespace_changes_nothing_whatever_its_prefix(prefix: str, tmp_path: Path) -> None:
    plain = article(DOI, "<sec><title>Results</title><p>A <italic>b</italic>.</p></sec>")
    declared = f'xmlns{":j" if prefix else ""}="https://jats.nlm.nih.gov/ns/archiving/1.3/"'
    named = plain.replace("</", "\0").replace("<", f"<{prefix}").replace("\0", f"</{prefix}")
    named = named.replace(f"<{prefix}article ", f"<{prefix}article {declared} ", 1)
    wanted, found = (read("pmc", write(tmp_path, name, text))[0] for name, text in (("a.xml", plain), ("b.xml", named)))
    assert found == wanted and passage(found).sections[1] == Section("A b.", "Results")


def oai(*records: str) -> str:
    return (
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><responseDate>2026-01-01</responseDate><ListRecords>'
        f"{''.join(records)}</ListRecords></OAI-PMH>"
    )


def test_the_articles_in_an_oai_envelope_are_read_and_deleted_ones_counted(tmp_path: Path) -> None:
    inner = article(DOI).replace("<article ", '<article xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/" ', 1)
    other = article(identifier("pmc", "8"), "<p>Another.</p>")
    head = "<header><identifier>oai:x:1</identifier></header>"
    content = oai(
        f"<record>{head}<metadata>{inner}</metadata></record>",
        '<record><header status="deleted"><identifier>oai:x:2</identifier></header></record>',
        f"<record>{head}<metadata>{other}</metadata></record>",
    )
    records, tally = read("pmc", write(tmp_path, "a.xml", content))
    assert [record.uid for record in records] == ["doi:10.1/x", "pmc:PMC8"]
    assert tally == Tally(3, 2, {"deleted": 1})


def test_an_oai_service_s_error_is_named(tmp_path: Path) -> None:
    content = '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><error code="noRecordsMatch">No.</error></OAI-PMH>'
    with pytest.raises(DataError, match="the OAI service answered noRecordsMatch"):
        read("pmc", write(tmp_path, "a.xml", content))


@pytest.mark.parametrize("root", ["articles", "pmc-articleset", "collection"])
def test_several_articles_in_one_file_are_read(root: str, tmp_path: Path) -> None:
    content = f"<{root}>{article(DOI)}{article(identifier('pmc', '8'), '<p>Other.</p>')}</{root}>"
    assert [one.uid for one in read("pmc", write(tmp_path, "a.xml", content))[0]] == ["doi:10.1/x", "pmc:PMC8"]


def test_reviews_and_replies_are_left_out_and_counted(tmp_path: Path) -> None:
    more = "".join(
        f"<{kind}><front-stub>{identifier('doi', f'10.1/x.{kind}')}</front-stub><body><p>A review.</p></body></{kind}>"
        for kind in ("sub-article", "sub-article", "response")
    )
    records, tally = read("pmc", write(tmp_path, "a.xml", article(DOI, more=more)))
    assert "review" not in passage(records).text
    assert tally == Tally(1, 1, {}, {"response": 1, "sub_article": 2})


def test_of_an_article_in_another_language_the_english_translation_is_read(tmp_path: Path) -> None:
    translation = (
        '<sub-article article-type="translation" xml:lang="en"><front-stub><title-group><article-title>Iron'
        "</article-title></title-group><abstract><p>In English.</p></abstract></front-stub><body>"
        "<p>Iron rose.</p></body></sub-article>"
    )
    portuguese = article(DOI, "<p>Ferro.</p>", translation, 'xml:lang="pt"')
    records, tally = read("pmc", write(tmp_path, "a.xml", portuguese))
    assert (passage(records).title, passage(records).text) == ("Iron", "Abstract\nIn English.\n\nIron rose.")
    assert tally == Tally(1, 1)
    assert read("pmc", write(tmp_path, "b.xml", article(DOI, attributes='xml:lang="pt"')))[1].dropped == {
        "not_english": 1
    }


def test_boxes_and_lists_are_text_and_tables_are_not(tmp_path: Path) -> None:
    body = (
        "<sec><title>Results</title><p>Before.</p><boxed-text><label>Box 1</label><caption><title>Key points</title>"
        "</caption><sec><title>One</title><p>First.</p></sec></boxed-text><list><title>Doses</title><list-item><label>a"
        "</label><p>Iron</p></list-item><list-item><p>Gold</p></list-item></list><table-wrap><caption><p>Caption.</p>"
        "</caption><table><tr><td>9</td></tr></table></table-wrap><p>After.</p></sec>"
    )
    figure = "<fig><caption><p>Figure.</p></caption></fig>"
    box = f"<floats-group><boxed-text><p>Aside.</p></boxed-text>{figure}</floats-group>"
    found = passage(read("pmc", write(tmp_path, "a.xml", article(DOI, body, box)))[0])
    assert found.sections[1:] == (
        Section("Before.\nKey points\nOne\nFirst.\nDoses\nIron\nGold\nAfter.", "Results"),
        Section("Aside.", "Box", "BOXED-TEXT"),
    )


def test_no_document_type_is_fetched_and_no_entity_expanded(tmp_path: Path) -> None:
    secret = write(tmp_path, "secret.txt", "SECRET")
    plain = '<!DOCTYPE article SYSTEM "http://localhost:1/JATS.dtd">' + article(DOI)
    assert len(read("pmc", write(tmp_path, "a.xml", plain))[0]) == 1
    start = f'<!DOCTYPE article [<!ENTITY a SYSTEM "{secret.as_uri()}"><!ENTITY b "&a;&a;">]>'
    for entity in ("a", "b", "nbsp"):
        with pytest.raises(DataError, match=r"an entity that XML does not define|not well-formed") as caught:
            read("pmc", write(tmp_path, "b.xml", start + article(DOI, f"<p>&{entity};</p>")))
        assert "SECRET" not in str(caught.value)


def test_a_zip_and_a_tar_of_articles_are_read_and_packed_members_too(tmp_path: Path) -> None:
    write(tmp_path, "a.xml", article(DOI))
    (tmp_path / "b.xml.gz").write_bytes(gzip.compress(article(identifier("pmc", "8"), "<p>Other.</p>").encode()))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, tarfile.open(tmp_path / "a.tgz", "w:gz") as tape:
        for name in ("a.xml", "b.xml.gz"):
            packed.write(tmp_path / name, f"in/{name}")
            tape.add(tmp_path / name, f"in/{name}")
    for name in ("a.zip", "a.tgz"):
        assert [one.uid for one in read("pmc", tmp_path / name)[0]] == ["doi:10.1/x", "pmc:PMC8"]


@pytest.mark.parametrize("source", ["pmc", "medquad", "clinicaltrials", "plain_text", "cda", "fhir"])
def test_an_archive_in_which_nothing_is_read_is_an_error(source: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "nothing.zip", "w") as archive:
        archive.writestr("a/readme.rst", "x")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with tarfile.open(tmp_path / "nothing.tar", "w") as tape:
        tape.addfile(tarfile.TarInfo("a/readme.rst"))
    for name, said in (("nothing.zip", "1 of .rst"), ("empty.zip", "its 0 files"), ("nothing.tar", "1 of .rst")):
        with pytest.raises(DataError, match=f"no document in the archive.*{said}") as caught:
            read(source, tmp_path / name)
        assert name in (caught.value.where or "")


def test_of_two_versions_of_an_article_the_first_is_kept_and_the_other_counted(tmp_path: Path) -> None:
    review = "<sub-article><body><p>A review.</p></body></sub-article>"
    content = f"<articles>{article(DOI)}{article(DOI, '<p>Corrected.</p>', review)}{article(DOI)}</articles>"
    records, tally = read("pmc", write(tmp_path, "a.xml", content))
    assert "A result." in passage(records).text
    assert tally == Tally(3, 1, {"duplicate": 1, "other_version": 1})

"""A search saved from PubMed as .nbib gives the passages of its XML."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.outcome import ReadOptions, Tally
from lora_med.data.reading import read_records
from lora_med.data.record import Bibliography, Passage, Section, Term
from lora_med.errors import DataError
from tests.data.test_sources import read, write

NBIB = """
PMID- 21
OWN - NLM
STAT- MEDLINE
DP  - 2001 May
TI  - Iron in
      blood.
LID - 10.1/x [doi]
AB  - AIM: To see
      iron. RESULTS: H2O rose by 2% (P = .05): good. CONCLUSIONS AND RELEVANCE:
      It is.
FAU - Roe, Ann
AD  - Iron Street 7: RESULTS: none.
LA  - eng
LA  - fre
PT  - Journal Article
PT  - Review
JT  - Blood & iron
MH  - Iron/*blood/analysis
MH  - *Humans
SO  - Blood. 2001 May.

PMID- 22
DP  - 1998 Dec-1999 Jan
TI  - [Old].
AB  - New: it has no sections. (ABSTRACT TRUNCATED AT 250 WORDS)
JT  - J
LA  - eng
"""
XML = """<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID Version="1">21</PMID><Article><Journal><JournalIssue>
<PubDate><Year>2001</Year><Month>May</Month></PubDate></JournalIssue><Title>Blood &amp; iron</Title></Journal>
<ArticleTitle>Iron in blood.</ArticleTitle><Abstract><AbstractText Label="AIM">To see iron.</AbstractText>
<AbstractText Label="RESULTS">H2O rose by 2% (P = .05): good.</AbstractText>
<AbstractText Label="CONCLUSIONS AND RELEVANCE">It is.</AbstractText></Abstract><Language>eng</Language>
<Language>fre</Language><PublicationTypeList><PublicationType UI="D016428">Journal Article</PublicationType>
<PublicationType UI="D016454">Review</PublicationType></PublicationTypeList></Article><MeshHeadingList><MeshHeading>
<DescriptorName UI="D007501" MajorTopicYN="N">Iron</DescriptorName></MeshHeading><MeshHeading>
<DescriptorName UI="D006801" MajorTopicYN="Y">Humans</DescriptorName></MeshHeading></MeshHeadingList>
</MedlineCitation></PubmedArticle>
</PubmedArticleSet>"""
WANTED = (
    Passage(
        "pmid:21",
        "21",
        "pubmed",
        "AIM: To see iron.\nRESULTS: H2O rose by 2% (P = .05): good.\nCONCLUSIONS AND RELEVANCE: It is.",
        "Iron in blood.",
        (
            Section("To see iron.", "AIM"),
            Section("H2O rose by 2% (P = .05): good.", "RESULTS"),
            Section("It is.", "CONCLUSIONS AND RELEVANCE"),
        ),
        Bibliography(
            1,
            2001,
            "Blood & iron",
            ("eng", "fre"),
            (Term("", "Journal Article"), Term("", "Review")),
            (Term("", "Iron"), Term("", "Humans")),
        ),
    ),
    Passage(
        "pmid:22",
        "22",
        "pubmed",
        "New: it has no sections.",
        "Old",
        (Section("New: it has no sections."),),
        Bibliography(1, 1998, "J", ("eng",)),
    ),
)


@pytest.mark.parametrize("name", ["a.nbib", "pubmed-iron-set.txt"])
@pytest.mark.parametrize("change", [("", ""), ("\n", "\r\n"), ("\n", "\r"), ("\nPMID- 21", "\ufeffPMID- 21")])
def test_the_records_of_a_saved_search_are_passages(name: str, change: tuple[str, str], tmp_path: Path) -> None:
    records, tally = read("pubmed", write(tmp_path, name, NBIB.replace(*change) if change[0] else NBIB))
    assert records == list(WANTED)
    assert tally == Tally(2, 2)


def test_an_article_is_the_same_passage_from_nbib_and_xml_but_for_codes_that_only_xml_has(tmp_path: Path) -> None:
    (from_xml,), _ = read("pubmed", write(tmp_path, "a.xml", XML))
    assert isinstance(from_xml, Passage) and from_xml.about is not None
    without_codes = replace(
        from_xml.about,
        publication_types=tuple(Term("", term.name) for term in from_xml.about.publication_types),
        mesh=tuple(Term("", term.name) for term in from_xml.about.mesh),
    )
    assert replace(from_xml, about=without_codes) == WANTED[0]


def test_a_gz_and_a_stream_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.nbib.gz"
    path.write_bytes(gzip.compress(NBIB.encode()))
    streamed = read_records(find_source("pubmed"), [path], ReadOptions(streaming=True))
    assert list(streamed) == list(WANTED) == list(streamed)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("PT  - Retracted Publication", "retracted"),
        ("RIN - Blood. 2002", "retracted"),
        ("PT  - Retraction of Publication", "retraction_notice"),
        ("ROF - Blood. 2002", "retraction_notice"),
        ("LA  - ger", "not_english"),
    ],
)
def test_what_is_not_wanted_is_counted(line: str, reason: str, tmp_path: Path) -> None:
    record = NBIB.split("\n\n")[1].replace("LA  - eng", "" if line.startswith("LA") else "LA  - eng")
    assert read("pubmed", write(tmp_path, "a.nbib", f"{record}{line}\n"))[1].dropped == {reason: 1}


def test_a_record_without_an_abstract_is_counted_and_a_later_one_of_an_article_wins(tmp_path: Path) -> None:
    other = "PMID- 22\nTI  - Old.\nAB  - Newer.\n\nPMID- 23\nTI  - None.\n"
    records, tally = read("pubmed", write(tmp_path, "a.nbib", f"{NBIB}\n{other}"))
    assert [record.text for record in records if isinstance(record, Passage)][1] == "Newer."
    assert tally.dropped == {"no_abstract": 1, "superseded": 1}


@pytest.mark.parametrize(
    ("change", "said", "line"),
    [
        (("PMID- 22", "PMID- x"), "without a PMID of digits", 23),
        (("DP  - 1998", "published 1998"), "line 24 has no tag", 23),
        (("TI  - [Old]", "TI  - \x00"), "a NUL character", 23),
    ],
)
def test_a_bad_record_is_named_and_does_not_affect_the_others(
    change: tuple[str, str], said: str, line: int, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.nbib", NBIB.replace(*change))
    with pytest.raises(DataError, match=said) as caught:
        read("pubmed", path)
    assert f"a.nbib:{line}" in (caught.value.where or "")
    assert [one.uid for one in read("pubmed", path, skip_bad=True)[0]] == ["pmid:21"]


def test_a_text_in_another_encoding_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    path = tmp_path / "a.nbib"
    path.write_bytes(NBIB.replace("Iron in", "Fièvre in").encode("latin-1"))
    with pytest.raises(DataError, match="look like Windows-1252"):
        read("pubmed", path)

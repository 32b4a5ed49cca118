"""Articles cut out of bytes say what the XML parser says: on files written for it, on real and on damaged ones."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.formats.pubmed.pubmed_articles import Unusual, has_plain_header, split_articles
from lora_med.data.formats.pubmed.pubmed_fast import read_article, text_of
from lora_med.data.outcome import Drop
from lora_med.data.sources import pubmed
from tests.data.damage import damaged
from tests.data.examples_texts import PUBMED
from tests.data.real_files import REAL, needs_real
from tests.data.test_pubmed import article, write

PIECES = (b"<", b">", b"&", b"</i>", b"<Abstract>", b"</PubmedArticle>", b"\x00")
KINDS = (*3 * ["changed byte"], *2 * ["taken out"], *2 * ["doubled"], "piece", "cut short")
SAMPLE = Path(__file__).parents[2] / "lora_med" / "assets" / "sample" / "pubmed_sample.xml.gz"
FILES = sorted((REAL / "pubmed_xml").rglob("*.xml*")) if REAL.is_dir() else []


def steps(path: Path, *, parsed: bool, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What reading a file gives, errors as their words; `parsed` by the XML parser alone."""
    with monkeypatch.context() as patch:
        if parsed:
            patch.setattr(pubmed, "has_plain_header", lambda stream: False)
        found = list(pubmed._steps([path], pubmed._Reader(True)))
    return [_told(one) for one in found]


def _told(step: Any) -> Any:
    if isinstance(step, Drop) and step.error:
        return (str(step.error), step.reason)
    inner = getattr(step, "outcome", None)
    return [step.pmid, str(inner.error)] if isinstance(inner, Drop) and inner.error else step


@pytest.mark.parametrize("path", [SAMPLE, *FILES], ids=lambda path: path.name)
def test_real_files_read_alike(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(path, parsed=False, monkeypatch=monkeypatch) == steps(path, parsed=True, monkeypatch=monkeypatch)


@needs_real
def test_most_real_articles_need_no_parser() -> None:
    read = left = 0
    with gzip.open(REAL / "pubmed_xml" / "pubmed20n1015.xml.gz") as raw, io.BufferedReader(raw) as stream:  # type: ignore[arg-type]
        assert has_plain_header(stream)
        for cut in split_articles(stream):
            try:
                read_article(cut.content, 1)
                read += 1
            except Unusual:
                left += 1
    assert read > 700 and left < 20


TYPES = '<PublicationTypeList> <PublicationType UI="D016454">Review</PublicationType>\n</PublicationTypeList>'
MESH = (
    '<MeshHeadingList><MeshHeading><DescriptorName UI="D1" MajorTopicYN="N">Iron</DescriptorName></MeshHeading>'
    '<MeshHeading><DescriptorName UI="D2" MajorTopicYN="Y" Type="Geographic">Peru</DescriptorName></MeshHeading>'
    "</MeshHeadingList>"
)
LINKED = '<CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn"/></CommentsCorrectionsList>'
ODD = [
    article(1, "<AbstractText>a &lt;b&gt; &#x3b1; &amp;amp; c</AbstractText>"),
    article(
        2, "<AbstractText>one<i>two</i> <sub>3</sub></AbstractText><CopyrightInformation>no</CopyrightInformation>"
    ),
    article(3, "<AbstractText Label='single'>quotes</AbstractText>"),
    article(4, '<AbstractText Label="A &amp; B" NlmCategory="METHODS"/><AbstractText>x</AbstractText>'),
    article(5, "<AbstractText>a <!-- <AbstractText> --> b</AbstractText>"),
    article(6, "<AbstractText><![CDATA[<i>raw</i> & more]]></AbstractText>"),
    article(7, '<AbstractText><mml:math xmlns:mml="u" alttext="a>b"><mml:mi>x</mml:mi></mml:math></AbstractText>'),
    article(8, "<AbstractText>tab\there\r\nand\n there   gap</AbstractText>"),
    article(9, "<AbstractText>x</AbstractText>").replace("<Article>", "<Article PubModel='Print'>"),
    article(10, ""),
    article(11, "<AbstractText>x</AbstractText>").replace("</Article>", "<Language>fre</Language></Article>"),
    article(12).replace("<ArticleTitle>", "<!-- <ArticleTitle>B.</ArticleTitle> --><ArticleTitle>"),
    article(13).replace("<Year>1999</Year>", "<MedlineDate>Winter 1998-1999</MedlineDate>"),
    article(14).replace("<Year>1999</Year>", "<Season>Winter</Season>"),
    article(15).replace("<PubDate><Year>1999</Year></PubDate>", ""),
    article(16).replace("A Journal", "  Blood &amp;\n Iron"),
    article(17, article_extra=f"<Language>ENG</Language>{TYPES}"),
    article(18, article_extra=f"<Language>fre</Language> <Language>eng</Language>{TYPES}"),
    article(19, article_extra=TYPES),
    article(20, article_extra=f"{TYPES}<Language>eng</Language>"),
    article(21, article_extra="<Language>eng</Language><PublicationType>Review</PublicationType>"),
    article(22, article_extra=f"<Language>eng</Language>{TYPES}".replace("Review", "Retracted Publication")),
    article(23, citation_extra=MESH),
    article(24, citation_extra=MESH.replace('UI="D1"', 'ID="D1"')),
    article(25, citation_extra=MESH.replace("Iron", "Iron &#945; <i>x</i>")),
    article(26, citation_extra=MESH.replace("DescriptorName", "Heading")),
    article(27, citation_extra=LINKED),
]


def test_odd_articles_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "odd.xml", *ODD)
    found = steps(path, parsed=False, monkeypatch=monkeypatch)
    assert found == steps(path, parsed=True, monkeypatch=monkeypatch)
    assert len(found) == len(ODD)


@pytest.mark.parametrize("raw", [b"<i>a</b>", b"a<i>", b"a < b", b"a &copy; b", b"a & b", b"a\x01", b"\xff", b"&#0;"])
def test_what_is_no_text_of_xml_is_left_to_the_parser(raw: bytes) -> None:
    with pytest.raises(Unusual):
        text_of(raw)


def test_damage_never_gives_other_texts_than_the_parser_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xml"
    whole = 0
    draw = random.Random(11)
    for _ in range(500):
        path.write_bytes(damaged(PUBMED.content.encode(), draw, PIECES, most=2, kinds=KINDS) or b" ")
        ours = steps(path, parsed=False, monkeypatch=monkeypatch)
        theirs = steps(path, parsed=True, monkeypatch=monkeypatch)
        broken = any(isinstance(one, tuple) for one in theirs)
        whole += not broken
        if broken:  # the parser stops at the damage; what is not read is not checked by us, so we may go on
            before, found = ([one for one in some if not isinstance(one, tuple)] for some in (theirs, ours))
            assert found[: len(before)] == before
        else:
            assert ours == theirs
    assert whole > 5

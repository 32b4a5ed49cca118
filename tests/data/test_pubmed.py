"""PubMed's format, fact by fact, on small files written here; what is expected is written by hand."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import psutil
import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions, Tally
from lora_med.data.reading import Reading, read_records
from lora_med.data.record import Passage, Section
from lora_med.data.sources.pubmed import in_order
from lora_med.errors import DataError
from tests.data.real_files import REAL, needs_real

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n'
)


def article(
    pmid: int,
    abstract: str = "<AbstractText>Some text.</AbstractText>",
    *,
    version: int = 1,
    title: str = "A title.",
    article_extra: str = "<Language>eng</Language>",
    citation_extra: str = "",
    data: str = "",
) -> str:
    body = f"<Abstract>{abstract}</Abstract>" if abstract else ""
    journal = (
        "<Journal><JournalIssue><PubDate><Year>1999</Year></PubDate></JournalIssue><Title>A Journal</Title></Journal>"
    )
    return (
        f'<PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="{version}">{pmid}</PMID><Article>'
        f"{journal}<ArticleTitle>{title}</ArticleTitle>{body}{article_extra}</Article>{citation_extra}</MedlineCitation>"
        f"<PubmedData>{data}</PubmedData></PubmedArticle>\n"
    )


def deletion(*pmids: int) -> str:
    return "<DeleteCitation>" + "".join(f'<PMID Version="1">{pmid}</PMID>' for pmid in pmids) + "</DeleteCitation>"


def write(path: Path, *parts: str, root: str = "PubmedArticleSet", head: str = HEAD) -> Path:
    path.write_text(f"{head}<{root}>{''.join(parts)}</{root}>", encoding="utf-8")
    return path


def reading(*paths: Path, skip_bad: bool = False, keep_retracted: bool = False, streaming: bool = False) -> Reading:
    source = find_source("pubmed")
    inputs = find_inputs(source, [str(path) for path in paths])
    return read_records(
        source,
        inputs,
        ReadOptions(keep_retracted=keep_retracted, streaming=streaming),
        skip_bad=skip_bad,
        may_be_empty=True,
    )


def passages(*paths: Path, **options: bool) -> list[Passage]:
    return [record for record in reading(*paths, **options) if isinstance(record, Passage)]


def tally(*paths: Path, **options: bool) -> Tally:
    found = reading(*paths, **options)
    count = sum(1 for _ in found)
    assert count == found.tally.kept
    assert found.tally.read == found.tally.kept + sum(found.tally.dropped.values())
    return found.tally


def test_every_section_is_kept_in_order_with_its_label(tmp_path: Path) -> None:
    abstract = (
        '<AbstractText Label="BACKGROUND" NlmCategory="BACKGROUND">Why.</AbstractText>'
        '<AbstractText Label="WHAT WE DID" NlmCategory="UNASSIGNED">How.</AbstractText>'
        '<AbstractText Label="FINDINGS">Much.</AbstractText>'
        '<AbstractText NlmCategory="CONCLUSIONS">So.</AbstractText>'
        "<AbstractText>Bare.</AbstractText>"
        '<AbstractText Label="UNLABELED" NlmCategory="UNASSIGNED">Last.</AbstractText>'
    )
    (record,) = passages(write(tmp_path / "a.xml", article(7, abstract)))
    assert record.sections == (
        Section("Why.", "BACKGROUND", "BACKGROUND"),
        Section("How.", "WHAT WE DID", "UNASSIGNED"),
        Section("Much.", "FINDINGS", None),
        Section("So.", None, "CONCLUSIONS"),
        Section("Bare.", None, None),
        Section("Last.", None, "UNASSIGNED"),
    )
    assert record.text == "BACKGROUND: Why.\nWHAT WE DID: How.\nFINDINGS: Much.\nSo.\nBare.\nLast."
    assert (record.uid, record.group, record.source, record.title) == ("pmid:7", "7", "pubmed", "A title.")


def test_mixed_content_is_complete_and_no_attribute_leaks(tmp_path: Path) -> None:
    abstract = (
        "<AbstractText>With <i>E. <b>coli</b></i> at 10<sup>9</sup> and CO<sub>2</sub>, &lt;5 &amp; &#945;, "
        '<mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML" alttext="LEAK"><mml:mi mathvariant="LEAK">x</mml:mi>'
        "<mml:mo>=</mml:mo><mml:mn>3</mml:mn></mml:math>\n   <!-- LEAK --><?LEAK LEAK?>end\u2009mg.</AbstractText>"
    )
    title = "Of <i>two</i> <u>titles</u>."
    (record,) = passages(write(tmp_path / "a.xml", article(1, abstract, title=title)))
    assert record.text == "With E. coli at 109 and CO2, <5 & α, x=3 end\u2009mg."
    assert record.title == "Of two titles."


def test_other_abstracts_vernacular_titles_and_copyright_are_not_the_abstract(tmp_path: Path) -> None:
    abstract = "<AbstractText>Mine.</AbstractText><CopyrightInformation>NOT Mine</CopyrightInformation>"
    other = '<OtherAbstract Type="Publisher" Language="fre"><AbstractText>NOT Autre</AbstractText></OtherAbstract>'
    vernacular = "<Language>eng</Language><VernacularTitle>NOT Titre</VernacularTitle>"
    path = write(tmp_path / "a.xml", article(1, abstract, article_extra=vernacular, citation_extra=other))
    (record,) = passages(path)
    assert "NOT" not in record.text + record.title
    only_other = write(tmp_path / "b.xml", article(2, "", citation_extra=other))
    assert tally(only_other).dropped == {"no_abstract": 1}


def test_only_the_citation_s_own_pmid_counts(tmp_path: Path) -> None:
    comments = (
        '<CommentsCorrectionsList><CommentsCorrections RefType="Cites"><PMID Version="9">999</PMID>'
        "</CommentsCorrections></CommentsCorrectionsList>"
    )
    identifier = '<ArticleIdList><ArticleId IdType="pubmed">888</ArticleId></ArticleIdList>'
    references = f"<ReferenceList><Reference>{identifier}</Reference></ReferenceList>"
    path = write(tmp_path / "a.xml", article(1, citation_extra=comments, data=references), article(999))
    assert sorted(record.group for record in passages(path)) == ["1", "999"]
    assert tally(path) == Tally(2, 2, repeated=1)  # 999 says the same


def test_truncation_tails_are_stripped_from_the_end_only(tmp_path: Path) -> None:
    first = "<AbstractText>Cut here.(ABSTRACT TRUNCATED AT 250 WORDS)</AbstractText>"
    second = "<AbstractText>Cut (ABSTRACT TRUNCATED) twice. (ABSTRACT TRUNCATED)</AbstractText>"
    path = write(tmp_path / "a.xml", article(1, first), article(2, second))
    assert [record.text for record in passages(path)] == ["Cut here.", "Cut (ABSTRACT TRUNCATED) twice."]


@pytest.mark.parametrize(
    ("printed", "title"),
    [
        ("[On the liver].", "On the liver"),
        ("[On the liver.]", "On the liver."),
        ("[Ca2+] and [K+]", "[Ca2+] and [K+]"),
        ("[Not Available].", ""),
        ("Plain [sic].", "Plain [sic]."),
    ],
)
def test_brackets_around_a_translated_title_are_taken_off(tmp_path: Path, printed: str, title: str) -> None:
    (record,) = passages(write(tmp_path / "a.xml", article(1, title=printed)))
    assert record.title == title


def test_an_article_without_english_is_dropped_and_one_with_it_kept(tmp_path: Path) -> None:
    german = article(1, "<AbstractText>a</AbstractText>", article_extra="<Language>ger</Language>")
    both = article(
        2, "<AbstractText>b</AbstractText>", article_extra="<Language>ger</Language><Language>eng</Language>"
    )
    none = article(3, "<AbstractText>c</AbstractText>", article_extra="")
    path = write(tmp_path / "a.xml", german, both, none)
    assert [record.group for record in passages(path)] == ["2", "3"]
    assert tally(path).dropped == {"not_english": 1}


def test_retracted_articles_and_notices_are_dropped_and_counted(tmp_path: Path) -> None:
    def kind(code: str) -> str:
        return f'<PublicationTypeList><PublicationType UI="{code}">?</PublicationType></PublicationTypeList>'

    def link(name: str) -> str:
        return f'<CommentsCorrectionsList><CommentsCorrections RefType="{name}"/></CommentsCorrectionsList>'

    texts = [f"<AbstractText>{number}</AbstractText>" for number in range(6)]
    path = write(
        tmp_path / "a.xml",
        article(1, texts[1], article_extra=kind("D016441")),
        article(2, texts[2], citation_extra=link("RetractionIn")),
        article(3, texts[3], citation_extra=link("RetractionOf")),
        article(4, texts[4], citation_extra=link("ErratumIn"), article_extra=kind("D016428")),
        article(5, texts[5], article_extra=kind("D016440")),
    )
    assert tally(path) == Tally(5, 1, {"retracted": 2, "retraction_notice": 2})
    assert tally(path, keep_retracted=True) == Tally(5, 3, {"retraction_notice": 2})


def test_the_highest_version_is_kept_and_at_equal_version_the_later_file(tmp_path: Path) -> None:
    def text(name: str) -> str:
        return f"<AbstractText>{name}</AbstractText>"

    first = write(
        tmp_path / "a.xml", article(1, text("1v3"), version=3), article(2, text("2 old")), article(3, text("3v1"))
    )
    second = write(
        tmp_path / "b.xml",
        article(1, text("1v2"), version=2),
        article(2, text("2 new")),
        article(3, text("3v2"), version=2),
    )
    assert sorted(record.text for record in passages(first, second)) == ["1v3", "2 new", "3v2"]
    assert tally(first, second) == Tally(6, 3, {"superseded": 3})
    assert passages(first, second, streaming=True) == passages(first, second)
    assert sorted(record.text for record in passages(second, first)) == ["1v3", "2 old", "3v2"]


def test_a_deletion_removes_and_a_later_file_restores(tmp_path: Path) -> None:
    a = write(tmp_path / "pubmed25n0001.xml", article(1), article(2, "<AbstractText>two</AbstractText>"))
    b = write(tmp_path / "pubmed25n0002.xml", deletion(1, 2, 77))
    c = write(tmp_path / "pubmed25n0003.xml", article(2, "<AbstractText>again</AbstractText>"))
    with pytest.raises(DataError):
        from lora_med.config.data_settings import DataSettings
        from lora_med.data.corpus import open_corpus

        open_corpus(DataSettings(paths=[str(a), str(b)]))  # nothing is left
    assert tally(a, b) == Tally(2, 0, {"deleted": 2})
    assert [record.text for record in passages(c, a, b)] == ["again"]  # by their numbers, not as given
    assert tally(a, b, c) == Tally(3, 1, {"deleted": 1, "superseded": 1})


def test_files_go_by_year_and_number_in_whatever_order_they_are_given() -> None:
    names = ["pubmed25n0001.xml.gz", "pubmed24n1220.xml.gz", "pubmed24n1219.xml", "medline16n0902.xml.gz"]
    ordered = [path.name for path in in_order([Path(name) for name in names])]
    assert ordered == ["medline16n0902.xml.gz", "pubmed24n1219.xml", "pubmed24n1220.xml.gz", "pubmed25n0001.xml.gz"]
    assert in_order([Path("b.xml"), Path("a.xml")]) == [Path("b.xml"), Path("a.xml")]


def test_older_sets_and_books_are_read(tmp_path: Path) -> None:
    citation = (
        "<MedlineCitation><PMID>5</PMID><Article><ArticleTitle>T</ArticleTitle>"
        "<Abstract><AbstractText>old</AbstractText></Abstract></Article></MedlineCitation>"
    )
    old = write(tmp_path / "old.xml", citation, root="MedlineCitationSet")
    assert [(record.group, record.text) for record in passages(old)] == [("5", "old")]
    book = (
        '<PubmedBookArticle><BookDocument><PMID Version="1">6</PMID><Book><BookTitle>Genes</BookTitle></Book>'
        "<Language>eng</Language><Abstract><AbstractText>A chapter.</AbstractText></Abstract></BookDocument>"
        "<PubmedBookData/></PubmedBookArticle>"
    )
    mixed = write(tmp_path / "mixed.xml", article(4), book)
    assert [(record.group, record.title) for record in passages(mixed)] == [("4", "A title."), ("6", "Genes")]


def test_gz_is_known_by_its_first_bytes_not_its_name(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.xml", article(1))
    packed = tmp_path / "packed.xml"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    named = tmp_path / "named.xml.gz"
    named.write_bytes(plain.read_bytes())
    assert passages(packed) == passages(plain) == passages(named)


def test_no_entity_is_expanded_and_none_is_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("SECRET")
    for declared in (f'<!ENTITY e SYSTEM "{secret.as_uri()}">', '<!ENTITY e "SECRET">'):
        head = f"<!DOCTYPE PubmedArticleSet [{declared}]>\n"
        path = write(tmp_path / "a.xml", article(1, "<AbstractText>Before &e; after</AbstractText>"), head=head)
        with pytest.raises(DataError) as caught:
            passages(path)
        assert "PMID 1" in str(caught.value)
        assert not {"SECRET", "Before", "after"} & set(str(caught.value).split())
        assert tally(path, skip_bad=True) == Tally(1, 0, {"bad": 1})


def test_bad_input_names_file_and_line_and_never_the_text(tmp_path: Path) -> None:
    good = article(1, "<AbstractText>private words</AbstractText>")
    whole = HEAD + f"<PubmedArticleSet>{good}{article(2)}</PubmedArticleSet>"
    cases = {
        "ends early": whole[: whole.index('<PMID Version="1">2')],
        "not well-formed": whole.replace("</Abstract>", "", 1),
        "outermost": "<other>private words</other>",
        "empty": "",
        "PMID of digits": whole.replace('<PMID Version="1">1<', '<PMID Version="1">private words<'),
    }
    for expected, text in cases.items():
        path = tmp_path / f"{len(expected)}.xml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError) as caught:
            list(reading(path))
        assert expected in str(caught.value)
        assert str(path) in str(caught.value)
        assert "private" not in str(caught.value)
        assert caught.value.exit_code == 65


def test_a_torn_file_keeps_what_came_before_when_bad_input_is_skipped(tmp_path: Path) -> None:
    noise = random.Random(0)  # what does not compress, so that much of it comes before the tear
    texts = [article(number, f"<AbstractText>{noise.randbytes(2000).hex()}</AbstractText>") for number in range(1, 501)]
    whole = write(tmp_path / "a.xml", *texts).read_bytes()
    torn = tmp_path / "torn.xml.gz"
    torn.write_bytes(gzip.compress(whole, 1)[:-2000])
    with pytest.raises(DataError):
        list(reading(torn))
    found = tally(torn, skip_bad=True)
    assert found.dropped == {"bad": 1}
    assert 0 < found.kept < 500


def test_memory_stays_that_of_one_article(tmp_path: Path) -> None:
    packed = tmp_path / "many.xml.gz"
    filler = "word " * 400
    with gzip.open(packed, "wt", compresslevel=1) as stream:
        stream.write(HEAD + "<PubmedArticleSet>\n")
        for pmid in range(1, 5001):
            stream.write(article(pmid, f"<AbstractText>{pmid} {filler}</AbstractText>"))
        stream.write("</PubmedArticleSet>")
    before = psutil.Process().memory_info().rss
    assert sum(1 for _ in reading(packed, streaming=True)) == 5000
    assert psutil.Process().memory_info().rss - before < 8e6  # the tree alone would be over 20 MB


@needs_real
def test_the_real_baseline_file_has_756_records_of_754_articles() -> None:
    found = reading(REAL / "pubmed_xml" / "pubmed20n1015.xml.gz")
    records = {record.group: record for record in found}
    assert found.tally == Tally(756, 655, {"no_abstract": 59, "not_english": 40, "superseded": 2})
    assert found.tally.read - found.tally.dropped["superseded"] == 754
    assert "31828225" in records  # versions 2, 3 and 4


@needs_real
def test_every_real_file_is_read(tmp_path: Path) -> None:
    files = [path for path in sorted((REAL / "pubmed_xml").rglob("*.xml*")) if path.is_file()]
    assert len(files) >= 15
    for path in files:
        found = tally(path)
        assert found.kept > 0
        assert "bad" not in found.dropped


@needs_real
def test_an_article_of_the_internals_file_is_never_a_pubmed_set() -> None:
    nxml = sorted((REAL / "pubmed_xml" / "pmc_nxml").glob("*.nxml"))[0]
    with pytest.raises(DataError):
        list(reading(nxml))

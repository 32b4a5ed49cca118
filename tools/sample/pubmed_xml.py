"""PubMed's XML, written: the elements that a reader of abstracts meets, in their real shape and order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

HEADER = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2024//EN" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_240101.dtd">\n'
)
TAGS = ("i", "sup", "sub")  # allowed inside text


@dataclass(frozen=True, slots=True)
class Article:
    """One article before it becomes XML; `parts` are (label, category, text), one without label if unstructured."""

    pmid: int
    title: str
    parts: tuple[tuple[str, str, str], ...]
    year: int
    journal: str
    mesh: str
    types: tuple[tuple[str, str], ...]
    version: int = 1
    language: str = "eng"
    other_abstract: str = ""
    retracted_in: str = ""


def _marked(text: str) -> str:
    """Escaped for XML, but for the tags that may stand inside text."""
    text = escape(text)
    for tag in TAGS:
        text = text.replace(f"&lt;{tag}&gt;", f"<{tag}>").replace(f"&lt;/{tag}&gt;", f"</{tag}>")
    return text


def _abstract(article: Article) -> str:
    lines = []
    for label, category, text in article.parts:
        heading = f' Label="{escape(label)}" NlmCategory="{category}"' if label else ""
        lines.append(f"          <AbstractText{heading}>{_marked(text)}</AbstractText>")
    return "\n".join(lines)


def _types(article: Article) -> str:
    return "\n".join(f'          <PublicationType UI="{ui}">{name}</PublicationType>' for ui, name in article.types)


def _extras(article: Article) -> str:
    """What follows the article proper: corrections, headings, and an abstract in another language."""
    lines = []
    if article.retracted_in:
        lines.append(
            '      <CommentsCorrectionsList><CommentsCorrections RefType="RetractionIn">'
            f"<RefSource>{article.retracted_in}</RefSource></CommentsCorrections></CommentsCorrectionsList>"
        )
    lines.append(
        f'      <MeshHeadingList><MeshHeading><DescriptorName MajorTopicYN="Y">{escape(article.mesh)}</DescriptorName>'
        '</MeshHeading><MeshHeading><DescriptorName MajorTopicYN="N">Humans</DescriptorName></MeshHeading>'
        "</MeshHeadingList>"
    )
    if article.other_abstract:
        lines.append(
            '      <OtherAbstract Type="Publisher" Language="fre"><AbstractText>'
            f"{escape(article.other_abstract)}</AbstractText></OtherAbstract>"
        )
    return "\n".join(lines)


def article_xml(article: Article) -> str:
    """One `PubmedArticle` element."""
    return f"""  <PubmedArticle>
    <MedlineCitation Status="MEDLINE" Owner="NLM">
      <PMID Version="{article.version}">{article.pmid}</PMID>
      <Article PubModel="Print">
        <Journal>
          <JournalIssue CitedMedium="Internet"><PubDate><Year>{article.year}</Year></PubDate></JournalIssue>
          <Title>{article.journal}</Title>
        </Journal>
        <ArticleTitle>{_marked(article.title)}</ArticleTitle>
        <Abstract>
{_abstract(article)}
        </Abstract>
        <Language>{article.language}</Language>
        <PublicationTypeList>
{_types(article)}
        </PublicationTypeList>
      </Article>
{_extras(article)}
    </MedlineCitation>
    <PubmedData>
      <PublicationStatus>ppublish</PublicationStatus>
      <ArticleIdList><ArticleId IdType="pubmed">{article.pmid}</ArticleId></ArticleIdList>
    </PubmedData>
  </PubmedArticle>
"""


def article_set_xml(articles: Iterable[Article], deleted: Sequence[int]) -> str:
    """A complete file: the articles, then the identifiers withdrawn."""
    gone = "".join(f'    <PMID Version="1">{pmid}</PMID>\n' for pmid in deleted)
    body = "".join(map(article_xml, articles))
    return f"{HEADER}<PubmedArticleSet>\n{body}  <DeleteCitation>\n{gone}  </DeleteCitation>\n</PubmedArticleSet>\n"

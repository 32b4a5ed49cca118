"""The sample's PubMed XML: structured abstracts of invented studies, and a few of each thing that trips a reader."""

from __future__ import annotations

import gzip
import random
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lora_med.data.synthetic.studies import Study, draw_study
from lora_med.data.synthetic.words import load, say, say_all

FIRST_PMID = 90_000_001  # far above any number PubMed has given out
DESIGN_SHARES = {
    "trial_event": 26,
    "trial_measure": 26,
    "cohort": 15,
    "case_control": 8,
    "cross_sectional": 9,
    "meta_analysis": 8,
    "diagnostic": 8,
}
# Headings of the four sections as journals print them; the category is PubMed's own.
HEADINGS = (
    ("BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"),
    ("BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"),
    ("OBJECTIVE", "METHODS", "RESULTS", "CONCLUSION"),
    ("INTRODUCTION", "PATIENTS AND METHODS", "RESULTS", "CONCLUSION"),
    ("BACKGROUND AND AIMS", "METHODS", "RESULTS", "CONCLUSIONS"),
    ("Background", "Methods", "Findings", "Interpretation"),
    ("AIM", "MATERIALS AND METHODS", "RESULTS", "CONCLUSIONS"),
)
CATEGORIES = ("BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS")
JOURNALS = (
    "Annals of Invented Medicine",
    "Journal of Sample Trials",
    "Specimen Clinical Research",
    "Archives of Imagined Therapeutics",
)
MARKUP = {"&lt;sup&gt;": "<sup>", "&lt;/sup&gt;": "</sup>", "&lt;i&gt;": "<i>", "&lt;/i&gt;": "</i>"}
HEADER = (
    '<?xml version="1.0" encoding="utf-8"?>\n'
    '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2024//EN" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_240101.dtd">\n'
)


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


def write_abstract(rng: random.Random, study: Study) -> tuple[str, tuple[str, str, str, str]]:
    """Title and the texts of background, methods, results and conclusions."""
    phrases, shared = load("abstracts")[study.design], load("abstracts")["shared"]
    facts = study.facts
    if study.design in ("cohort", "case_control", "cross_sectional"):
        gap = shared["risk_gap"] if "event" in facts else [""]
    else:
        gap = phrases.get("gap", shared["trials_gap"])
    baseline = shared["infants_baseline"] if study.of_infants else shared["adults_baseline"]
    trial = study.design.startswith("trial")
    methods = [*phrases["methods"], shared["registration"]] if trial else phrases["methods"]
    results = [*phrases["results"][study.verdict], phrases["secondary"][study.verdict]]
    if trial:
        results = [baseline, *results, phrases["harms"]]
    texts = (
        say_all(rng, [["{fact}"], gap, phrases["aim"]], facts),
        say_all(rng, methods, facts),
        say_all(rng, results, facts),
        say_all(rng, [phrases["conclusions"][study.verdict], shared["funding"]], facts),
    )
    return say(rng, rng.choice(phrases["title"]), facts), texts


def write_article(rng: random.Random, pmid: int) -> Article:
    """One invented article with a structured abstract."""
    designs, weights = zip(*DESIGN_SHARES.items(), strict=True)
    study = draw_study(rng, rng.choices(designs, weights)[0])
    title, texts = write_abstract(rng, study)
    return Article(
        pmid,
        title,
        tuple(zip(rng.choice(HEADINGS), CATEGORIES, texts, strict=True)),
        int(study.facts["year1"]) + rng.randrange(1, 4),
        rng.choice(JOURNALS),
        study.mesh,
        (("D016428", "Journal Article"), tuple(load("abstracts")[study.design]["type"])),
    )


def _marked(text: str) -> str:
    """Escaped for XML, but for the few tags that PubMed allows inside text."""
    text = escape(text)
    for written, tag in MARKUP.items():
        text = text.replace(written, tag)
    return text


def _abstract(article: Article) -> list[str]:
    lines = ["        <Abstract>"]
    for label, category, text in article.parts:
        heading = f' Label="{escape(label)}" NlmCategory="{category}"' if label else ""
        lines.append(f"          <AbstractText{heading}>{_marked(text)}</AbstractText>")
    return [*lines, "        </Abstract>"]


def to_xml(article: Article) -> str:
    """One `PubmedArticle` element."""
    other = ""
    if article.other_abstract:
        other = (
            '\n      <OtherAbstract Type="Publisher" Language="fre">'
            f"<AbstractText>{article.other_abstract}</AbstractText></OtherAbstract>"
        )
    types = "\n".join(f'          <PublicationType UI="{ui}">{name}</PublicationType>' for ui, name in article.types)
    return f"""  <PubmedArticle>
    <MedlineCitation Status="MEDLINE" Owner="NLM">
      <PMID Version="{article.version}">{article.pmid}</PMID>
      <Article PubModel="Print">
        <Journal>
          <JournalIssue CitedMedium="Internet"><PubDate><Year>{article.year}</Year></PubDate></JournalIssue>
          <Title>{article.journal}</Title>
        </Journal>
        <ArticleTitle>{_marked(article.title)}</ArticleTitle>
{chr(10).join(_abstract(article))}
        <Language>{article.language}</Language>
        <PublicationTypeList>
{types}
        </PublicationTypeList>
      </Article>
      <MeshHeadingList>
        <MeshHeading><DescriptorName MajorTopicYN="Y">{escape(article.mesh)}</DescriptorName></MeshHeading>
        <MeshHeading><DescriptorName MajorTopicYN="N">Humans</DescriptorName></MeshHeading>
      </MeshHeadingList>{other}
    </MedlineCitation>
    <PubmedData>
      <PublicationStatus>ppublish</PublicationStatus>
      <ArticleIdList><ArticleId IdType="pubmed">{article.pmid}</ArticleId></ArticleIdList>
    </PubmedData>
  </PubmedArticle>
"""


def write_pubmed(rng: random.Random, articles: int) -> bytes:
    """The gzip file of about `articles` articles."""
    body = "".join(to_xml(write_article(rng, FIRST_PMID + number)) for number in range(articles))
    deleted = f'  <DeleteCitation>\n    <PMID Version="1">{FIRST_PMID + articles}</PMID>\n  </DeleteCitation>\n'
    text = f"{HEADER}<PubmedArticleSet>\n{body}{deleted}</PubmedArticleSet>\n"
    return gzip.compress(text.encode(), 9, mtime=0)

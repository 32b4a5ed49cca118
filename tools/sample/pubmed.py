"""The sample's PubMed XML: structured abstracts of invented studies, and a few of each thing that trips a reader."""

from __future__ import annotations

import gzip
import random
import re
from dataclasses import replace

from tools.sample.pubmed_xml import Article, article_set_xml
from tools.sample.studies import Study, draw_study
from tools.sample.words import load, say, say_all

FIRST_PMID = 90_000_001  # far above any number PubMed has given out
ODDITIES = 13
RETRACTED = ("D016441", "Retracted Publication")
ABSTRACT_WORDS = (120, 220)
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


def write_abstract(rng: random.Random, study: Study) -> tuple[str, tuple[str, str, str, str]]:
    """Title and the texts of background, methods, results and conclusions."""
    phrases, shared = load("abstracts")[study.design], load("abstracts")["shared"]
    facts = study.facts
    if study.design in ("cohort", "case_control", "cross_sectional"):
        gap = shared["risk_gap"] if "event" in facts else [""]
    else:
        gap = phrases.get("gap", shared["trials_gap"])
    age = "infants" if study.of_infants else "adults"
    findings = [*phrases["results"][study.verdict], phrases["secondary"][study.verdict]]
    if study.design.startswith("trial"):
        methods = [*phrases["methods"], shared["registration"]]
        results = [shared[f"{age}_baseline"], *findings, phrases["harms"]]
    elif study.design == "meta_analysis":
        methods, results = [*phrases["methods"], shared["conduct"]], findings
    else:
        methods, results = [*phrases["methods"], shared["conduct"]], [shared[f"{age}_met"], *findings]
    texts = (
        say_all(rng, [["{fact}"], gap, phrases["aim"]], facts),
        say_all(rng, methods, facts),
        say_all(rng, results, facts),
        say_all(rng, [phrases["conclusions"][study.verdict], shared["funding"]], facts),
    )
    return say(rng, rng.choice(phrases["title"]), facts), texts


def write_article(rng: random.Random, pmid: int) -> Article:
    """One invented article with a structured abstract of ABSTRACT_WORDS words."""
    designs, weights = zip(*DESIGN_SHARES.items(), strict=True)
    while True:
        study = draw_study(rng, rng.choices(designs, weights)[0])
        title, texts = write_abstract(rng, study)
        if ABSTRACT_WORDS[0] <= len(" ".join(texts).split()) <= ABSTRACT_WORDS[1]:
            break
    return Article(
        pmid,
        title,
        tuple(zip(rng.choice(HEADINGS), CATEGORIES, texts, strict=True)),
        int(study.facts["year1"]) + rng.randrange(1, 4),
        rng.choice(JOURNALS),
        study.mesh,
        (("D016428", "Journal Article"), tuple(load("abstracts")[study.design]["type"])),
    )


def _unstructured(article: Article, tail: str = "") -> Article:
    text = " ".join(part for _, _, part in article.parts)
    return replace(article, parts=(("", "", text + tail),))


def _in_italics(article: Article) -> Article:
    parts = tuple((*heading, re.sub(r"\b([Pp]) ?([=<])", r"<i>\1</i> \2", text)) for *heading, text in article.parts)
    return replace(article, parts=parts)


def _corrected(article: Article) -> Article:
    *rest, (label, category, text) = article.parts
    corrected = (label, category, f"{text} This version corrects the layout of a table.")
    return replace(article, parts=(*rest, corrected), version=article.version + 1)


def oddities(rng: random.Random, first: int, earlier: Article) -> list[Article]:
    """What trips readers: no sections, a cut tail, markup, a retraction, other languages, a second version.

    `first` is the first free PMID; `earlier` the article that gets the second version. The last is to be deleted.
    """
    fresh = [write_article(rng, first + number) for number in range(12)]
    french = "L'étude est inventée; ce résumé ne doit pas être lu comme l'original."
    return [
        *map(_unstructured, fresh[:4]),
        _unstructured(fresh[4], " (ABSTRACT TRUNCATED AT 250 WORDS)"),
        *map(_in_italics, fresh[5:8]),
        replace(fresh[8], types=(*fresh[8].types, RETRACTED), retracted_in=f"{fresh[8].journal}. {fresh[8].year + 2}"),
        replace(fresh[9], language="fre", title=f"[{fresh[9].title.rstrip('.')}]."),
        replace(fresh[10], other_abstract=french),
        _corrected(earlier),
        fresh[11],
    ]


def write_pubmed(rng: random.Random, articles: int) -> bytes:
    """The gzip file: `articles` elements, the oddities last, and one of them withdrawn again."""
    ordinary = [write_article(rng, FIRST_PMID + number) for number in range(articles - ODDITIES)]
    odd = oddities(rng, FIRST_PMID + len(ordinary), ordinary[2])
    text = article_set_xml([*ordinary, *odd], deleted=[odd[-1].pmid])
    return gzip.compress(text.encode(), 9, mtime=0)

"""The sample that ships is what its generator writes, in the real formats, consistent, and worth learning from."""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]
from tokenizers import Tokenizer

from tools.sample.corpus import make_sample, write_sample

ASSETS = Path(__file__).parents[2] / "lora_med" / "assets"
SAMPLE = ASSETS / "sample"
COUNT = re.compile(r"(\d+) of (\d+) \((\d+\.\d)%\)")
RATIO = re.compile(r"(?:relative risk|hazard ratio|odds ratio) (\S+?)[,;] 95%[^\d]+(\S+) to (\S+?)[,;)]")
P_VALUE = re.compile(r"[Pp] ?[=<] ?(\d\.\d+)")


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return make_sample()


@pytest.fixture(scope="module")
def articles() -> list[Any]:
    return etree.fromstring(gzip.decompress((SAMPLE / "pubmed_sample.xml.gz").read_bytes())).findall("PubmedArticle")


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return list(json.loads((SAMPLE / "qa_sample.json").read_text()).values())


def sections(article: Any) -> dict[str, str]:
    found = article.findall(".//Abstract/AbstractText")
    return {part.get("NlmCategory", ""): "".join(part.itertext()) for part in found}


def of_type(articles: list[Any], name: str) -> list[Any]:
    return [article for article in articles if name in article.xpath(".//PublicationType/text()")]


def unpacked(name: str, content: bytes) -> bytes:
    """Another zlib may pack otherwise; what matters is what is in it."""
    return gzip.decompress(content) if name.endswith(".gz") else content


def test_the_committed_files_are_what_the_generator_writes(made: dict[str, bytes]) -> None:
    for name, content in made.items():
        assert unpacked(name, (SAMPLE / name).read_bytes()) == unpacked(name, content), f"{name}: run `make sample`"


def test_the_generator_writes_the_same_bytes_twice(made: dict[str, bytes], tmp_path: Path) -> None:
    assert {path.name: path.read_bytes() for path in write_sample(tmp_path)} == made


def test_another_seed_gives_another_sample(made: dict[str, bytes]) -> None:
    assert all(content != made[name] for name, content in make_sample(seed=7).items())


def test_the_sample_is_under_a_megabyte() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 1_000_000


def test_abstracts_are_as_many_and_as_long_as_the_readme_says(articles: list[Any]) -> None:
    words = [len(" ".join(sections(article).values()).split()) for article in articles]
    assert len(articles) == 510
    assert min(words) >= 120 and max(words) <= 230  # a second version and a cut tail add a few words


def test_no_two_abstracts_read_alike(articles: list[Any]) -> None:
    openings = Counter(" ".join(sections(article).values())[:120] for article in articles if version(article) == "1")
    assert openings.most_common(1)[0][1] <= 5
    texts = [frozenset(" ".join(sections(article).values()).split()) for article in articles[:260]]
    closest = max(len(a & b) / len(a | b) for place, a in enumerate(texts) for b in texts[:place])
    assert closest < 0.75


def version(article: Any) -> str:
    return article.find("MedlineCitation/PMID").get("Version")


def test_each_oddity_is_there(articles: list[Any]) -> None:
    tree = articles[0].getroottree()
    assert len(of_type(articles, "Retracted Publication")) == 1
    assert len(tree.xpath("//CommentsCorrections[@RefType='RetractionIn']")) == 1
    assert [
        article.findtext(".//ArticleTitle")[0] for article in articles if article.findtext(".//Language") != "eng"
    ] == ["["]
    assert sorted(Counter(article.findtext(".//PMID") for article in articles).values())[-2:] == [1, 2]
    assert [version(article) for article in articles if version(article) != "1"] == ["2"]
    assert sum(list(sections(article)) == [""] for article in articles) == 5
    assert len(tree.xpath("//AbstractText[contains(., 'ABSTRACT TRUNCATED AT 250 WORDS')]")) == 1
    assert len(tree.xpath("//AbstractText[i]")) >= 3 and len(tree.xpath("//AbstractText[sup]")) >= 3
    assert len(tree.xpath("//OtherAbstract")) == 1
    (deleted,) = tree.xpath("//DeleteCitation/PMID/text()")
    assert deleted in {article.findtext(".//PMID") for article in articles}


def test_pmids_are_beyond_those_of_pubmed(articles: list[Any]) -> None:
    assert all(90_000_000 < int(article.findtext(".//PMID")) < 91_000_000 for article in articles)


def test_shares_follow_from_their_counts(articles: list[Any]) -> None:
    found = [match for article in articles for match in COUNT.findall(sections(article).get("RESULTS", ""))]
    assert len(found) > 800
    assert all(f"{100 * int(cases) / int(people):.1f}" == share for cases, people, share in found)


def test_a_trial_s_results_are_about_the_arms_of_its_methods(articles: list[Any]) -> None:
    checked = 0
    for article in of_type(articles, "Randomized Controlled Trial"):
        parts = sections(article)
        arms = re.findall(r"\(n = (\d+)\)", parts.get("METHODS", ""))
        arms = arms or re.findall(r"sites: (\d+) were assigned to .* and (\d+) to", parts.get("METHODS", ""))
        arms = [*arms[0]] if arms and isinstance(arms[0], tuple) else arms
        if not arms:
            continue
        assert len(arms) == 2
        people = str(sum(map(int, arms)))
        assert re.search(rf"\b{people}\b", parts["METHODS"]), f"{article.findtext('.//PMID')}: arms and total disagree"
        assert {people for _, people, _ in COUNT.findall(parts["RESULTS"])} <= set(arms)
        checked += 1
    assert checked > 200


def test_intervals_exclude_one_exactly_when_p_is_small(articles: list[Any]) -> None:
    checked = 0
    for article in articles:
        results = sections(article).get("RESULTS", "")
        found, p = RATIO.search(results), P_VALUE.search(results)
        if found and p:
            value, low, high = map(float, found.groups())
            assert low < value < high
            assert (low > 1 or high < 1) == (float(p.group(1)) < 0.05), article.findtext(".//PMID")
            checked += 1
    assert checked > 200


def test_the_relative_risk_of_a_trial_is_that_of_its_counts(articles: list[Any]) -> None:
    checked = 0
    for article in of_type(articles, "Randomized Controlled Trial"):
        results = sections(article).get("RESULTS", "")
        found = re.search(r"relative risk (\d+\.\d\d)", results)
        if not found:
            continue
        first, second = COUNT.findall(results)[:2]
        risks = [int(cases) / int(people) for cases, people, _ in (first, second)]
        assert f"{risks[0] / risks[1]:.2f}" == found.group(1)
        checked += 1
    assert checked > 80


def test_the_conclusion_follows_the_result(articles: list[Any]) -> None:
    """Where a risk fell and the interval says so, the conclusion is in favor; where it spans one, it is not."""
    against = re.compile(
        r"did not|failed to|no evidence|no support|cannot be recommended|is not supported|increased|"
        r"raised|more|no proven|no effect|does not show|not advised"
    )
    checked = 0
    for article in articles:
        parts = sections(article)
        found = re.search(r"relative risk (\S+?)[,;] 95%[^\d]+(\S+) to (\S+?)[,;)]", parts.get("RESULTS", ""))
        if found:
            favorable = float(found.group(3)) < 1
            disfavoured = against.search(parts["CONCLUSIONS"].replace("more effectively", ""))
            assert bool(disfavoured) != favorable, parts["CONCLUSIONS"]
            checked += 1
    assert checked > 100


def test_questions_have_pubmedqa_s_shape_and_shares(questions: list[dict[str, Any]]) -> None:
    assert Counter(item["final_decision"] for item in questions) == {"yes": 300, "no": 210, "maybe": 90}
    keys = {"QUESTION", "CONTEXTS", "LABELS", "MESHES", "YEAR", "reasoning_required_pred", "reasoning_free_pred"}
    for item in questions:
        assert set(item) == keys | {"final_decision", "LONG_ANSWER"}
        assert len(item["CONTEXTS"]) == len(item["LABELS"]) == 3
        assert 60 <= sum(len(context.split()) for context in item["CONTEXTS"]) <= 84
    assert len({item["QUESTION"] for item in questions}) == len(questions)


@pytest.mark.skipif(not (ASSETS / "micro" / "tokenizer.json").exists(), reason="the embedded base is not built yet")
def test_questions_are_short_in_tokens_of_the_embedded_base(questions: list[dict[str, Any]]) -> None:
    tokenizer = Tokenizer.from_file(str(ASSETS / "micro" / "tokenizer.json"))
    prompts = [f"Abstract: {chr(10).join(i['CONTEXTS'])}\nQuestion: {i['QUESTION']}\nAnswer: maybe" for i in questions]
    lengths = sorted(len(row.ids) for row in tokenizer.encode_batch(prompts))
    assert lengths[int(0.99 * len(lengths))] < 250 and lengths[-1] < 300


def share_right(items: list[dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> float:
    """Accuracy of naive Bayes on the words of `text(item)`, trained on four fifths, in five folds."""
    bags = [set(re.findall(r"[a-z]+", text(item).lower())) for item in items]
    labels = [item["final_decision"] for item in items]
    right = 0
    for fold in range(5):
        train = [place for place in range(len(items)) if place % 5 != fold]
        totals = Counter(labels[place] for place in train)
        seen = {
            label: Counter(word for place in train if labels[place] == label for word in bags[place])
            for label in totals
        }
        for place in range(fold, len(items), 5):
            scores = {
                label: math.log(count / len(train))
                + sum(math.log((seen[label][word] + 1) / (count + 2)) for word in bags[place])
                for label, count in totals.items()
            }
            right += max(scores, key=lambda label: scores[label]) == labels[place]
    return right / len(items)


def test_the_question_alone_does_not_tell_the_answer(questions: list[dict[str, Any]]) -> None:
    assert share_right(questions, lambda item: item["QUESTION"]) < 0.55  # always yes is 0.50


def test_what_comes_before_the_results_does_not_tell_the_answer(questions: list[dict[str, Any]]) -> None:
    assert share_right(questions, lambda item: " ".join(item["CONTEXTS"][:2])) < 0.55


def test_the_contexts_tell_the_answer_to_a_simple_learner(questions: list[dict[str, Any]]) -> None:
    assert share_right(questions, lambda item: item["CONTEXTS"][2]) > 0.8


def test_mentions_are_at_their_offsets() -> None:
    documents = (SAMPLE / "entities_sample.pubtator.txt").read_text().strip().split("\n\n")
    assert len(documents) == 124
    nested = composite = unknown = relations = 0
    for document in documents:
        title, abstract, *rows = document.split("\n")
        text = title.split("|t|")[1] + " " + abstract.split("|a|")[1]
        cells = [row.split("\t") for row in rows]
        mentions = [row for row in cells if row[1] != "CID"]
        relations += len(cells) - len(mentions)
        for row in mentions:
            assert row[0] == title.split("|")[0]
            assert text[int(row[1]) : int(row[2])] == row[3] == row[3].strip() != ""
            assert row[4] in ("Disease", "Chemical")
            unknown += row[5] == "-1"
            if len(row) == 7:
                composite += 1
                assert len(row[5].split("|")) == len(row[6].split("|")) == 2
        spans = [(int(row[1]), int(row[2])) for row in mentions]
        assert len(set(spans)) == len(spans)
        nested += sum(a != b and b[0] <= a[0] and a[1] <= b[1] for a in spans for b in spans)
        assert "<" not in text and ">" not in text and "|" not in text
    assert min(nested, composite, unknown, relations) >= 5


def test_visits_have_mts_dialog_s_shape_and_the_note_follows_from_them() -> None:
    raw = (SAMPLE / "dialogues_sample.csv").read_bytes()
    rows = list(csv.DictReader(raw.decode().splitlines(keepends=True)))
    assert list(rows[0]) == ["ID", "section_header", "section_text", "dialogue"]
    assert [row["ID"] for row in rows] == [str(number) for number in range(150)]
    common = {"the", "patient", "reports", "denies", "examination", "shows", "positive", "negative", "woman", "year"}
    for row in rows:
        turns = row["dialogue"].split("\r\n")
        assert all(turn.startswith(("Doctor: ", "Patient: ")) for turn in turns)
        said = set(re.findall(r"[a-z0-9]{4,}", row["dialogue"].lower()))
        noted = set(re.findall(r"[a-z0-9]{4,}", row["section_text"].lower())) - common
        assert noted & said, row["ID"]
    assert len({row["section_header"] for row in rows}) >= 10

"""Reports: what a reader sees, what a program reads, and that no text of an item is in either unless it is a sample."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lora_med.errors import InputMissingError
from lora_med.evaluation.measures import changes, text_measures, text_table, values
from lora_med.evaluation.report.charts import loss_curves, read_metrics
from lora_med.evaluation.report.write_report import write_report
from lora_med.evaluation.results import Answers, Baseline, Evaluation, Item, Recall, Sample, Subject
from lora_med.evaluation.scorers.choice_answers import ChoiceQuestions, Choices
from lora_med.evaluation.scorers.choice_measures import layout_of, option_measures, option_table
from lora_med.evaluation.scorers.items import ChoiceItem
from lora_med.evaluation.sentences import against_baselines, finding, number, signed
from lora_med.evaluation.statistics.multiple_comparisons import compare_all
from lora_med.evaluation.swap_check import Swap
from lora_med.metrics.classification import confusion
from lora_med.metrics.significance import mcnemar, wilson

LABELS = ("yes", "no", "maybe")


def text_evaluation(gain: float = 0.1, count: int = 60) -> Evaluation:
    """Items of 40 to 200 tokens; the adapter saves `gain` nats a token, give or take."""
    draw = random.Random(1)
    items = tuple(Item(f"u{n}", f"g{n}", tokens := draw.randint(40, 200), 4 * tokens) for n in range(count))
    before = [item.tokens * draw.gauss(3.0, 0.2) for item in items]
    after = [nll - item.tokens * draw.gauss(gain, 0.1) for nll, item in zip(before, items, strict=True)]
    sizes = [item.tokens for item in items], [item.size_bytes for item in items]
    tables = [text_table(nll, *sizes) for nll in (before, after)]
    facts = [tuple({"nll": one} for one in nll) for nll in (before, after)]
    groups = [item.group for item in items]
    measures = text_measures()
    scored = [values(measures, table, groups, samples=500, seed=1) for table in tables]
    changed = changes(measures, *tables, groups, samples=500, seed=1)
    return Evaluation(
        scoring="text",
        source="pubmed",
        split="test",
        template="text",
        access="open",
        base={"name": "micro", "revision": None, "weights": "ab", "quantization": "4bit", "dtype": "float32"},
        items=items,
        measures=measures,
        subjects=(
            Subject(None, scored[0], {}, tables[0], facts[0], 1.0),
            Subject("abstracts", scored[1], changed, tables[1], facts[1], 1.1),
        ),
        bootstrap_samples=500,
        seed=1,
        layout={"sections": []},
        samples=(Sample("u1", "Background: <b>Aspirin</b>", "was given.", {"base": "the the", "abstracts": "was"}),),
        created="2026-01-02T03:04:05Z",
    )


def questions(truth: Sequence[str]) -> ChoiceQuestions:
    items = tuple(
        ChoiceItem(f"q{n}", f"q{n}", (1,), ((2,), (3,), (4,)), LABELS, answer) for n, answer in enumerate(truth)
    )
    return ChoiceQuestions(items, tuple((item,) for item in items))


def choice_evaluation() -> Evaluation:
    truth = ["yes"] * 20 + ["no"] * 12 + ["maybe"] * 4
    guesses = {None: ["yes"] * 36, "qa": ["yes"] * 18 + ["no"] * 12 + ["yes"] * 6}
    items = tuple(Item(f"q{n}", f"q{n}", labels=LABELS, answer=answer) for n, answer in enumerate(truth))
    groups = [item.group for item in items]
    layout = layout_of(questions(truth), written=False)
    measures = option_measures(layout)
    tables = {name: option_table(questions(truth), Choices(tuple(guess), ())) for name, guess in guesses.items()}
    right = {name: [a == b for a, b in zip(truth, guess, strict=True)] for name, guess in guesses.items()}
    always = "Always answering “yes”"
    subjects = []
    for name, guess in guesses.items():
        counts = confusion(truth, guess, LABELS)
        over = changes(measures[:1], tables[None], tables[name], groups, samples=500, seed=1)["accuracy"]
        recall = {
            label: Recall(row[n], sum(row), wilson(row[n], sum(row)))
            for n, (label, row) in enumerate(zip(LABELS, counts, strict=True))
        }
        subjects.append(
            Subject(
                name,
                values(measures, tables[name], groups, samples=500, seed=1),
                {} if name is None else changes(measures, tables[None], tables[name], groups, samples=500, seed=1),
                tables[name],
                tuple({"predicted": one} for one in guess),
                0.5,
                Answers(tuple(guess), tuple((*row, 0) for row in counts), recall),
                None if name is None else mcnemar(right[None], right[name]),
                baseline_changes={always: over},
            )
        )
    return Evaluation(
        scoring="choice",
        source="pubmedqa",
        split="test",
        template="pubmedqa",
        access="open",
        base={"name": "micro", "revision": None, "weights": "ab", "quantization": "4bit", "dtype": "float32"},
        items=items,
        measures=measures,
        subjects=tuple(subjects),
        bootstrap_samples=500,
        seed=1,
        layout=asdict(layout),
        baselines=(Baseline(always, values(measures, tables[None], groups, samples=500, seed=1)),),
    )


CERTIFICATE = {
    "adapter": {"name": "abstracts"},
    "dtype": "bfloat16",
    "tolerance": {"mean_kl": 2e-3},
    "probe": {
        "largest_logit_difference": 0.02,
        "mean_kl": 4e-6,
        "adapter_effect_kl": 0.05,
        "same_first_choice": 0.995,
    },
}


def metrics_file(folder: Path, name: str) -> Path:
    rows = [{"step": step, "loss": 3.0 - step / 100} for step in range(10, 110, 10)]
    rows += [{"step": step, "eval_loss": 3.1 - step / 110} for step in (50, 100)]
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(
        [text_evaluation(), choice_evaluation()],
        out,
        title="Quickstart",
        curves={"abstracts": metrics_file(out, "a.jsonl"), "questions": metrics_file(out, "b.jsonl")},
        merges=[CERTIFICATE],
        swaps=[Swap("abstracts", 3.2, True, True), Swap("qa", 2.9, True, False)],
        facts={"adapter on disk": "1.3 MB"},
        next_steps=["lora-med adapters list"],
    )
    return out


def test_the_page_needs_no_other_file(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!#)', page), "nothing is fetched"
    assert "<script" not in page
    assert "@import" not in page
    assert page.count("<svg") == 4


def test_the_drawings_do_not_share_ids(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', page)) | set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(ids)


def test_text_of_samples_is_shown_and_cannot_be_markup(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "&lt;b&gt;Aspirin&lt;/b&gt;" in page
    assert "<b>Aspirin" not in page


def test_the_page_says_better_and_by_how_much(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "abstracts is better than its base on 60 held-out texts (pubmed, test split)" in page
    assert "Always answering “yes” would score 0.556. qa is better than this baseline" in page
    assert "10 questions gained, 2 lost" in page


def test_the_json_holds_what_its_document_says(folder: Path) -> None:
    content = json.loads((folder / "report.json").read_text())
    assert content["schema"] == "lora_med.report/1"
    text, choice = content["evaluations"]
    adapter = text["subjects"][1]
    change = adapter["changes"]["bits_per_byte"]
    assert change["low"] < change["difference"] < change["high"] < 0
    assert change["verdict"] == "better"
    assert adapter["values"]["perplexity"]["value"] == pytest.approx(
        2.718281828459045 ** adapter["values"]["nll_per_token"]["value"]
    )
    assert choice["subjects"][1]["mcnemar"]["only_adapter"] == 10
    assert choice["subjects"][1]["recall"]["maybe"]["found"] == 0
    (baseline,) = choice["baselines"]
    assert baseline["values"]["accuracy"]["value"] == 20 / 36
    assert choice["subjects"][1]["confusion"] == [[18, 2, 0, 0], [2, 10, 0, 0], [4, 0, 0, 0]]
    for entry in content["evaluations"]:
        lines = (folder / entry["items_file"]).read_text().splitlines()
        assert len(lines) == entry["items"]


def test_item_lines_hold_uids_and_numbers_and_add_up(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "items_1_text.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"uid", "group", "tokens", "bytes", "base", "adapters"}
    content = json.loads((folder / "report.json").read_text())
    total = sum(row["adapters"]["abstracts"]["nll"] for row in rows) / sum(row["tokens"] for row in rows)
    assert total == pytest.approx(content["evaluations"][0]["subjects"][1]["values"]["nll_per_token"]["value"])


def test_markdown_has_the_table(folder: Path) -> None:
    text = (folder / "report.md").read_text()
    assert "| adapter | measure | base | adapter | difference | 95% interval | verdict |" in text
    assert "| ---: |" in text


def test_the_terms_of_the_comparison_table_are_explained_under_it(folder: Path) -> None:
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    below = page[page.index(">findable</th>") : page.index("<h2>Text: pubmed")]
    assert "<dt>p, adjusted</dt> <dd>p made larger because this table holds several comparisons." in below
    assert "<dt>findable</dt> <dd>the smallest true difference that a test of this size finds" in below
    lines = text[text.index("| findable |") : text.index("## Text: pubmed")].splitlines()
    assert any(line.startswith("- **p, adjusted**: p made larger because") for line in lines)
    assert any(line.startswith("- **findable**: the smallest true difference") for line in lines)


def test_each_finding_begins_with_its_verdict(folder: Path) -> None:
    lead = (folder / "report.html").read_text().partition("<section>")[0]
    assert lead.count('<p><span class="chip better">better</span> abstracts is better') == 1
    assert '<p><span class="chip better">better</span> qa is better' in lead


def test_the_report_can_be_written_again(folder: Path) -> None:
    before = (folder / "report.md").read_text()
    write_report([text_evaluation()], folder, title="Again")
    assert (folder / "report.md").read_text() != before


def test_no_gain_is_said_to_be_none() -> None:
    evaluation = text_evaluation(gain=0.0)
    assert "cannot be distinguished from its base" in finding(evaluation, evaluation.subjects[1])


def test_a_loss_is_said_to_be_one() -> None:
    evaluation = text_evaluation(gain=-0.2)
    assert "is worse than its base" in finding(evaluation, evaluation.subjects[1])


def test_an_adapter_that_only_learned_the_commonest_answer_is_found_out() -> None:
    evaluation = choice_evaluation()
    base = evaluation.subjects[0]  # it says yes to everything
    assert base.baseline_changes["Always answering “yes”"].difference == 0
    assert "base cannot be distinguished from this baseline" in against_baselines(evaluation, base)


def test_numbers_are_short_and_signed() -> None:
    assert [number(value) for value in (0.12345, 45.678, 1234.5)] == ["0.123", "45.68", "1,234"]
    assert [signed(value) for value in (-0.5, 0.5, 0.0)] == ["−0.500", "+0.500", "±0.000"]


def test_a_curve_without_validation_is_drawn() -> None:
    svg = loss_curves({"run": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]})
    assert ElementTree.fromstring(svg).tag.endswith("svg")


def test_a_missing_metrics_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"metrics\.jsonl"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_several_comparisons_are_listed_with_adjusted_p_values(tmp_path: Path) -> None:
    whole = [text_evaluation(), choice_evaluation()]
    report = write_report(whole, tmp_path, title="both")
    first, second = report.content["comparisons"]
    assert (first["test"], second["test"]) == ("paired bootstrap", "McNemar")
    entry = report.content["evaluations"][1]["subjects"][1]
    assert second["p_value"] == entry["mcnemar"]["p_value"]
    smaller, larger = sorted((first, second), key=lambda one: one["p_value"])
    assert smaller["adjusted"] == min(1, 2 * smaller["p_value"])
    assert larger["adjusted"] == max(larger["p_value"], smaller["adjusted"])
    assert "All comparisons" in report.html.read_text()
    alone = write_report(whole[:1], tmp_path / "one", title="one")
    assert "All comparisons" not in alone.html.read_text()


def test_a_difference_that_chance_may_explain_among_many_gets_no_verdict() -> None:
    sure = text_evaluation()
    change = replace(sure.subjects[1].changes["bits_per_byte"], p_value=0.02)  # of an interval clear of zero
    subject = replace(sure.subjects[1], changes={**sure.subjects[1].changes, "bits_per_byte": change})
    marginal = replace(sure, subjects=(sure.subjects[0], subject))
    assert [one.verdict for one in compare_all([marginal])] == ["better"]
    many = compare_all([marginal] * 3)  # Holm: 3 times 0.02
    assert {one.verdict for one in many} == {"cannot tell"}
    said = "Among 3 comparisons this interval is not enough for a verdict (adjusted p = 0.06)."
    assert all(said in comparison.sentences for comparison in many)
    # The label and the first sentence agree.
    assert all("cannot be distinguished from its base" in comparison.sentences for comparison in many)
    assert not any("is better than its base" in comparison.sentences for comparison in many)
    assert [one.verdict for one in compare_all([marginal] * 2)] == ["better", "better"]  # 0.04


def test_cannot_tell_reports_the_difference_that_could_be_detected() -> None:
    evaluation = text_evaluation(gain=0.0, count=30)
    change = evaluation.subjects[1].changes["bits_per_byte"]
    assert change.verdict == "cannot tell" and change.detectable and change.items_needed
    said = finding(evaluation, evaluation.subjects[1])
    assert f"about {change.items_needed:,} items" in said and number(change.detectable) in said
    sure = text_evaluation()
    assert "items." not in finding(sure, sure.subjects[1])


def test_repeated_groups_leave_mcnemar_out_of_the_comparison() -> None:
    evaluation = choice_evaluation()
    paired = tuple(replace(item, group=f"g{n // 2}") for n, item in enumerate(evaluation.items))
    (compared,) = compare_all([replace(evaluation, items=paired)])
    assert compared.test == "paired bootstrap"
    assert compared.p_value == evaluation.subjects[1].changes["accuracy"].p_value

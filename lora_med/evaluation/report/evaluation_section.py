"""One evaluation on the page: what was compared, charts, tables of scores, answers and baselines, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lora_med.evaluation.measures import Change, Measure, Value
from lora_med.evaluation.report.calibration_section import confidence_figures, confidence_table
from lora_med.evaluation.report.charts import Bar, intervals, shares_improved
from lora_med.evaluation.report.page import Cell, Figure, SampleBox, Section, Table, text_row
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.sentences import number, signed, span
from lora_med.evaluation.statistics.over_seeds import over_seeds
from lora_med.evaluation.tasks import SCORINGS
from lora_med.metrics.significance import Verdict

KINDS: dict[Verdict, Any] = {"better": "better", "worse": "worse", "cannot tell": "unsure"}
MOST_CHARACTERS, MOST_PROMPT_CHARACTERS = 600, 300
MOST_CONFUSED = 12  # labels: a larger table is only in report.json


def score_table(evaluation: Evaluation) -> Table:
    """A row for each measure of each adapter: base, adapter, difference with interval, verdict."""
    columns = (
        Cell("adapter"),
        Cell("measure"),
        Cell("base", "number"),
        Cell("adapter", "number"),
        Cell("difference", "number"),
        Cell("95% interval", "number"),
        Cell("verdict", "verdict"),
    )
    base = evaluation.subjects[0]
    rows = [
        _score_row(subject.name if measure is evaluation.measures[0] else "", measure, base, subject)
        for subject in evaluation.subjects[1:]
        for measure in evaluation.measures
    ] or [
        text_row(
            "base",
            measure.label,
            Cell(number(base.values[measure.name].value), "number"),
            Cell("–", "number"),
            Cell("–", "number"),
            Cell(span(base.values[measure.name].interval), "number"),
            Cell("–"),
        )
        for measure in evaluation.measures
    ]
    return Table(columns, tuple(rows), _note(evaluation))


def _score_row(name: str, measure: Measure, base: Subject, subject: Subject) -> tuple[Cell, ...]:
    before: Value = base.values[measure.name]
    after: Value = subject.values[measure.name]
    change: Change = subject.changes[measure.name]
    direction = {True: " (lower is better)", False: " (higher is better)", None: ""}[measure.lower_is_better]
    unit = f"{measure.label}, {measure.unit}" if measure.unit else measure.label
    return text_row(
        name,
        f"{unit}{direction}",
        Cell(number(before.value), "number"),
        Cell(number(after.value), "number"),
        Cell(signed(change.difference), "number"),
        Cell(span(change.interval, sign=True), "number"),
        Cell(change.verdict, KINDS[change.verdict]) if direction else Cell("–"),
    )


def _note(evaluation: Evaluation) -> str:
    sentences = [
        f"{len(evaluation.items)} items in {evaluation.groups} groups.",
        *([evaluation.coverage] if evaluation.coverage else []),
        f"Intervals are from a paired bootstrap over groups ({evaluation.bootstrap_samples:,} resamples, seed "
        f"{evaluation.seed}); a share of independent items has Wilson's interval.",
    ]
    for subject in evaluation.subjects[1:]:
        if subject.mcnemar is not None:
            test = subject.mcnemar
            sentences.append(
                f"McNemar's test, {subject.name}: {test.only_second} questions gained, {test.only_first} lost, "
                f"exact p = {test.p_value:.2g}."
            )
    return " ".join([*sentences, *evaluation.notes])


def recall_table(evaluation: Evaluation) -> Table:
    """Recall of each label for the base and each adapter, with Wilson's interval."""
    names = [subject.name for subject in evaluation.subjects]
    columns = (Cell("true label"), Cell("items", "number"), *(Cell(name, "number") for name in names))
    rows = []
    for label in evaluation.labels:
        cells = []
        for subject in evaluation.subjects:
            recall = subject.answers.recall.get(label) if subject.answers is not None else None
            share = "–" if recall is None else f"{number(recall.hits / recall.total)} ({span(recall.interval)})"
            cells.append(Cell(share, "number"))
        count = sum(item.answer == label for item in evaluation.items)
        rows.append(text_row(label, Cell(str(count), "number"), *cells))
    return Table(columns, tuple(rows), "Recall: of the items with this true label, the share that got this answer.")


def confusion_tables(evaluation: Evaluation) -> list[Table]:
    """For base and adapters: how often each true label got each answer."""
    labels = evaluation.labels
    tables = []
    for subject in evaluation.subjects:
        if subject.answers is None or not 2 <= len(labels) <= MOST_CONFUSED:
            continue
        counts = subject.answers.confusion
        invalid = any(row[-1] for row in counts)
        columns = [Cell(f"{subject.name}: true label"), *(Cell(label, "number") for label in labels)]
        rows = [
            text_row(label, *(Cell(str(count), "number") for count in (row if invalid else row[:-1])))
            for label, row in zip(labels, counts, strict=True)
        ]
        tables.append(Table((*columns, *([Cell("no answer", "number")] * invalid)), tuple(rows)))
    return tables


def baseline_table(evaluation: Evaluation) -> Table:
    """The scores of baselines that need no model, and the differences of base and adapters from them."""
    measure = evaluation.verdict_by
    columns = (
        Cell("without a model"),
        Cell(measure.label, "number"),
        *(Cell(f"{subject.name}: difference", "number") for subject in evaluation.subjects),
    )
    rows = []
    for baseline in evaluation.baselines:
        value = baseline.values[measure.name]
        cells = [
            Cell(f"{signed(change.difference)} ({span(change.interval, sign=True)})", "number")
            for change in (subject.baseline_changes[baseline.name] for subject in evaluation.subjects)
        ]
        rows.append(text_row(baseline.name, Cell(f"{number(value.value)} ({span(value.interval)})", "number"), *cells))
    return Table(columns, tuple(rows), "In brackets: 95% intervals, items paired.")


def runs_table(evaluation: Evaluation) -> Table:
    """The gain of a recipe over the base, from runs that differ only in their seed."""
    columns = (
        Cell("runs"),
        Cell("measure"),
        Cell("mean difference", "number"),
        Cell("standard deviation", "number"),
        Cell("lowest to highest", "number"),
        Cell("95% interval", "number"),
        Cell("verdict", "verdict"),
    )
    rows = [
        text_row(
            ", ".join(runs.adapters),
            runs.measure.label,
            Cell(signed(runs.mean), "number"),
            Cell(number(runs.spread), "number"),
            Cell(f"{signed(runs.lowest)} to {signed(runs.highest)}", "number"),
            Cell(span(runs.interval, sign=True), "number"),
            Cell(runs.verdict, KINDS[runs.verdict]),
        )
        for runs in (over_seeds(evaluation, names) for names in evaluation.recipes)
    ]
    return Table(columns, tuple(rows), "The adapters differ only in their seed. The interval covers items and seeds.")


def custom_table(evaluation: Evaluation) -> Table:
    """The user's own metrics."""
    columns = (
        Cell("adapter"),
        Cell("metric"),
        Cell("value", "number"),
        Cell("difference", "number"),
        Cell("95% interval", "number"),
        Cell("verdict", "verdict"),
    )
    rows = []
    for subject in evaluation.subjects:
        for name, score in subject.custom.items():
            if score.difference is None or score.difference_interval is None or score.verdict is None:
                rest = (Cell("–", "number"), Cell(span(score.interval), "number"), Cell("–"))
            else:
                interval = Cell(span(score.difference_interval, sign=True), "number")
                rest = (Cell(signed(score.difference), "number"), interval, Cell(score.verdict, KINDS[score.verdict]))
            rows.append(text_row(subject.name, name, Cell(number(score.value), "number"), *rest))
    return Table(columns, tuple(rows), "Your own metrics. Intervals are from 1,000 resamples of groups.")


def evaluation_section(evaluation: Evaluation, index: int) -> Section:
    """All about one evaluation: what was compared, charts, tables, samples."""
    tables = [score_table(evaluation)]
    figures = _figures(evaluation, index)
    if evaluation.recipes:
        tables.append(runs_table(evaluation))
    if evaluation.baselines:
        tables.append(baseline_table(evaluation))
    if evaluation.labels:
        tables += [recall_table(evaluation), *confusion_tables(evaluation)]
    if any(subject.confidence is not None for subject in evaluation.subjects):
        tables.append(confidence_table(evaluation))
        figures += confidence_figures(evaluation, index)
    if any(subject.custom for subject in evaluation.subjects):
        tables.append(custom_table(evaluation))
    base = evaluation.base
    options = [
        f"{name} {value}" if value is not True else name for name, value in evaluation.prompt_options.items() if value
    ]
    paragraph = (
        f"The base is {base['name']} ({base['quantization']} weights, computed in {base['dtype']}). "
        f"The items are the {evaluation.split} split of {evaluation.source}, access class {evaluation.access}. "
        f"The template is {', '.join([evaluation.template, *options])}. "
        f"The score: {SCORINGS[evaluation.scoring].summary}."
    )
    return Section(
        f"{SCORINGS[evaluation.scoring].title}: {evaluation.source}",
        paragraphs=(paragraph,),
        figures=tuple(figures),
        tables=tuple(tables),
        samples=tuple(
            SampleBox(
                sample.uid,
                _end(sample.prompt),
                (("reference", _short(sample.reference)), *_outputs(sample.outputs)),
            )
            for sample in evaluation.samples
        ),
    )


def _figures(evaluation: Evaluation, index: int) -> list[Figure]:
    """The differences with their intervals, and for running text also the change of each item."""
    measure, adapters = evaluation.verdict_by, evaluation.subjects[1:]
    if not adapters:
        return []
    bars = []
    for subject in adapters:
        change = subject.changes[measure.name]
        bars.append(Bar(subject.name, change.difference, change.interval.low, change.interval.high, change.verdict))
    side = "left" if measure.lower_is_better else "right"
    chart = intervals(bars, axis=f"change in {measure.label}", better_side=side, name=f"intervals{index}")
    figures = [Figure(chart, f"Change in {measure.label} against the base, with 95% intervals.")]
    return figures + ([_items_figure(evaluation, index)] if evaluation.scoring == "text" else [])


def _outputs(outputs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _short(text) or "(nothing)") for name, text in outputs.items())


def _items_figure(evaluation: Evaluation, index: int) -> Figure:
    base = evaluation.subjects[0]
    sizes = [item.size_bytes * math.log(2) for item in evaluation.items]
    changes_of = {
        subject.name: [
            float(after - before) / size
            for after, before, size in zip(subject.table[:, 0], base.table[:, 0], sizes, strict=True)
        ]
        for subject in evaluation.subjects[1:]
    }
    gained = ", ".join(
        f"{100 * sum(change < 0 for change in changes) / len(changes):.0f}% of items with {name}"
        for name, changes in changes_of.items()
    )
    chart = shares_improved(changes_of, axis="change in bits per byte", name=f"items{index}")
    return Figure(chart, f"Change of each item, smallest first. Below zero is a gain: {gained}.")


def _short(text: str) -> str:
    clean = " ".join(text.split())
    return clean if len(clean) <= MOST_CHARACTERS else clean[:MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _end(text: str) -> str:
    """The end of a long prompt, where the question is."""
    clean = " ".join(text.split())
    return clean if len(clean) <= MOST_PROMPT_CHARACTERS else "… " + clean[-MOST_PROMPT_CHARACTERS:].split(" ", 1)[-1]

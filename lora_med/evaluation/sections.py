"""The report page from evaluations: the finding in sentences, tables with intervals and verdicts, drawings, samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.evaluation.comparisons import Comparison, compare_all
from lora_med.evaluation.confidence_page import confidence_figures, confidence_table
from lora_med.evaluation.figures import Bar, intervals, loss_curves, shares_improved
from lora_med.evaluation.measures import Change, Measure, Value
from lora_med.evaluation.page import Cell, Figure, Page, SampleBox, Section, Table, text_row
from lora_med.evaluation.results import Evaluation, Subject
from lora_med.evaluation.swaps import Swap
from lora_med.evaluation.wording import finding, number, primary, signed, span
from lora_med.metrics.significance import Verdict

KINDS: dict[Verdict, Any] = {"better": "better", "worse": "worse", "cannot tell": "unsure"}
MOST_CHARACTERS, MOST_PROMPT_CHARACTERS = 600, 300


def score_table(evaluation: Evaluation) -> Table:
    """A row for each measure of each adapter: base, adapter, difference with interval, verdict."""
    columns = (
        Cell("adapter"),
        Cell("measure"),
        Cell("base", "number"),
        Cell("adapter", "number"),
        Cell("difference", "number"),
        Cell("95% interval", "number"),
        Cell("verdict"),
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
    direction = "lower is better" if measure.lower_is_better else "higher is better"
    unit = f"{measure.label}, {measure.unit}" if measure.unit else measure.label
    return text_row(
        name,
        f"{unit} ({direction})",
        Cell(number(before.value), "number"),
        Cell(number(after.value), "number"),
        Cell(signed(change.difference), "number"),
        Cell(span(change.interval, sign=True), "number"),
        Cell(change.verdict, KINDS[change.verdict]),
    )


def _note(evaluation: Evaluation) -> str:
    parts = [
        f"{len(evaluation.items)} items in {evaluation.groups} groups; intervals by paired bootstrap over groups "
        f"({evaluation.bootstrap_samples:,} resamples, seed {evaluation.seed}).",
    ]
    for subject in evaluation.subjects[1:]:
        if subject.mcnemar is not None:
            test = subject.mcnemar
            parts.append(
                f"McNemar, {subject.name}: {test.only_second} questions gained, {test.only_first} lost, "
                f"exact p = {test.p_value:.2g}."
            )
    if evaluation.cut_prompts:
        parts.append(f"{evaluation.cut_prompts} prompts were longer than the context and lost their beginning.")
    return " ".join(parts)


def recall_table(evaluation: Evaluation) -> Table:
    """Recall of each label for the base and each adapter, with Wilson's interval."""
    columns = (Cell("true label"), Cell("items", "number"), *(Cell(one.name, "number") for one in evaluation.subjects))
    rows = []
    for label in evaluation.labels:
        cells = []
        for subject in evaluation.subjects:
            recall = subject.answers.recall.get(label) if subject.answers is not None else None
            share = "–" if recall is None else f"{number(recall.found / recall.of)} ({span(recall.interval)})"
            cells.append(Cell(share, "number"))
        count = sum(item.answer == label for item in evaluation.items)
        rows.append(text_row(label, Cell(str(count), "number"), *cells))
    return Table(columns, tuple(rows), "Recall: the share of the items with a label that were answered so.")


def evaluation_section(evaluation: Evaluation, place: int) -> Section:
    """Everything about one evaluation: what was compared, drawing, table, recall, samples."""
    measure = primary(evaluation)
    figures = []
    adapters = evaluation.subjects[1:]
    if adapters:
        bars = []
        for subject in adapters:
            change = subject.changes[measure.name]
            bars.append(Bar(subject.name, change.difference, change.interval.low, change.interval.high, change.verdict))
        side = "left" if measure.lower_is_better else "right"
        drawn = intervals(bars, axis=f"change in {measure.label}", better_side=side, name=f"intervals{place}")
        figures.append(Figure(drawn, f"Change in {measure.label} against the base, with 95% intervals."))
    if adapters and evaluation.task == "text":
        figures.append(_items_figure(evaluation, place))
    tables = (score_table(evaluation),)
    if evaluation.task == "choice":
        tables += (recall_table(evaluation), confidence_table(evaluation))
        figures += confidence_figures(evaluation, place)
    base = evaluation.base
    paragraph = (
        f"Base {base['name']} ({base['quantisation']} weights, computed in {base['dtype']}), "
        f"template {evaluation.template}, source {evaluation.source}, {evaluation.split} split, "
        f"access class {evaluation.access}."
    )
    return Section(
        f"{'Text' if evaluation.task == 'text' else 'Questions'}: {evaluation.source}",
        paragraphs=(paragraph,),
        figures=tuple(figures),
        tables=tables,
        samples=tuple(
            SampleBox(
                sample.uid,
                _end(sample.prompt),
                (("what really follows", _short(sample.reference)), *_outputs(sample.outputs)),
            )
            for sample in evaluation.samples
        ),
    )


def _outputs(outputs: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _short(text) or "(nothing)") for name, text in outputs.items())


def _items_figure(evaluation: Evaluation, place: int) -> Figure:
    base = evaluation.subjects[0]
    sizes = [item.size_bytes * math.log(2) for item in evaluation.items]
    found = {
        subject.name: [
            (after[0] - before[0]) / size
            for after, before, size in zip(subject.scores, base.scores, sizes, strict=True)
        ]
        for subject in evaluation.subjects[1:]
    }
    gained = ", ".join(
        f"{100 * sum(one < 0 for one in changes) / len(changes):.0f}% of items with {name}"
        for name, changes in found.items()
    )
    drawn = shares_improved(found, axis="change in bits per byte", name=f"items{place}")
    return Figure(drawn, f"Change of each item, smallest first; below zero is a gain: {gained}.")


def _short(text: str) -> str:
    clean = " ".join(text.split())
    return clean if len(clean) <= MOST_CHARACTERS else clean[:MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _end(text: str) -> str:
    """The end of a long prompt, where the question stands."""
    clean = " ".join(text.split())
    return clean if len(clean) <= MOST_PROMPT_CHARACTERS else "… " + clean[-MOST_PROMPT_CHARACTERS:].split(" ", 1)[-1]


def comparison_section(comparisons: Sequence[Comparison]) -> Section:
    """Every adapter in every task against its base, with p-values adjusted for how many there are."""
    columns = (
        Cell("task"),
        Cell("adapter"),
        Cell("measure"),
        Cell("difference", "number"),
        Cell("95% interval", "number"),
        Cell("p", "number"),
        Cell("p, adjusted", "number"),
        Cell("findable", "number"),
        Cell("verdict"),
    )
    rows = [
        text_row(
            f"{one.evaluation.source}, {one.evaluation.template}",
            one.subject.name,
            one.measure.label,
            Cell(signed(one.change.difference), "number"),
            Cell(span(one.change.interval, sign=True), "number"),
            Cell("–" if one.p_value is None else f"{one.p_value:.2g}", "number"),
            Cell("–" if one.adjusted is None else f"{one.adjusted:.2g}", "number"),
            Cell("–" if one.change.detectable is None else number(one.change.detectable), "number"),
            Cell(one.change.verdict, KINDS[one.change.verdict]),
        )
        for one in comparisons
    ]
    note = (
        "p of no difference: McNemar's exact test for accuracies of independent items, else that of the paired "
        "bootstrap; adjusted by Holm's method over this table. Findable: the true difference that four of five tests "
        "of this size find. Verdicts rest on each interval alone."
    )
    return Section("All comparisons", tables=(Table(columns, tuple(rows), note),))


def merge_section(merges: Sequence[Mapping[str, Any]]) -> Section:
    """The figures of each merge's verification."""
    columns = (
        Cell("adapter"),
        Cell("dtype"),
        Cell("largest logit difference", "number"),
        Cell("mean KL, nats", "number"),
        Cell("allowed", "number"),
        Cell("adapter's own effect", "number"),
        Cell("same first choice", "number"),
    )
    rows = [
        text_row(
            str(merge["adapter"]["name"]),
            str(merge["dtype"]),
            Cell(f"{merge['probe']['largest_logit_difference']:.2g}", "number"),
            Cell(f"{merge['probe']['mean_kl']:.2g}", "number"),
            Cell(f"{merge['tolerance']['mean_kl']:.2g}", "number"),
            Cell(f"{merge['probe']['adapter_effect_kl']:.2g}", "number"),
            Cell(f"{100 * merge['probe']['same_first_choice']:.1f}%", "number"),
        )
        for merge in merges
        if merge["probe"] is not None
    ]
    note = "KL from base + adapter to the merged model over the probe texts; the effect is that from adapter to base."
    return Section("Merge, verified", tables=(Table(columns, tuple(rows), note),))


def swap_section(swaps: Sequence[Swap]) -> Section:
    """Times of swapping on one loaded base, and whether leaving restored the base."""
    columns = (Cell("adapter"), Cell("swap, ms", "number"), Cell("changes the logits"), Cell("base restored exactly"))
    rows = [
        text_row(
            swap.adapter,
            Cell(f"{swap.milliseconds:.3f}", "number"),
            "yes" if swap.changed else "no",
            Cell("yes", "better") if swap.restored else Cell("no", "worse"),
        )
        for swap in swaps
    ]
    return Section("Swapping between tasks on one loaded base", tables=(Table(columns, tuple(rows)),))


def build_page(
    evaluations: Sequence[Evaluation],
    *,
    title: str,
    created: str,
    runs: Mapping[str, Sequence[Mapping[str, float]]],
    merges: Sequence[Mapping[str, Any]],
    swaps: Sequence[Swap],
    facts: Mapping[str, str],
    next_steps: Sequence[str],
) -> Page:
    """The page; a part without content is left out."""
    lead = [finding(one, subject) for one in evaluations for subject in one.subjects[1:]]
    sections: list[Section] = []
    if runs:
        drawn = Figure(loss_curves(runs), "Loss on the training rows and on the validation split.")
        sections.append(Section("Training", figures=(drawn,)))
    compared = compare_all(evaluations)
    if len(compared) > 1:
        sections.append(comparison_section(compared))
    sections += [evaluation_section(one, place) for place, one in enumerate(evaluations)]
    if swaps:
        sections.append(swap_section(swaps))
    if merges:
        sections.append(merge_section(merges))
    if facts:
        rows = tuple(text_row(name, Cell(value, "number")) for name, value in facts.items())
        sections.append(Section("Sizes and times", tables=(Table((Cell("what"), Cell("value", "number")), rows),)))
    if next_steps:
        sections.append(Section("What to type next", commands=tuple(next_steps)))
    return Page(
        title, f"Made by lora_med, {created.replace('T', ' ').replace('Z', ' UTC')}", tuple(lead), tuple(sections)
    )

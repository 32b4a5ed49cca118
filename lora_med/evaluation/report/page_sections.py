"""The sections of the report page: findings, all comparisons, each evaluation, merges, swaps, sizes and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.evaluation.report.charts import loss_curves
from lora_med.evaluation.report.evaluation_section import KINDS, evaluation_section
from lora_med.evaluation.report.page import Cell, Figure, Finding, Page, Section, Table, text_row
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.sentences import number, signed, span
from lora_med.evaluation.statistics.multiple_comparisons import Comparison, compare_all
from lora_med.evaluation.swap_check import Swap

TERMS = (
    (
        "p",
        "how often chance alone would show a difference at least this large if there were none. It is from McNemar's "
        "exact test for the accuracy of independent items, and otherwise from the paired bootstrap.",
    ),
    (
        "p, adjusted",
        "p made larger because this table holds several comparisons. With many comparisons, chance alone makes some p "
        "small. Holm's method corrects for that over all rows of this table.",
    ),
    (
        "findable",
        "the smallest true difference that a test of this size finds in four of five cases. If the true difference is "
        "smaller, the verdict is mostly “cannot tell”; more items make it smaller.",
    ),
)


def comparison_section(comparisons: Sequence[Comparison]) -> Section:
    """Every adapter in every task against its base, with p-values adjusted for the number of comparisons."""
    columns = (
        Cell("task"),
        Cell("adapter"),
        Cell("measure"),
        Cell("difference", "number"),
        Cell("95% interval", "number"),
        Cell("p", "number"),
        Cell("p, adjusted", "number"),
        Cell("findable", "number"),
        Cell("verdict", "verdict"),
    )
    rows = [
        text_row(
            f"{comparison.evaluation.source}, {comparison.evaluation.template}",
            comparison.subject.name,
            comparison.measure.label,
            Cell(signed(comparison.change.difference), "number"),
            Cell(span(comparison.change.interval, sign=True), "number"),
            Cell("–" if comparison.p_value is None else f"{comparison.p_value:.2g}", "number"),
            Cell("–" if comparison.adjusted is None else f"{comparison.adjusted:.2g}", "number"),
            Cell("–" if comparison.change.detectable is None else number(comparison.change.detectable), "number"),
            Cell(comparison.verdict, KINDS[comparison.verdict]),
        )
        for comparison in comparisons
    ]
    note = (
        "Better or worse means here: the interval excludes zero, and the adjusted p is at most 0.05. "
        "The verdicts further down use the interval alone."
    )
    return Section("All comparisons", tables=(Table(columns, tuple(rows), note, TERMS),))


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
    note = (
        "Mean KL is from base + adapter to the merged model, over the probe texts. The adapter's own effect is the KL "
        "from the adapter to the base."
    )
    return Section("Merge, verified", tables=(Table(columns, tuple(rows), note),))


def swap_section(swaps: Sequence[Swap]) -> Section:
    """The time of each swap on one loaded base, and whether removing the adapter restored the base."""
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
    """The page; a section without content is left out."""
    comparisons = compare_all(evaluations)
    sections: list[Section] = []
    if runs:
        chart = Figure(loss_curves(runs), "Loss on the training rows and on the validation split.")
        sections.append(Section("Training", figures=(chart,)))
    if len(comparisons) > 1:
        sections.append(comparison_section(comparisons))
    sections += [evaluation_section(evaluation, index) for index, evaluation in enumerate(evaluations)]
    if swaps:
        sections.append(swap_section(swaps))
    if merges:
        sections.append(merge_section(merges))
    if facts:
        rows = tuple(text_row(name, Cell(value, "number")) for name, value in facts.items())
        sections.append(Section("Sizes and times", tables=(Table((Cell("what"), Cell("value", "number")), rows),)))
    if next_steps:
        sections.append(Section("Next commands", commands=tuple(next_steps)))
    made = f"Made by lora_med, {created.replace('T', ' ').replace('Z', ' UTC')}"
    lead = tuple(Finding(Cell(each.verdict, KINDS[each.verdict]), each.sentences) for each in comparisons)
    return Page(title, made, lead, tuple(sections))

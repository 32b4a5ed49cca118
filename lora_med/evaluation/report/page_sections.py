"""The report page: the findings in sentences, all comparisons, each evaluation, merges, swaps, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lora_med.evaluation.report.charts import loss_curves
from lora_med.evaluation.report.evaluation_section import KINDS, evaluation_section
from lora_med.evaluation.report.page import Cell, Figure, Page, Section, Table, text_row
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.sentences import number, signed, span
from lora_med.evaluation.statistics.multiple_comparisons import Comparison, compare_all
from lora_med.evaluation.swap_check import Swap


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
            Cell(one.verdict, KINDS[one.verdict]),
        )
        for one in comparisons
    ]
    note = (
        "p of no difference: McNemar's exact test for accuracies of independent items, else that of the paired "
        "bootstrap; adjusted by Holm's method over this table. Findable: the true difference that four of five tests "
        "of this size find. Better and worse take an interval clear of zero and an adjusted p of at most 0.05; further "
        "down verdicts rest on each interval alone."
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
    compared = compare_all(evaluations)
    sections: list[Section] = []
    if runs:
        drawn = Figure(loss_curves(runs), "Loss on the training rows and on the validation split.")
        sections.append(Section("Training", figures=(drawn,)))
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
    made = f"Made by lora_med, {created.replace('T', ' ').replace('Z', ' UTC')}"
    return Page(title, made, tuple(one.sentences for one in compared), tuple(sections))

"""Evaluations as files: report.html to read, report.md to paste, report.json and the items' scores to compute with.

report.json, `schema` "lora_med.report/1":

    title, created          text
    evaluations[]           scoring (text, choice, written_choice, entities, writing), source, split, template, access,
                            items, groups, seed, bootstrap_samples, notes[], asked (shots, rotate, constrained),
                            published (items in the files of a published split, else null), left_out (reason -> count)
      base                  name, revision, weights (SHA-256), quantization, dtype, context (tokens in a scored row)
      layout                what the columns of the items' sums are: sections, labels, types; as the scoring needs it
      items_file            JSON lines: uid, group, sizes or answer, and the scores and `sums` of each subject. Their
                            totals over items give every measure. Texts are written only where access is open;
                            where it is credentialed, uid and group are hashed
      measures[]            name, label, unit, lower_is_better (null: neither)
      baselines[]           name, values (as below): answers that take no model
      subjects[]            adapter (null for the base), seconds,
        values              measure -> value, low, high, method (95% interval over groups; null where there is none)
        changes             measure -> difference, low, high, method, verdict (adapter - base, paired), p_value,
                            detectable (4 of 5 tests of so many items find it), items_needed (to find this difference)
        over                baseline -> the same, subject - baseline, by the measure that the verdict rests on
        recall, confusion   for closed labels; confusion has true labels in rows, both in the order of layout.labels,
                            and a last column of answers that were none
        confidence          for `choice`: plain, and with validation items fitted, scaled, referral; as the classes of
                            evaluation/statistics/calibration.py name their fields
        mcnemar             only_base, only_adapter, p_value
        metrics             the user's own: name -> value, interval, difference, difference_interval, verdict
      runs[]                adapters that differ only in their seed: adapters, measure, mean, spread (standard
                            deviation), lowest, highest, low, high, method, verdict of the mean difference
    comparisons[]           source, template, adapter, measure, test, p_value, adjusted (Holm's, over this list),
                            verdict (as the list allows it); of a blind rating also `study`
    ratings[]               only after `lora-med review verdict --record`: review/verdict/report_verdict.py
    merges[]                certificates as in merge_certificate.json
    swaps[]                 adapter, milliseconds, changed, restored
    facts                   name -> value, such as sizes and times
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lora_med.data.record import shown_uid
from lora_med.evaluation.measures import Change, Value
from lora_med.evaluation.report.charts import read_metrics
from lora_med.evaluation.report.page import to_html, to_markdown
from lora_med.evaluation.report.page_sections import build_page
from lora_med.evaluation.results import BASE, Evaluation, Subject
from lora_med.evaluation.statistics.multiple_comparisons import Comparison, compare_all
from lora_med.evaluation.statistics.over_seeds import Runs, over_seeds
from lora_med.evaluation.swap_check import Swap
from lora_med.files import write_atomic, write_json

SCHEMA = "lora_med.report/1"


@dataclass(frozen=True)
class Report:
    """The paths of a report's files, its findings (one text for each adapter), and the content of report.json."""

    html: Path
    json: Path
    markdown: Path
    findings: tuple[str, ...]
    content: Mapping[str, Any] = field(repr=False)


def write_report(
    evaluations: Sequence[Evaluation],
    out: Path | str,
    *,
    title: str,
    curves: Mapping[str, Path | str] | None = None,
    merges: Sequence[Mapping[str, Any]] = (),
    swaps: Sequence[Swap] = (),
    facts: Mapping[str, str] | None = None,
    next_steps: Sequence[str] = (),
) -> Report:
    """Write report.html, report.md, report.json and a JSON-lines file of item scores into `out`.

    Args:
        evaluations: as `evaluate` returns them.
        out: a folder, created if it is missing; files of the same names are replaced.
        title: the heading.
        curves: label -> a run's metrics.jsonl, drawn as loss curves.
        merges: certificates as `merge_adapter` returns them.
        swaps: as `check_swaps` returns them.
        facts: sizes and times, shown as a table.
        next_steps: commands to try next.

    Raises:
        InputMissingError: a metrics file is missing.
        OutputError: `out` cannot be written.
    """
    folder = Path(out)
    runs = {label: read_metrics(Path(path)) for label, path in (curves or {}).items()}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    content = {
        "schema": SCHEMA,
        "title": title,
        "created": created,
        "evaluations": [_entry(each, number, len(evaluations), folder) for number, each in enumerate(evaluations)],
        "comparisons": [_comparison(comparison) for comparison in compare_all(evaluations)],
        "merges": [dict(merge) for merge in merges],
        "swaps": [asdict(swap) for swap in swaps],
        "facts": dict(facts or {}),
    }
    page = build_page(
        evaluations,
        title=title,
        created=created,
        runs=runs,
        merges=merges,
        swaps=swaps,
        facts=facts or {},
        next_steps=next_steps,
    )
    private = any(evaluation.access == "credentialed" for evaluation in evaluations)
    return Report(
        html=write_atomic(folder / "report.html", to_html(page), private=private),
        json=write_json(folder / "report.json", content, private=private),
        markdown=write_atomic(folder / "report.md", to_markdown(page), private=private),
        findings=tuple(finding.text for finding in page.lead),
        content=content,
    )


def report_names(templates: Sequence[str]) -> list[str]:
    """The names of the files that `write_report` writes for evaluations with these templates."""
    items = [_items_name(template, number, len(templates)) for number, template in enumerate(templates)]
    return ["report.html", "report.json", "report.md", *items]


def _items_name(template: str, number: int, count: int) -> str:
    return "items.jsonl" if count == 1 else f"items_{number + 1}_{template}.jsonl"


def _entry(evaluation: Evaluation, number: int, count: int, folder: Path) -> dict[str, Any]:
    """The evaluation's entry of report.json; its items go into a file of their own."""
    name = _items_name(evaluation.template, number, count)
    write_atomic(folder / name, item_lines(evaluation), private=evaluation.access == "credentialed")
    return {**to_json(evaluation), "items_file": name}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "source": comparison.evaluation.source,
        "template": comparison.evaluation.template,
        "adapter": comparison.subject.name,
        "measure": comparison.measure.name,
        "test": comparison.test,
        "p_value": comparison.p_value,
        "adjusted": comparison.adjusted,
        "verdict": comparison.verdict,
    }


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The entry of report.json for one evaluation; numbers only, no text of any item."""
    return {
        "scoring": evaluation.scoring,
        "source": evaluation.source,
        "split": evaluation.split,
        "template": evaluation.template,
        "access": evaluation.access,
        "base": dict(evaluation.base),
        "items": len(evaluation.items),
        "published": evaluation.published,
        "left_out": dict(evaluation.left_out),
        "groups": evaluation.groups,
        "layout": dict(evaluation.layout),
        "notes": list(evaluation.notes),
        "asked": dict(evaluation.prompt_options),
        "bootstrap_samples": evaluation.bootstrap_samples,
        "seed": evaluation.seed,
        "versions": dict(evaluation.versions),
        "created": evaluation.created,
        "measures": [
            {
                "name": measure.name,
                "label": measure.label,
                "unit": measure.unit,
                "lower_is_better": measure.lower_is_better,
            }
            for measure in evaluation.measures
        ],
        "baselines": [{"name": each.name, "values": _values_json(each.values)} for each in evaluation.baselines],
        "subjects": [subject_json(subject) for subject in evaluation.subjects],
        "runs": [runs_json(over_seeds(evaluation, names)) for names in evaluation.recipes],
    }


def runs_json(runs: Runs) -> dict[str, Any]:
    """The runs of one recipe, as an entry of report.json."""
    return {
        "adapters": list(runs.adapters),
        "measure": runs.measure.name,
        "mean": runs.mean,
        "spread": runs.spread,
        "lowest": runs.lowest,
        "highest": runs.highest,
        **asdict(runs.interval),
        "verdict": runs.verdict,
    }


def _values_json(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: {"value": score.value, **asdict(score.interval)} for name, score in values.items()}


def subject_json(subject: Subject) -> dict[str, Any]:
    """The entry of report.json for the base or one adapter."""
    content: dict[str, Any] = {
        "adapter": subject.adapter,
        "seconds": round(subject.seconds, 3),
        "values": _values_json(subject.values),
        "changes": {name: change_json(change) for name, change in subject.changes.items()},
        "over": {name: change_json(change) for name, change in subject.baseline_changes.items()},
        "metrics": {name: asdict(score) for name, score in subject.custom.items()},
    }
    if subject.answers is not None:
        content["confusion"] = [list(row) for row in subject.answers.confusion]
        content["recall"] = {
            label: {
                "found": recall.hits,
                "of": recall.total,
                "low": recall.interval.low,
                "high": recall.interval.high,
            }
            for label, recall in subject.answers.recall.items()
        }
    if subject.confidence is not None:
        content["confidence"] = asdict(subject.confidence)
    if subject.mcnemar is not None:
        content["mcnemar"] = {
            "only_base": subject.mcnemar.only_first,
            "only_adapter": subject.mcnemar.only_second,
            "p_value": subject.mcnemar.p_value,
        }
    return content


def change_json(change: Change) -> dict[str, Any]:
    """A difference, as an entry of report.json."""
    return {
        "difference": change.difference,
        **asdict(change.interval),
        "verdict": change.verdict,
        "p_value": change.p_value,
        "detectable": change.detectable,
        "items_needed": change.items_needed,
    }


def item_lines(evaluation: Evaluation) -> str:
    """JSON lines, one for each item: uid, group, sizes or labels, and the scores of base and adapters."""
    lines = []
    for index, item in enumerate(evaluation.items):
        scores = {subject.adapter: _item_scores(subject, index) for subject in evaluation.subjects}
        group = shown_uid(item.group, evaluation.access)  # of notes it is the patient
        facts: dict[str, Any] = {"uid": shown_uid(item.uid, evaluation.access), "group": group}
        if item.tokens:
            facts |= {"tokens": item.tokens, "bytes": item.size_bytes}
        if item.labels:
            facts |= {"labels": list(item.labels), "answer": item.answer}
        facts[BASE] = scores.pop(None)
        facts["adapters"] = scores
        lines.append(json.dumps(facts, ensure_ascii=False, allow_nan=False))
    return "".join(f"{line}\n" for line in lines)


def _item_scores(subject: Subject, index: int) -> dict[str, Any]:
    sums = [int(total) if total == int(total) else float(total) for total in subject.table[index]]
    written = {"written": subject.written[index]} if subject.written else {}
    return {**subject.facts[index], **written, "sums": sums}

"""lora-med eval: adapters against their base on the same held-out items, with intervals and verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.store.published import AdapterFiles
    from lora_med.evaluation.report.write_report import Report
    from lora_med.evaluation.results import Evaluation
    from lora_med.models.base import Base

app = typer.Typer()

Overrides = Annotated[list[str] | None, typer.Argument(help="data.key=value, such as data.columns.text=body")]
Adapters = Annotated[list[str] | None, typer.Option(help="name in the store; may be given several times")]
Out = Annotated[Path, typer.Option(help="folder for report.html, report.json, report.md and item scores")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(help="a task's name, or NAME:PATH; several times for several tasks; --list-tasks shows them"),
]
Data = Annotated[list[str] | None, typer.Option(help="files to read; without them, those of the card")]
Source = Annotated[str | None, typer.Option(help="name in the catalog; without it, the task's or the card's")]
Template = Annotated[str | None, typer.Option(help="prompt template; without it, the task's or the one that trained")]
BaseName = Annotated[str | None, typer.Option(help="folder, Hub id or micro; without it, what the card names")]
Revision = Annotated[str | None, typer.Option(help="commit, tag or branch of a base on the Hub")]
Store = Annotated[Path, typer.Option(help="the folder of adapters")]
Split = Annotated[str | None, typer.Option(help="test or validation; without it, the task's own, or test")]
Quantization = Annotated[str | None, typer.Option(help="none, 8bit or 4bit; without it, as it was trained")]
MaxItems = Annotated[int | None, typer.Option(min=1, help="score at most so many items of each task")]
Resamples = Annotated[int, typer.Option(min=1, help="resamples behind each interval")]
Seed = Annotated[int, typer.Option(help="of drawing items, resampling and samples")]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="fit temperature and threshold to refer on the validation split")
]
Shots = Annotated[int, typer.Option(min=0, help="solved examples before each question, from the training part")]
Rotate = Annotated[bool, typer.Option("--rotate", help="ask in every cyclic order of the options")]
Constrained = Annotated[bool, typer.Option("--constrained", help="hold written entities to their JSON list")]
Bert = Annotated[str, typer.Option(help="FOLDER:LAYER of an encoder, to score written texts by BERTScore too")]
Metrics = Annotated[list[str] | None, typer.Option(help="a function of your own, as package.module:function")]
Falling = Annotated[list[str] | None, typer.Option(help="a number of your own metrics for which less is better")]
ListTasks = Annotated[bool, typer.Option("--list-tasks", help="show the tasks that have a name, and stop")]
Online = Annotated[bool, typer.Option("--online", help="let base and data be loaded from the Hub")]
AsJson = Annotated[bool, typer.Option("--json", help="report.json as one JSON object on stdout")]


@app.command("eval")
def evaluate_command(
    overrides: Overrides = None,
    adapter: Adapters = None,
    out: Out = Path("runs/eval"),
    task: Tasks = None,
    data: Data = None,
    source: Source = None,
    template: Template = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = Path("adapters"),
    split: Split = None,
    quantization: Quantization = None,
    max_items: MaxItems = None,
    bootstrap_samples: Resamples = 10_000,
    seed: Seed = 42,
    calibrate: Calibrate = False,
    shots: Shots = 0,
    rotate: Rotate = False,
    constrained: Constrained = False,
    bertscore: Bert = "",
    metric: Metrics = None,
    lower_is_better: Falling = None,
    list_tasks: ListTasks = False,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Score base and adapters on held-out items of one or more tasks: better, worse, or cannot tell."""
    if list_tasks:
        _list_tasks(as_json)
        return
    prepare_environment(offline=not online)
    from lora_med.evaluation.options import EvalOptions, PromptOptions
    from lora_med.evaluation.report.write_report import write_report
    from lora_med.metrics.custom_metric import load_metric
    from lora_med.workflows.evaluate import make_jobs, open_job, score_jobs, score_taggers, tagging

    names = list(adapter or [])
    opened = _open(names, store, base)
    cards = [one.card for one in opened]
    asked = {"source": source, "template": template, "paths": data or (), "overrides": overrides or (), "split": split}
    jobs = make_jobs(task or (), cards, **asked)
    if tagging(cards):
        _refuse(constrained=constrained, metric=metric, revision=revision, quantization=quantization)
    options = EvalOptions(
        store=store,
        max_items=max_items,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        prompt_options=PromptOptions(shots, rotate, constrained, bertscore),
        metrics={name: load_metric(name) for name in metric or ()},
        lower_is_better=lower_is_better or (),
    )
    heldout = [open_job(job, options.prompt_options, calibrate=calibrate) for job in jobs]
    if tagging(cards):
        evaluations = score_taggers(opened, jobs, heldout, options, base=base)
    else:
        evaluations = score_jobs(_base(opened, base, revision, quantization), opened, jobs, heldout, options)
    report = write_report(evaluations, out, title=_title(names, evaluations))
    print(json.dumps(report.content)) if as_json else _draw(evaluations, report)


def _title(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    base = str(evaluations[0].base["name"])
    return f"{', '.join(names)} against {base}" if names else base


def _refuse(**given: object) -> None:
    """Taggers write nothing, and are loaded on the base that their cards name."""
    for name, value in given.items():
        if value:
            raise SettingsError(
                "adapters that tag tokens cannot be scored so", where=f"--{name}", fix="leave it out for these adapters"
            )


def _open(names: list[str], store: Path, base: str | None) -> list[AdapterFiles]:
    """Each named adapter, opened once; without any, a base must be named."""
    if not names and base is None:
        raise SettingsError("neither adapter nor base is named", where="--adapter", fix="lora-med adapters list")
    from lora_med.evaluation.runner import open_adapters

    return open_adapters(names, store)


def _base(opened: Sequence[AdapterFiles], name: str | None, revision: str | None, quantization: str | None) -> Base:
    """The base that was named, else the first card's; refused before its weights are loaded if it is not the one."""
    from lora_med.adapters.store.published import check_base
    from lora_med.models.base import load_base, resolve_base
    from lora_med.models.fingerprint import fingerprint

    known = opened[0].card.base if opened else None
    if name is not None or known is None:
        asked, commit = str(name), revision
    else:
        asked, commit = known.name, revision or known.revision
    found = fingerprint(resolve_base(asked, commit)[0])
    for adapter in opened:
        check_base(found, asked, adapter.card, adapter.folder)
    weights = quantization or (known.quantization if known is not None else "none")
    return load_base(asked, quantization=weights, revision=commit)


def _list_tasks(as_json: bool) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from lora_med.evaluation.tasks import SCORINGS, TASKS

    if as_json:
        print(json.dumps([asdict(task) for task in TASKS.values()]))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("task", "what", "source", "template", "scoring", "split"):
        table.add_column(title)
    for task in TASKS.values():
        table.add_row(task.name, task.summary, task.source, task.template, task.scoring, task.split)
    console = Console()
    console.print(table)
    console.print("\nAny other source: --source NAME --data PATH, with --task and one of the scorings:")
    for name, kind in SCORINGS.items():
        console.print(f"  {name:15} {kind.summary}")


def _draw(evaluations: Sequence[Evaluation], report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from lora_med.evaluation.report.evaluation_section import score_table
    from lora_med.evaluation.statistics.multiple_comparisons import compare_all

    colors = {"better": "green", "worse": "red", "unsure": "yellow"}
    console = Console()
    compared = compare_all(evaluations)
    for evaluation in evaluations:
        content = score_table(evaluation)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in content.columns:
            table.add_column(column.text, justify="right" if column.kind == "number" else "left")
        for row in content.rows:
            cells = (f"[{colors[cell.kind]}]{cell.text}[/]" if cell.kind in colors else cell.text for cell in row)
            table.add_row(*cells)
        for one in compared:
            if one.evaluation is evaluation:
                console.print(one.sentences)
        console.print()
        console.print(table)
        console.print(f"\n{content.note}\n")
    kept = "scores are in the card; " if len(evaluations[0].subjects) > 1 else ""
    console.print(f"{kept}the report: {report.html}")

"""lora-med eval: adapters against their base on the same held-out items, with intervals and verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.command_groups import SettingsGroup, given_again
from lora_med.cli.eval.compare_command import compare_command
from lora_med.cli.eval.harness_command import harness_command
from lora_med.cli.eval.heldout_paths import ask_for_data, check_written
from lora_med.cli.options import (
    STORE,
    Adapters,
    AsJson,
    BaseName,
    Data,
    DataAccess,
    Online,
    OutFolder,
    Quantization,
    Resamples,
    Revision,
    Seed,
    Source,
    Split,
    Store,
    Tasks,
    Template,
)
from lora_med.cli.terminal import cell, console, new_table, print_text
from lora_med.errors import SettingsError
from lora_med.processes.agreement import require_agreement
from lora_med.processes.elastic import Launch, launch
from lora_med.processes.launch import rank, world_size
from lora_med.processes.together import together
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.store.card import Card
    from lora_med.adapters.store.published import AdapterFiles
    from lora_med.evaluation.eval_options import EvalOptions
    from lora_med.evaluation.report.write_report import Report
    from lora_med.evaluation.results import Evaluation
    from lora_med.models.base import Base
    from lora_med.processes.peers import Peers

PATIENCE = 600.0  # seconds that a process waits for others that do nothing
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    cls=SettingsGroup,
    invoke_without_command=True,
    subcommand_metavar="[data.key=value]... | COMMAND [ARGS]...",
)
app.command("compare")(compare_command)
app.command("harness")(harness_command)

Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Fit the temperature and the abstention threshold on the validation split.")
]
Shots = Annotated[int, typer.Option(min=0, help="Solved examples before each question, from the training split.")]
Rotate = Annotated[bool, typer.Option("--rotate", help="Score every cyclic order of the options.")]
Constrained = Annotated[bool, typer.Option("--constrained", help="Constrain generated entities to a JSON list.")]
Bert = Annotated[str, typer.Option(metavar="FOLDER:LAYER", help="An encoder, to score generated text by BERTScore.")]
Metrics = Annotated[
    list[str] | None, typer.Option(metavar="MODULE:FUNCTION", help="A metric of your own; repeat it for several.")
]
LowerIsBetter = Annotated[
    list[str] | None, typer.Option(metavar="NUMBER", help="A number of your metrics for which less is better.")
]
ListTasks = Annotated[bool, typer.Option("--list-tasks", help="List the named tasks, and stop.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes that share the items, such as one for each GPU.")]
MaxItems = Annotated[int | None, typer.Option(min=1, help="Score at most this many items of each task.")]


@app.callback()
def evaluate_command(
    context: typer.Context,
    adapter: Adapters = None,
    out: OutFolder = Path("runs/eval"),
    task: Tasks = None,
    data: Data = None,
    source: Source = None,
    template: Template = None,
    access: DataAccess = None,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
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
    lower_is_better: LowerIsBetter = None,
    list_tasks: ListTasks = False,
    online: Online = False,
    processes: Processes = 1,
    as_json: AsJson = False,
) -> None:
    """Score base and adapters on held-out items of one or more tasks: better, worse, or cannot tell."""
    if list_tasks:
        _list_tasks(as_json)
    if list_tasks or context.invoked_subcommand is not None:
        return
    plan = Launch(processes)
    plan.check()
    if not plan.is_single:
        raise typer.Exit(launch(["eval", *given_again(context, but="processes")], plan))
    prepare_environment(offline=not online)
    from lora_med.evaluation.eval_options import EvalOptions, PromptOptions

    options = EvalOptions(
        store=store,
        max_items=max_items,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        prompt_options=PromptOptions(shots=shots, rotate=rotate, constrained=constrained, bertscore=bertscore),
        metrics=_metrics(metric or ()),
        lower_is_better=lower_is_better or (),
    )
    named = _Named(adapter or [], base, revision, quantization)
    chosen: dict[str, Any] = {"source": source, "template": template, "split": split, "access": access}
    with together(out, patience=PATIENCE) as peers:
        if peers is not None:
            peers.mark_remains("during the evaluation; the same command goes on from what is scored")
        tasks = {"tasks": task or (), "paths": data or (), "overrides": context.args, **chosen}
        evaluated = _evaluate(named, tasks, options, out, calibrate=calibrate, peers=peers)
    if evaluated is not None:
        _draw(*evaluated, as_json)


@dataclass(frozen=True)
class _Named:
    """The adapters and the base, as the command line names them."""

    adapters: Sequence[str]
    base: str | None
    revision: str | None
    quantization: str | None


def _evaluate(
    named: _Named, tasks: Mapping[str, Any], options: EvalOptions, out: Path, *, calibrate: bool, peers: Peers | None
) -> tuple[Sequence[Evaluation], Report] | None:
    """Score and write the report; None in a process that leaves this to the first one."""
    from lora_med.evaluation.report.write_report import report_names, write_report
    from lora_med.evaluation.sharing.eval_facts import eval_facts, is_open
    from lora_med.evaluation.sharing.journal import journal_name
    from lora_med.evaluation.sharing.shared_batches import shared_batches
    from lora_med.workflows.evaluate import make_jobs, open_job, score_jobs, score_taggers, tagging

    opened = _open(named.adapters, Path(options.store), named.base)
    cards = [published.card for published in opened]
    _refuse_for_taggers(cards, options, named)
    with ask_for_data(tasks["paths"]):
        jobs = make_jobs(cards=cards, **tasks)
        check_written(out, [*report_names([job.template for job in jobs]), journal_name(rank())], jobs)
        heldout = [open_job(job, options.prompt_options, calibrate=calibrate) for job in jobs]
    loaded = None if tagging(cards) else _base(opened, named)
    described = {f"{job.scoring} of {job.settings.source}/{job.split} as {job.template}": records
                 for job, records in zip(jobs, heldout, strict=True)}  # fmt: skip
    facts = eval_facts(loaded, opened, described, options)
    if peers is not None:
        require_agreement(peers, facts, fix="the same files on every machine", doing="score the same")
    share: dict[str, Any] = {} if peers is None else {"rank": rank(), "processes": world_size(), "gather": peers.gather}
    with shared_batches(out, facts, with_written=is_open(opened, heldout, loaded), **share) as run:
        if loaded is None:
            evaluations = score_taggers(opened, jobs, heldout, options, base=named.base, run=run)
        else:
            evaluations = score_jobs(loaded, opened, jobs, heldout, options, run=run)
        if run.rank:
            return None
        return evaluations, write_report(evaluations, out, title=_title(named.adapters, evaluations))


def _metrics(names: Sequence[str]) -> dict[str, Any]:
    from lora_med.metrics.custom_metric import load_metric

    return {name: load_metric(name) for name in names}


def _title(names: Sequence[str], evaluations: Sequence[Evaluation]) -> str:
    base = str(evaluations[0].base["name"])
    return f"{', '.join(names)} against {base}" if names else base


def _refuse_for_taggers(cards: Sequence[Card], options: EvalOptions, named: _Named) -> None:
    """Refuse options that token classifiers do not have: they generate nothing, and load the base of their card."""
    from lora_med.workflows.evaluate import tagging

    is_tagging = tagging(cards)
    refused = {
        "constrained": options.prompt_options.constrained,
        "metric": options.metrics,
        "revision": named.revision,
        "quantization": named.quantization,
    }
    for name, value in refused.items():
        if is_tagging and value:
            raise SettingsError(
                "adapters that tag tokens do not take this option", where=f"--{name}", fix="remove the option"
            )


def _open(names: Sequence[str], store: Path, base: str | None) -> list[AdapterFiles]:
    """Each named adapter, opened once; without any, a base must be named."""
    if not names and base is None:
        raise SettingsError("neither adapter nor base is named", where="--adapter", fix="lora-med adapters list")
    from lora_med.evaluation.runner import open_adapters

    return open_adapters(names, store)


def _base(opened: Sequence[AdapterFiles], named: _Named) -> Base:
    """The named base, else the first card's; a base that no adapter was trained on is refused before it is loaded."""
    from lora_med.adapters.store.base_match import check_base
    from lora_med.models.base import load_base, resolve_base
    from lora_med.models.fingerprint import fingerprint
    from lora_med.models.on_disk.weights_source import stored_bits

    card_base = opened[0].card.base if opened else None
    if named.base is not None or card_base is None:
        base_name, commit = str(named.base), named.revision
    else:
        base_name, commit = card_base.name, named.revision or card_base.revision
    folder, _ = resolve_base(base_name, commit)
    base_fingerprint = fingerprint(folder)
    for adapter in opened:
        check_base(base_fingerprint, base_name, adapter.card, adapter.folder)
    weights = named.quantization or (card_base.quantization if card_base is not None else stored_bits(folder))
    return load_base(base_name, quantization=weights, revision=commit)


def _list_tasks(as_json: bool) -> None:
    from dataclasses import asdict

    from lora_med.evaluation.tasks import SCORINGS, TASKS

    if as_json:
        print_text(json.dumps([asdict(task) for task in TASKS.values()]))
        return
    table = new_table(("task", "what", "source", "template", "scoring", "split"))
    for task in TASKS.values():
        table.add_row(task.name, task.summary, task.source, task.template, task.scoring, task.split)
    screen = console()
    screen.print(table)
    screen.print("\nAny other source: --source NAME --data PATH, with --task and one of the scorings:")
    for name, kind in SCORINGS.items():
        screen.print(f"  {name:15} {kind.summary}")


def _draw(evaluations: Sequence[Evaluation], report: Report, as_json: bool) -> None:
    if as_json:
        print_text(json.dumps(report.content))
        return
    from lora_med.evaluation.report.evaluation_section import score_table
    from lora_med.evaluation.statistics.multiple_comparisons import compare_all

    colors = {"better": "green", "worse": "red", "unsure": "yellow"}
    screen = console()
    compared = compare_all(evaluations)
    for evaluation in evaluations:
        content = score_table(evaluation)
        titles = [column.text for column in content.columns]
        table = new_table(titles, right=[column.text for column in content.columns if column.kind == "number"])
        for row in content.rows:
            table.add_row(*(cell(each.text, colors.get(each.kind, "")) for each in row))
        for comparison in compared:
            if comparison.evaluation is evaluation:
                screen.print(comparison.sentences, markup=False)
        screen.print()
        screen.print(table)
        screen.print(f"\n{content.note}\n", markup=False)
    card_note = "the scores are in the card; " if len(evaluations[0].subjects) > 1 else ""
    screen.print(f"{card_note}the report: {report.html}")

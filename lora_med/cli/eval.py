"""lora-med eval: adapters against their base on the same held-out items, with intervals and verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.card import Card
    from lora_med.config.schema import DataSettings
    from lora_med.data.corpus import HeldOut
    from lora_med.evaluation.report import Report
    from lora_med.evaluation.results import Evaluation
    from lora_med.models.base import Base

app = typer.Typer()


@app.command("eval")
def evaluate_command(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="data.key=value, such as data.columns.text=body")
    ] = None,
    adapter: Annotated[list[str] | None, typer.Option(help="name in the store; may be given several times")] = None,
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json, report.md and item scores")] = Path(
        "runs/eval"
    ),
    data: Annotated[list[str] | None, typer.Option(help="files to read; without them, those of the card")] = None,
    source: Annotated[str | None, typer.Option(help="name in the catalog; without it, that of the card")] = None,
    template: Annotated[str | None, typer.Option(help="prompt template; without it, the one that trained")] = None,
    task: Annotated[str | None, typer.Option(help="text or choice; a check, as the template decides")] = None,
    base: Annotated[str | None, typer.Option(help="folder, Hub id or micro; without it, what the card names")] = None,
    revision: Annotated[str | None, typer.Option(help="commit, tag or branch of a base on the Hub")] = None,
    store: Annotated[Path, typer.Option(help="the folder of adapters")] = Path("adapters"),
    split: Annotated[str, typer.Option(help="test or validation")] = "test",
    quantisation: Annotated[str | None, typer.Option(help="none, 8bit or 4bit; without it, as it was trained")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="score at most so many items")] = None,
    bootstrap_samples: Annotated[int, typer.Option(min=1, help="resamples behind each interval")] = 10_000,
    seed: Annotated[int, typer.Option(help="of drawing items, resampling and samples")] = 42,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="fit temperature and threshold to refer on the validation split")
    ] = False,
    online: Annotated[bool, typer.Option("--online", help="let base and data be loaded from the Hub")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="report.json as one JSON object on stdout")] = False,
) -> None:
    """Score base and adapters on held-out items: nll, perplexity and bits per byte, or accuracy and macro-F1."""
    prepare_environment(offline=not online)
    from lora_med.data.corpus import open_heldout
    from lora_med.evaluation.cards import record_scores
    from lora_med.evaluation.heldout import choose_template, heldout_settings
    from lora_med.evaluation.report import write_report
    from lora_med.evaluation.runner import evaluate

    names = list(adapter or [])
    cards = _cards(names, store)
    settings = heldout_settings(list(cards.values()), source=source, paths=data or (), overrides=overrides or ())
    chosen = choose_template(list(cards.values()), settings.source, template, _task(task))
    records = open_heldout(settings, _split(split))
    validation = _validation(settings, split) if calibrate else ()
    loaded = _base(cards, base, revision, quantisation)
    evaluation = evaluate(
        loaded,
        names,
        records,
        template=chosen,
        source=settings.source,
        split=split,
        store=store,
        max_items=max_items,
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        validation=validation,
    )
    record_scores(evaluation, store)
    report = write_report([evaluation], out, title=f"{', '.join(names)} against {loaded.name}")
    if as_json:
        print(json.dumps(report.content))
    else:
        _draw(evaluation, report)


def _cards(names: list[str], store: Path) -> dict[Path, Card]:
    """Folder -> card of each named adapter."""
    from lora_med.adapters.card import read_card
    from lora_med.adapters.store import find_adapter

    if not names:
        raise SettingsError(
            "no adapter is named", where="--adapter", fix="lora-med adapters list shows those there are"
        )
    folders = [find_adapter(name, store) for name in names]
    return {folder: read_card(folder) for folder in folders}


def _base(cards: dict[Path, Card], name: str | None, revision: str | None, quantisation: str | None) -> Base:
    """The base that was named, else the first card's; refused before its weights are loaded if it is not the one."""
    from lora_med.adapters.attach import check_base
    from lora_med.models.base import load_base, resolve_base
    from lora_med.models.fingerprint import fingerprint

    known = next(iter(cards.values())).base
    asked, commit = (name, revision) if name else (known.name, revision or known.revision)
    found = fingerprint(resolve_base(asked, commit)[0])
    for folder, card in cards.items():
        check_base(found, asked, card, folder)
    return load_base(asked, quantisation=quantisation or known.quantisation, revision=commit)


def _task(name: str | None) -> Literal["text", "choice"] | None:
    if name is None or name == "text" or name == "choice":
        return name
    raise SettingsError(f"no task named {name!r}; known: choice, text", where="--task")


def _split(name: str) -> Literal["validation", "test"]:
    if name == "validation" or name == "test":
        return name
    raise SettingsError(f"no held-out split named {name!r}; known: test, validation", where="--split")


def _validation(settings: DataSettings, split: str) -> HeldOut:
    from lora_med.data.corpus import open_heldout

    if split == "validation":
        raise SettingsError(
            "a temperature fitted on the items it is reported on is worth nothing",
            where="--calibrate",
            fix="--split test",
        )
    return open_heldout(settings, "validation")


def _draw(evaluation: Evaluation, report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from lora_med.evaluation.sections import score_table
    from lora_med.evaluation.wording import finding

    colours = {"better": "green", "worse": "red", "unsure": "yellow"}
    content = score_table(evaluation)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in content.columns:
        table.add_column(column.text, justify="right" if column.kind == "number" else "left")
    for row in content.rows:
        table.add_row(*(f"[{colours[cell.kind]}]{cell.text}[/]" if cell.kind in colours else cell.text for cell in row))
    console = Console()
    for subject in evaluation.subjects[1:]:
        console.print(finding(evaluation, subject))
    console.print()
    console.print(table)
    console.print(f"\n{content.note}\nscores are in the card; the report: {report.html}")

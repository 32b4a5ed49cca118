"""lora-med audit memorization NAME: what an adapter remembers, with the confidence and the ceiling of each figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lora_med.cli.audit.trail_command import trail_command
from lora_med.cli.command_groups import AdapterCommand, CommandGroup
from lora_med.cli.eval.heldout_paths import ask_for_data
from lora_med.cli.options import (
    STORE,
    AdapterName,
    AsJson,
    BaseName,
    Data,
    Online,
    OutFolder,
    Overrides,
    Revision,
    Seed,
    Store,
)
from lora_med.cli.terminal import console, new_table, print_text, progress_bar
from lora_med.errors import UsageError
from lora_med.run import prepare_environment

Canaries = Annotated[int, typer.Option(metavar="N", help="Invented patients; a coin puts half into the twin.")]
Repeats = Annotated[
    str, typer.Option(metavar="N,N,...", help="How often the twin trains on a canary; 1,1,16: two thirds once.")
]
Writer = Annotated[
    Literal["notes", "base"], typer.Option(help="Who writes the canaries: the generator of notes, or the base.")
]
Twin = Annotated[
    bool, typer.Option("--twin/--no-twin", help="Train a twin with canaries, or read the data's patients alone.")
]
Patients = Annotated[int, typer.Option(metavar="N", help="At most so many patients of each side of the data.")]
TemplatePatients = Annotated[
    int, typer.Option(metavar="N", help="Text that so many other patients share is a template.")
]
MostEpsilon = Annotated[
    float, typer.Option(metavar="E", help="Push and export are refused above this lower bound on epsilon.")
]
MostExtracted = Annotated[
    int, typer.Option(metavar="N", help="Push and export are refused if more patients' text is written verbatim.")
]
Delta = Annotated[float, typer.Option(metavar="D", help="The delta of (epsilon, delta)-differential privacy.")]
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="What an adapter remembers of its training data; what was pushed, served and purged.",
    cls=CommandGroup,
)
app.command("trail")(trail_command)


@app.callback()
def audit() -> None:
    """What an adapter remembers of its training data; what was pushed, served and purged."""


@app.command(cls=AdapterCommand)
def memorization(
    name: AdapterName,
    overrides: Overrides = None,
    data: Data = None,
    out: OutFolder = Path("runs/audit"),
    canaries: Canaries = 1300,
    repeats: Repeats = "1,4,16",
    writer: Writer = "notes",
    twin: Twin = True,
    patients: Patients = 1000,
    template_patients: TemplatePatients = 3,
    most_epsilon: MostEpsilon = 3.0,
    most_extracted: MostExtracted = 0,
    delta: Delta = 0.0,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    seed: Seed = 42,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Attack an adapter and a twin of its run, and write what was proved into its card and a report."""
    prepare_environment(offline=not online)
    from lora_med.workflows.memorization.audit_memorization import audit_memorization
    from lora_med.workflows.memorization.audit_options import AuditOptions

    options = AuditOptions(
        out=out / name,
        store=store,
        data=tuple(data or ()),
        overrides=tuple(overrides or ()),
        base=base,
        revision=revision,
        twin=twin,
        canaries=canaries,
        repeats=_numbers(repeats),
        writer=writer,
        patients=patients,
        others=template_patients,
        most_epsilon=most_epsilon,
        most_extracted=most_extracted,
        delta=delta,
        seed=seed,
    )
    with ask_for_data(data), progress_bar("canaries") as progress:
        audited = audit_memorization(name, options, advance=progress)
    if as_json:
        print_text(json.dumps({**audited.content, "folder": str(audited.folder)}))
    else:
        _print_audit(audited.content, audited.folder)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--repeats is {text!r}, and numbers with commas between them are possible") from error


def _print_audit(content: Mapping[str, Any], folder: Path) -> None:
    from lora_med.workflows.memorization.audit_page import extraction_table, findings, tiers_table

    titled: list[tuple[str, Any]] = []
    if content["canaries"] is not None:
        titled.append(("canaries, on a twin of the run", tiers_table(content["canaries"]["membership"])))
    if "why_not" not in content["patients"]["membership"]:
        titled.append(("patients of the data, on the adapter", tiers_table(content["patients"]["membership"])))
    titled.append(("text written verbatim, in patients", extraction_table(content["patients"]["extraction"])))
    screen = console()
    for title, shown in titled:
        screen.print(f"{title}:")
        table = new_table(
            [column.text for column in shown.columns], [column.text for column in shown.columns if column.kind]
        )
        for row in shown.rows:
            table.add_row(*(_plain(cell.text) for cell in row))
        screen.print(table)
        print_text("")
    for finding in findings(content):
        print_text(f"{finding.verdict.text}: {finding.text}")
    print_text(f"report: {folder / 'report.html'}")


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)

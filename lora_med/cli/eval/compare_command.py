"""lora-med eval compare A B: two reports side by side, on the same items where they are the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lora_med.run import prepare_environment

app = typer.Typer()


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="a folder that lora-med eval wrote, or its report.json")],
    second: Annotated[Path, typer.Argument(help="another")],
    bootstrap_samples: Annotated[int, typer.Option(min=1, help="resamples behind each interval")] = 10_000,
    seed: Annotated[int, typer.Option(help="of the resampling")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Set two reports side by side: each measure in both, and the paired difference where the items are the same."""
    prepare_environment(offline=True)
    from rich.console import Console
    from rich.table import Table

    from lora_med.evaluation.report.compare_reports import side_by_side
    from lora_med.evaluation.sentences import number, signed, span

    found = side_by_side(first, second, samples=bootstrap_samples, seed=seed)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("task", "subject", "measure"):
        table.add_column(title)
    for title in ("first", "second", "difference", "95% interval"):
        table.add_column(title, justify="right")
    table.add_column("the second is")
    for one in found.lines:
        same = one.first_subject == one.second_subject
        subject = one.first_subject if same else f"{one.first_subject}, {one.second_subject}"
        said = ("–", "–", "other items")
        if one.change is not None:
            said = (signed(one.change.difference), span(one.change.interval, sign=True), one.change.verdict)
        table.add_row(one.what, subject, one.measure, number(one.first), number(one.second), *said)
    console = Console()
    console.print(table)
    for remark in found.remarks:
        console.print(f"note  {remark}")

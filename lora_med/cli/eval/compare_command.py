"""lora-med eval compare A B: two reports side by side, on the same items where they are the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lora_med.cli.options import AsJson, Resamples, Seed
from lora_med.cli.terminal import console, new_table, print_text
from lora_med.run import prepare_environment


def compare_command(
    first: Annotated[
        Path, typer.Argument(metavar="FIRST", help="A folder that `lora-med eval` wrote, or its report.json.")
    ],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="Another one.")],
    bootstrap_samples: Resamples = 10_000,
    seed: Seed = 42,
    as_json: AsJson = False,
) -> None:
    """Show two reports side by side: each measure in both, and the paired difference where the items are the same."""
    prepare_environment(offline=True)
    from lora_med.evaluation.report.compare_reports import side_by_side
    from lora_med.evaluation.sentences import number, signed, span

    comparison = side_by_side(first, second, samples=bootstrap_samples, seed=seed)
    if as_json:
        print_text(json.dumps(asdict(comparison)))
        return
    numbers = ("first", "second", "difference", "95% interval")
    table = new_table(("task", "subject", "measure", *numbers, "the second is"), right=numbers)
    for line in comparison.lines:
        same = line.first_subject == line.second_subject
        subject = line.first_subject if same else f"{line.first_subject}, {line.second_subject}"
        verdict = ("–", "–", "other items")
        if line.change is not None:
            verdict = (signed(line.change.difference), span(line.change.interval, sign=True), line.change.verdict)
        table.add_row(line.what, subject, line.measure, number(line.first), number(line.second), *verdict)
    screen = console()
    screen.print(table)
    for remark in comparison.remarks:
        screen.print(f"note  {remark}")

"""lora-med data pairs: a preference file from the answers of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from lora_med.cli.data.output_file import check_no_input
from lora_med.cli.eval.heldout_paths import ask_for_data, check_written
from lora_med.cli.options import STORE, AsJson, Data, OutFile, Store
from lora_med.cli.terminal import print_text
from lora_med.run import prepare_environment


def pairs_command(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="A folder of `lora-med eval --split validation`.")],
    out: OutFile,
    by: Annotated[
        Literal["faithfulness"], typer.Option(help="The check that chooses; it is never the score of what learns.")
    ] = "faithfulness",
    data: Data = None,
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Make pairs of a chosen and a rejected answer, from what base and adapters wrote for a report, by a check."""
    prepare_environment(offline=True)
    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter
    from lora_med.data.shapes.preferences import mined_by
    from lora_med.evaluation.eval_options import PromptOptions
    from lora_med.files import write_atomic
    from lora_med.workflows.evaluate import make_jobs, open_job
    from lora_med.workflows.preferences.mine_pairs import mine_pairs, read_written

    written = read_written(report)
    check_no_input(out, [report, *report.glob("*")])
    cards = [read_card(find_adapter(name, store)) for name in written.adapters]
    options = {"source": written.source, "template": written.template, "paths": data or (), "split": "validation"}
    jobs = make_jobs([], cards, access=written.access, **options)  # type: ignore[arg-type]
    with ask_for_data(data):
        check_written(out.parent, [out.name], jobs)
        records = open_job(jobs[0], PromptOptions(), calibrate=False).records
    mined = mine_pairs(written, records)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mined.rows)
    write_atomic(out, lines)
    statement = mined_by(by)
    if as_json:
        counts = {"items": mined.items, "pairs": len(mined.rows), "left_out": dict(mined.left_out)}
        print_text(json.dumps({"out": str(out), **counts, "mined_by": statement}))
        return
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in mined.left_out.items())
    print_text(
        f"{len(mined.rows):,} pairs of {mined.items:,} items in {out}{f'; left out: {reasons}' if reasons else ''}\n"
        f"made by {statement}\n"
        f"Next: lora-med train train.method=dpo data.source=custom data.paths=[{out}] adapter.access=open"
    )

"""lora-med eval harness: task files for lm-evaluation-harness, so that others can check the same items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_med.run import prepare_environment

app = typer.Typer()


@app.command()
def harness(
    out: Annotated[Path, typer.Option(help="folder for the task files and their README.md")],
    overrides: Annotated[list[str] | None, typer.Argument(help="data.key=value")] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="name in the store, whose card says what is held out")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="a task's name, or NAME:PATH; see lora-med eval")] = None,
    data: Annotated[list[str] | None, typer.Option(help="files to read")] = None,
    source: Annotated[str | None, typer.Option(help="name in the catalog")] = None,
    template: Annotated[str | None, typer.Option(help="prompt template")] = None,
    store: Annotated[Path, typer.Option(help="the folder of adapters")] = Path("adapters"),
    split: Annotated[str | None, typer.Option(help="test or validation")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Write the held-out items as tasks of lm-evaluation-harness: the same questions, options and texts."""
    prepare_environment(offline=True)
    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter
    from lora_med.evaluation.options import PromptOptions
    from lora_med.workflows.evaluate import make_jobs, open_job
    from lora_med.workflows.lm_eval_export import write_harness, write_readme

    cards = [read_card(find_adapter(name, store)) for name in adapter or ()]
    asked = {"source": source, "template": template, "paths": data or (), "overrides": overrides or (), "split": split}
    written = []
    for job in make_jobs(task or (), cards, **asked):
        heldout = open_job(job, PromptOptions(), calibrate=False)
        written.append(write_harness(heldout, out, template=job.template, scoring=job.scoring))
    readme = write_readme(written, out)
    if as_json:
        print(json.dumps({"readme": str(readme), "tasks": [{"name": one.name, "items": one.items} for one in written]}))
        return
    for one in written:
        print(f"{one.name}: {one.items} items, {one.yaml}")
    print(f"how to run them: {readme}")

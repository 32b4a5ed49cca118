"""lora-med train: an adapter from a settings file, trained and published."""

from __future__ import annotations

import json
import sys

import typer

from lora_med.cli.options import AsJson, Config, Overrides
from lora_med.cli.terminal import print_text
from lora_med.config.parse import parse
from lora_med.errors import StoppedError
from lora_med.run import prepare_environment, rank

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("train")
def train_command(
    overrides: Overrides = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on text, on a task or on entity tags, and publish it; the same command resumes a stopped run."""
    settings = parse(config, overrides or [])
    prepare_environment(settings.offline)
    from lora_med.workflows.train import train

    try:
        folder = train(settings, command=sys.argv)
    except KeyboardInterrupt as error:
        raise StoppedError("interrupted between two steps of the run", fix="run the same command again") from error
    if rank():
        return
    name, store = settings.adapter.name, settings.adapter.store
    option = "" if store == "adapters" else f" --store {store}"
    if as_json:
        print_text(json.dumps({"adapter": name, "folder": str(folder), "run": settings.train.output_dir}))
        return
    print_text(
        f"published: {folder}\nNext: lora-med eval --adapter {name}{option} --out {settings.train.output_dir}/eval"
    )

"""lora-med train: an adapter from a settings file, trained and published."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from lora_med.cli.options import AsJson, Config, Overrides
from lora_med.cli.terminal import print_text
from lora_med.config.parse import parse
from lora_med.errors import StoppedError
from lora_med.processes.elastic import Launch, launch
from lora_med.processes.launch import rank
from lora_med.processes.together import telling_others
from lora_med.run import prepare_environment

VERBOSITY = {logging.WARNING: ["--quiet"], logging.DEBUG: ["--verbose"]}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("train")
def train_command(
    overrides: Overrides = None,
    config: Config = None,
    as_json: AsJson = False,
    processes: Annotated[int, typer.Option(min=1, help="Processes to start on this machine, such as one a GPU.")] = 1,
    machines: Annotated[int, typer.Option(min=1, help="Machines; run the command on each.")] = 1,
    machine_rank: Annotated[int, typer.Option(min=0, help="This machine's number, from 0.")] = 0,
    join: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where several machines meet: machine 0, and a free port there."),
    ] = None,
) -> None:
    """Train an adapter on text, on a task or on entity tags, and publish it; the same command resumes a stopped run."""
    plan = Launch(processes, machines, machine_rank, join)
    plan.check()
    with telling_others():
        settings = parse(config, overrides or [])
    if not plan.is_single:
        raise typer.Exit(launch(_inner(overrides or [], config, as_json), plan))
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


def _inner(overrides: Sequence[str], config: Path | None, as_json: bool) -> list[str]:
    """The arguments of each process of a launch."""
    chosen = [] if config is None else ["--config", str(config)]
    flags = ["--json"] if as_json else []
    flags += VERBOSITY.get(logging.getLogger("lora_med").level, [])
    flags += ["--debug"] if "--debug" in sys.argv else []
    return ["train", *chosen, *flags, *overrides]

"""lora-med config show|schema|list|copy: what a settings file resolves to, every key, and the files that ship."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lora_med.cli.command_groups import CommandGroup
from lora_med.cli.data.output_file import is_stdout
from lora_med.cli.options import AsJson, Config, Overrides
from lora_med.cli.terminal import print_text
from lora_med.config.parse import parse
from lora_med.config.read import to_yaml
from lora_med.config.schema import Settings
from lora_med.config.shipped import find_config, list_configs
from lora_med.errors import OutputError
from lora_med.files import destination, write_atomic

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Show resolved settings and every key; list and copy the files that ship.",
    cls=CommandGroup,
)


@app.command()
def show(
    overrides: Overrides = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print every setting as the run would see it."""
    values = parse(config, overrides or []).model_dump(mode="json")
    print_text(json.dumps(values) if as_json else to_yaml(values).rstrip())


@app.command()
def schema() -> None:
    """Print the JSON schema of a settings file, for editors that check and complete."""
    print_text(json.dumps(Settings.model_json_schema(), indent=2))


@app.command("list")
def list_command(
    as_json: AsJson = False,
) -> None:
    """List the settings files that ship, each with its purpose."""
    configs = list_configs()
    if as_json:
        print_text(json.dumps(configs))
        return
    width = max(map(len, configs))
    print_text("\n".join(f"{name:<{width}}  {purpose}" for name, purpose in configs.items()))


@app.command()
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of `lora-med config list`.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write. [default: NAME.yaml]")
    ] = None,
) -> None:
    """Copy a settings file that ships, to be edited."""
    target = out or Path(f"{name}.yaml")
    if target.exists() and not destination(target)[1]:
        raise OutputError(f"{target.name} exists", where=str(target), fix="name another file with --out")
    write_atomic(target, find_config(name).read_bytes())
    print_text(target, file=sys.stderr if is_stdout(target) else sys.stdout)

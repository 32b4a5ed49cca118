"""lora-med config show|schema: what a settings file resolves to, and the JSON schema for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_med.config.parse import parse
from lora_med.config.read import to_yaml
from lora_med.config.schema import Settings

app = typer.Typer(help="Settings: what a file resolves to, and every key there is.", no_args_is_help=True)


@app.command()
def show(
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value, winning over the file")] = None,
    config: Annotated[Path | None, typer.Option(help="the YAML; without it, the defaults")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of YAML")] = False,
) -> None:
    """Print every setting as the run would see it."""
    values = parse(config, overrides or []).model_dump(mode="json")
    print(json.dumps(values) if as_json else to_yaml(values).rstrip())


@app.command()
def schema() -> None:
    """Print the JSON schema of a settings file, for editors that check and complete."""
    print(json.dumps(Settings.model_json_schema(), indent=2))

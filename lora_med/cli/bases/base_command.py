"""lora-med base get | list: a small real language model from the Python index, for machines without the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_med.cli.command_groups import CommandGroup
from lora_med.cli.options import AsJson
from lora_med.cli.terminal import console, new_table, print_text
from lora_med.config.near_names import unknown
from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Bases that come in a wheel of the Python index: get one, list them.",
    cls=CommandGroup,
)


@app.command("get")
def get_base(
    name: Annotated[str, typer.Argument(metavar="BASE", help="A name of `lora-med base list`.")],
    archive: Annotated[
        Path | None, typer.Option("--archive", metavar="FILE", help="The wheel, if it is downloaded already.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a base with pip, check its SHA-256 and prepare it; `model.base=NAME` then works offline."""
    prepare_environment(offline=True)
    from lora_med.models.files.resolve import resolve_base
    from lora_med.models.files.wheel_bases import WHEELS, fetch

    if name not in WHEELS:
        raise SettingsError(unknown("base", name, sorted(WHEELS)), where="BASE", fix="lora-med base list")
    wheel = WHEELS[name]
    file = fetch(name, archive)
    folder, _ = resolve_base(name)
    if as_json:
        print_text(json.dumps({"name": name, "file": str(file), "sha256": wheel.sha256, "folder": str(folder)}))
        return
    print_text(f"{name}: {wheel.model}, {wheel.license}, SHA-256 {wheel.sha256[:16]}...")
    print_text(f"file: {file}\nbase: {folder}")
    print_text(f"Next: lora-med train --config quickstart_pubmed model.base={name}")


@app.command("list")
def list_bases(as_json: AsJson = False) -> None:
    """List the bases that `base get` knows, and whether each is on this machine."""
    from lora_med.models.files.wheel_bases import WHEELS, is_fetched, place

    rows = [
        {
            "name": name,
            "here": is_fetched(name),
            "model": wheel.model,
            "license": wheel.license,
            "download_bytes": wheel.wheel_bytes,
            "package": f"{wheel.package}=={wheel.version}",
            "file": str(place(name)) if is_fetched(name) else None,
        }
        for name, wheel in WHEELS.items()
    ]
    if as_json:
        print_text(json.dumps({"bases": rows}))
        return
    table = new_table(("name", "here", "model", "license", "MB to download"), right=("MB to download",))
    for row in rows:
        size = f"{row['download_bytes'] / 1e6:.0f}"
        table.add_row(row["name"], "yes" if row["here"] else "no", row["model"], row["license"], size)
    console().print(table)

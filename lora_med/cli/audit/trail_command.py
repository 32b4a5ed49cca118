"""lora-med audit trail: what was pushed, served and purged, after the chain of the lines was followed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.audit_trail import VARIABLE, read_trail, trail_file
from lora_med.cli.options import AsJson
from lora_med.cli.terminal import cell, console, new_table, print_text
from lora_med.errors import InputMissingError

COMMON = ("previous", "time", "action", "state", "id", "user", "host")


def trail_command(
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"The trail. [default: {VARIABLE}, or the one in your home]", dir_okay=False),
    ] = None,
    last: Annotated[int, typer.Option(metavar="N", min=1, help="Print the last N lines; all are checked.")] = 50,
    holds: Annotated[
        str | None,
        typer.Option(metavar="SHA256", help="A hash noted earlier: no line up to it is missing."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What was pushed, served and purged; refused (76) if a line was changed or removed."""
    path = file if file is not None else trail_file()[0]
    if path is None:
        raise InputMissingError("no audit trail is written here", where=VARIABLE, fix="name one with --file FILE")
    trail = read_trail(path, holds)
    shown = trail.lines[-last:]
    if as_json:
        content = {"file": str(path), "lines": len(trail.lines), "head": trail.head, "unfinished": trail.unfinished}
        print_text(json.dumps({**content, "shown": shown}))
        return
    table = new_table(("time (UTC)", "who", "action", "state", "about"))
    for line in shown:
        who = f"{line.get('user')}@{line.get('host')}"
        fields = (line.get("time"), who, line.get("action"), line.get("state"), _about(line))
        table.add_row(*(cell(str(field)) for field in fields))
    console().print(table)
    found = f"{len(trail.lines):,} lines, none changed or removed before the last"
    print_text(f"{found}; {len(trail.unfinished):,} actions without an end", file=sys.stderr)
    print_text(f"hash of the last line, to note elsewhere: {trail.head}", file=sys.stderr)


def _about(line: Mapping[str, Any]) -> str:
    """What a line says besides who and when: values that are lists or tables as their number of entries."""
    facts = ((key, value) for key, value in line.items() if key not in COMMON and value is not None)
    return ", ".join(f"{key} {len(value) if isinstance(value, dict | list) else value}" for key, value in facts)

"""lora-med merge: fold an adapter into the full-precision original of its base, and prove the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.run import prepare_environment

app = typer.Typer()


@app.command()
def merge(
    name: Annotated[str, typer.Argument(help="the adapter's name in the store")],
    out: Annotated[Path, typer.Option(help="folder of the merged model; must not exist yet, or be empty")],
    base: Annotated[str | None, typer.Option(help="folder, Hub id or micro; without it, what the card names")] = None,
    revision: Annotated[str | None, typer.Option(help="commit, tag or branch of a base on the Hub")] = None,
    store: Annotated[Path, typer.Option(help="the folder of adapters")] = Path("adapters"),
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; without it, the base's own")] = None,
    online: Annotated[bool, typer.Option("--online", help="let the base be loaded from the Hub")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the certificate as one JSON object on stdout")] = False,
) -> None:
    """Merge an adapter into its base: fp32 sums, one rounding, verified against base + adapter before it is kept."""
    prepare_environment(offline=not online)
    from lora_med.merge.export import merge_adapter

    merged = merge_adapter(name, out, base=base, revision=revision, store=store, dtype=dtype)
    if as_json:
        print(json.dumps({"folder": str(merged.folder), **merged.certificate}))
    else:
        _draw(merged.folder, merged.certificate)


def _draw(folder: Path, certificate: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    probe, allowed = certificate["probe"], certificate["tolerance"]
    rows = [
        ("tensors changed", f"{certificate['tensors_changed']} ({certificate['parameters_changed']:,} weights)", ""),
        ("stored as", certificate["dtype"], certificate["arithmetic"]),
        (
            "mean KL",
            f"{probe['mean_kl']:.2g} nats",
            f"allowed {allowed['mean_kl']:.2g}; over {probe['positions']} positions",
        ),
        ("largest KL", f"{probe['largest_kl']:.2g} nats", "at one position"),
        ("largest logit difference", f"{probe['largest_logit_difference']:.2g}", ""),
        ("same first choice", f"{probe['same_first_choice']:.1%}", "of positions"),
        ("adapter's own effect", f"{probe['adapter_effect_kl']:.2g} nats", "mean KL from base + adapter to the base"),
        ("data", f"{certificate['data']['source']}, {certificate['data']['access']}", certificate["data"]["licence"]),
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("merged against base + adapter", "found", "remark"):
        table.add_column(title)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"\nverified and written in {certificate['seconds']} s: {folder}")
    console.print(f'Next: lora-med generate --base {folder} --prompt "..."')

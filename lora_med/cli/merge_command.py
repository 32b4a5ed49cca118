"""lora-med merge: fold an adapter into the full-precision original of its base, and prove the result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    onto: Annotated[
        str, typer.Option(help="original, or dequantized: the base as quantized while the adapter was trained")
    ] = "original",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; without it, the base's own")] = None,
    verify: Annotated[
        str, typer.Option(help="probes (logits), tensors (rows recomputed), none; auto: both if the model fits")
    ] = "auto",
    heldout: Annotated[
        Path | None, typer.Option(help="a text file, a text a line: nll under base + adapter and under the merge")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="let the base be loaded from the Hub")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the certificate as one JSON object on stdout")] = False,
) -> None:
    """Merge an adapter into its base: fp32 sums, one rounding, verified against base + adapter before it is kept."""
    prepare_environment(offline=not online)
    from lora_med.merge.merge import merge_adapter

    with _progress() as progress:
        merged = merge_adapter(
            name,
            out,
            base=base,
            revision=revision,
            store=store,
            onto=onto,
            dtype=dtype,
            verify=verify,
            heldout=heldout,
            progress=progress,
        )
    if as_json:
        print(json.dumps({"folder": str(merged.folder), **merged.certificate}))
    else:
        _draw(merged.folder, merged.certificate)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("writing"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress:
        task = progress.add_task("writing", total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


def _draw(folder: Path, certificate: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("merged against base + adapter", "found", "remark"):
        table.add_column(title)
    for row in _rows(certificate):
        table.add_row(*row)
    console = Console()
    console.print(table)
    proved = " and ".join(certificate["verified_by"])
    console.print(
        f"\n{f'verified by {proved}' if proved else 'NOT verified'}, written in {certificate['seconds']} s: {folder}"
    )
    console.print(f'Next: lora-med generate --base {folder} --prompt "..."')


def _rows(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    probe, allowed, tensors = (certificate[part] for part in ("probe", "tolerance", "tensors"))
    yield "tensors changed", f"{certificate['tensors_changed']} ({certificate['parameters_changed']:,} weights)", ""
    yield "stored as", certificate["dtype"], certificate["arithmetic"]
    if probe is not None:
        positions = f"over {probe['positions']} positions"
        yield "mean KL", f"{probe['mean_kl']:.2g} nats", f"allowed {allowed['mean_kl']:.2g}; {positions}"
        yield "largest KL", f"{probe['largest_kl']:.2g} nats", "at one position"
        yield (
            "largest logit difference",
            f"{probe['largest_logit_difference']:.2g}",
            f"computed in {probe['computed_in']}",
        )
        yield "other first choice", f"{probe['flips']}", positions
        yield (
            "adapter's own effect",
            f"{probe['adapter_effect_kl']:.2g} nats",
            "mean KL from base + adapter to the base",
        )
    if tensors is not None:
        yield "rows computed again", f"{tensors['rows_recomputed']:,}", "in fp64, each within one rounding"
        yield "tensors left alone", f"{tensors['copied']}", "the base's bytes"
        yield (
            "weights rounded back",
            f"{tensors['unchanged']:.1%}",
            "of the adapted layers: moved less than half a step",
        )
    if certificate["heldout"] is not None:
        for name, value in certificate["heldout"]["nll"].items():
            yield f"nll, {name}", f"{value:.4f}", f"nats a token on {certificate['heldout']['texts']} held-out texts"
    data = certificate["data"]
    yield "data", f"{data['source']}, {data['access']}", data["license"]

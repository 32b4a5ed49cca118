"""lora-med merge: fold an adapter into its base in full precision, and prove the result."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lora_med.cli.command_groups import AdapterCommand
from lora_med.cli.options import STORE, AdapterName, AsJson, BaseName, Dtype, NewFolder, Online, Revision, Store
from lora_med.cli.terminal import console, new_table, print_text, progress_bar
from lora_med.run import prepare_environment

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=AdapterCommand)
def merge(
    name: AdapterName,
    out: NewFolder,
    base: BaseName = None,
    revision: Revision = None,
    store: Store = STORE,
    onto: Annotated[
        Literal["original", "dequantized"],
        typer.Option(help="The base's own weights in full, or their values as quantized in training."),
    ] = "original",
    dtype: Dtype = None,
    verify: Annotated[
        Literal["auto", "probes", "tensors", "none"],
        typer.Option(help="Compare logits (probes), or recomputed rows (tensors); auto: both if the model fits."),
    ] = "auto",
    heldout: Annotated[
        Path | None,
        typer.Option(help="A text file, one text a line: compare the loss of base + adapter and of the merge on it."),
    ] = None,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Merge an adapter into its base: fp32 sums, one rounding, verified against base + adapter before it is saved."""
    prepare_environment(offline=not online)
    from lora_med.merge.merge import merge_adapter

    with progress_bar("writing", in_bytes=True) as progress:
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
        print_text(json.dumps({"folder": str(merged.folder), **merged.certificate}))
    else:
        _draw(merged.folder, merged.certificate)


def _draw(folder: Path, certificate: Mapping[str, Any]) -> None:
    table = new_table(("merged against base + adapter", "result", "remark"))
    for row in _rows(certificate):
        table.add_row(*row)
    screen = console()
    screen.print(table)
    proved = " and ".join(certificate["verified_by"])
    screen.print(
        f"\n{f'verified by {proved}' if proved else 'NOT verified'}, written in {certificate['seconds']} s: {folder}"
    )
    from lora_med.prompts.templates.templates import is_chat

    chat = " --chat" if is_chat(str(certificate["adapter"]["template"])) else ""
    screen.print(f'Next: lora-med generate --base {shlex.quote(str(folder))}{chat} --prompt "..."', soft_wrap=True)


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

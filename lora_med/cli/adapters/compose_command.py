"""lora-med adapters adopt|compose|diff: adapters made elsewhere, or of others, and what sets two apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.algebra.diff import Diff, LayerDiff

Store = Annotated[Path, typer.Option(help="the folder that holds the adapters")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
STORE = Path("adapters")
BARS_FIT = 100  # characters a line that leave room for bars beside a layer's whole name


def adopt_command(
    folder: Annotated[Path, typer.Argument(help="a folder that PEFT saved")],
    base: Annotated[str, typer.Option(help="the base it belongs to: folder, Hub id or micro")],
    name: Annotated[str | None, typer.Option(help="its name in the store; without it, the folder's")] = None,
    revision: Annotated[str | None, typer.Option(help="commit, tag or branch of a base on the Hub")] = None,
    store: Store = STORE,
    template: Annotated[str, typer.Option(help="the prompt template it was trained with; text: none")] = "text",
    access: Annotated[
        str | None, typer.Option(help="open, registered or credentialed: the data it learned from; unknown: the last")
    ] = None,
    license: Annotated[str, typer.Option(help="of these data")] = "unknown",
    source: Annotated[str, typer.Option(help="what these data are")] = "unknown",
    trained_on: Annotated[
        str, typer.Option(help="none, 8bit or 4bit: how the base was quantized in training")
    ] = "none",
    description: Annotated[str, typer.Option(help="a sentence for its card")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an adapter of that name")] = False,
    new_base: Annotated[
        Path | None, typer.Option(help="for a resized vocabulary or trained biases: the folder to write their base to")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="let the base be loaded from the Hub")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a PEFT folder into the store: settings and every tensor checked against the base, which its card names."""
    prepare_environment(offline=not online)
    from lora_med.adapters.store.import_peft import Origin, adopt
    from lora_med.merge.rebase import adopt_with_base
    from lora_med.prompts.templates.templates import find_template

    find_template(template)  # what the card names, generate and eval look up
    origin = Origin(template, access or "credentialed", license, source, trained_on, description)
    asked: dict[str, Any] = {"base": base, "name": name or folder.resolve().name.lower(), "revision": revision}
    asked |= {"store": store, "origin": origin, "overwrite": overwrite}
    adopted = adopt(folder, **asked) if new_base is None else adopt_with_base(folder, new_base, **asked)
    remarks = list(adopted.remarks)
    if access is None:
        remarks.append(
            "what it learned from is not known, so it is treated as credentialed; --access open says it is not"
        )
    if as_json:
        print(json.dumps({"folder": str(adopted.folder), "remarks": remarks, "card": adopted.card.as_json()}))
        return
    marks = adopted.card.base.fingerprint
    print(adopted.folder)
    print(f"base  {adopted.card.base.name}: weights {marks.weights[:16]}, tokenizer {marks.tokenizer[:16]}")
    for remark in remarks:
        print(f"note  {remark}")


def compose_command(
    name: Annotated[str, typer.Argument(help="the new adapter's name in the store")],
    parents: Annotated[list[str], typer.Option("--from", help="NAME:WEIGHT of an adapter to combine")],
    others: Annotated[list[str] | None, typer.Argument(help="NAME:WEIGHT of the others", show_default=False)] = None,
    method: Annotated[str, typer.Option(help="linear, svd, concat, ties or dare")] = "linear",
    rank: Annotated[
        int | None, typer.Option(help="of the result; svd, ties and dare: else the parents' largest")
    ] = None,
    density: Annotated[float, typer.Option(help="the share of each change that ties and dare keep")] = 0.5,
    seed: Annotated[int, typer.Option(help="of what dare draws")] = 0,
    base: Annotated[str | None, typer.Option(help="where the base lies, if not where the card says")] = None,
    store: Store = STORE,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an adapter of that name")] = False,
    as_json: AsJson = False,
) -> None:
    """Make one adapter of several by their exact changes to the base, and tell what cutting it to a rank lost."""
    prepare_environment(offline=True)
    from lora_med.adapters.algebra.compose import compose

    named = [_weighted(one) for one in (*parents, *(others or ()))]
    with _progress("layers") as advance:
        made = compose(
            name,
            named,
            method=method,
            rank=rank,
            density=density,
            seed=seed,
            base=base,
            store=store,
            overwrite=overwrite,
            advance=advance,
        )
    if as_json:
        print(json.dumps({"folder": str(made.folder), "error": made.error, "errors": dict(made.errors)}))
        return
    worst = max(made.errors, key=lambda layer: made.errors[layer])
    print(f"{made.folder}\n{made.card.description}; rank {made.card.method['r']}, access {made.card.data.access}")
    print(f"error of the cut: {made.error:.2e} of the whole change; at most {made.errors[worst]:.2e}, in {worst}")


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.partition(":")
    try:
        return name, float(weight or 1)
    except ValueError as error:
        raise SettingsError(f"{weight!r} is no weight", where="--from", fix=f"--from {name}:0.5") from error


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)


def diff_command(
    first: Annotated[str, typer.Argument(help="an adapter's name in the store")],
    second: Annotated[str, typer.Argument(help="another's, of the same base")],
    base: Annotated[str | None, typer.Option(help="where the base lies, if not where the card says (for DoRA)")] = None,
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Show, layer by layer, how much two adapters change the base, how far apart they are, and at what angle."""
    prepare_environment(offline=True)
    from lora_med.adapters.algebra.diff import diff
    from lora_med.adapters.store.store import find_adapter

    found = diff(find_adapter(first, store), find_adapter(second, store), base=base)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    _draw(found)


def _draw(found: Diff) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    drawn = console.width >= BARS_FIT
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True, overflow="fold")
    for title in (found.first, found.second, "difference", "cosine"):
        table.add_column(escape(title), justify="right")
    if drawn:
        table.add_column("difference")
    longest = max((one.difference for one in found.layers), default=0.0) or 1.0
    for one in found.layers:
        bar = ["\u2588" * round(20 * one.difference / longest)] if drawn else []
        table.add_row(*map(escape, _cells(one)), *bar)
    table.add_section()
    table.add_row(*_cells(found.whole))
    console.print(table)
    console.print("\nFrobenius norms of the changes to the base's weights; cosine 1: the same direction, 0: unrelated.")


def _cells(one: LayerDiff) -> tuple[str, str, str, str, str]:
    cosine = "" if one.cosine is None else f"{one.cosine:.3f}"
    return one.layer, f"{one.first:.4g}", f"{one.second:.4g}", f"{one.difference:.4g}", cosine

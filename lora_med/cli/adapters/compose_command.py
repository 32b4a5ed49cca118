"""lora-med adapters adopt|compose|diff: adapters from other tools, combined ones, and how two differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lora_med.cli.command_groups import complete_adapter
from lora_med.cli.options import (
    STORE,
    Access,
    AsJson,
    BaseName,
    Online,
    Overwrite,
    RequiredBase,
    Revision,
    Seed,
    Store,
)
from lora_med.cli.terminal import console, new_table, print_text, progress_bar
from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.adapters.algebra.diff import Diff, LayerDiff

BARS_FIT = 100  # characters in a line that holds a layer's name and a bar


def adopt_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that PEFT or mlx-lm saved.")],
    base: RequiredBase,
    name: Annotated[str | None, typer.Option(help="Its name in the store. [default: the folder's name]")] = None,
    revision: Revision = None,
    store: Store = STORE,
    template: Annotated[str, typer.Option(help="The prompt template it was trained with; `text` is none.")] = "text",
    access: Access = None,
    license: Annotated[str, typer.Option(help="The license of the training data.")] = "unknown",
    training_data: Annotated[str, typer.Option(help="The name of the training data.")] = "unknown",
    trained_on: Annotated[
        Literal["none", "8bit", "4bit"], typer.Option(help="How the base was quantized in training.")
    ] = "none",
    description: Annotated[str, typer.Option(help="A sentence for its card.")] = "",
    overwrite: Overwrite = False,
    new_base: Annotated[
        Path | None, typer.Option(help="With a resized vocabulary or trained biases: the folder to write its base to.")
    ] = None,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Import a folder of PEFT or mlx-lm: check its settings and every tensor against the base, and write its card."""
    prepare_environment(offline=not online)
    from lora_med.adapters.foreign.import_peft import Origin, adopt
    from lora_med.merge.rebase import adopt_with_base
    from lora_med.prompts.templates.templates import find_template

    find_template(template)  # refuses an unknown name: generate and eval look up the template of the card
    origin = Origin(
        template=template,
        access=access or "credentialed",
        license=license,
        source=training_data,
        trained_on=trained_on,
        description=description,
    )
    options: dict[str, Any] = {"base": base, "name": name or folder.resolve().name.lower(), "revision": revision}
    options |= {"store": store, "origin": origin, "overwrite": overwrite}
    adopted = adopt(folder, **options) if new_base is None else adopt_with_base(folder, new_base, **options)
    remarks = list(adopted.remarks)
    if access is None:
        remarks.append(
            "its training data is unknown, so it is treated as credentialed; `--access open` declares it open"
        )
    if as_json:
        print_text(json.dumps({"folder": str(adopted.folder), "remarks": remarks, "card": adopted.card.as_json()}))
        return
    prints = adopted.card.base.fingerprint
    print_text(adopted.folder)
    print_text(f"base  {adopted.card.base.name}: weights {prints.weights[:16]}, tokenizer {prints.tokenizer[:16]}")
    for remark in remarks:
        print_text(f"note  {remark}")


def compose_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new adapter's name in the store.")],
    parents: Annotated[
        list[str], typer.Option("--from", metavar="NAME:WEIGHT", help="An adapter to combine, with its weight.")
    ],
    others: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME:WEIGHT]...", help="The other adapters.", show_default=False)
    ] = None,
    method: Annotated[
        Literal["linear", "svd", "concat", "ties", "dare"], typer.Option(help="How to combine.")
    ] = "linear",
    rank: Annotated[
        int | None,
        typer.Option(help="Rank of the result, for svd, ties and dare. [default: the largest of the parents]"),
    ] = None,
    density: Annotated[float, typer.Option(help="The share of each change that ties and dare keep.")] = 0.5,
    seed: Seed = 0,
    base: BaseName = None,
    store: Store = STORE,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Combine adapters by their exact changes to the base, and report the error of reducing the result to a rank."""
    prepare_environment(offline=True)
    from lora_med.adapters.algebra.compose import compose

    weighted = [_weighted(parent) for parent in (*parents, *(others or ()))]
    with progress_bar("layers") as advance:
        made = compose(
            name,
            weighted,
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
        print_text(json.dumps({"folder": str(made.folder), "error": made.error, "errors": dict(made.errors)}))
        return
    worst = max(made.errors, key=lambda layer: made.errors[layer])
    print_text(f"{made.folder}\n{made.card.description}; rank {made.card.method['r']}, access {made.card.data.access}")
    share = f"{made.error:.2e} of the complete change; at most {made.errors[worst]:.2e}, in {worst}"
    print_text(f"error of the rank reduction: {share}")


def _weighted(text: str) -> tuple[str, float]:
    name, _, weight = text.partition(":")
    try:
        return name, float(weight or 1)
    except ValueError as error:
        raise SettingsError(f"{weight!r} is not a weight", where="--from", fix=f"--from {name}:0.5") from error


def diff_command(
    first: Annotated[
        str, typer.Argument(metavar="FIRST", help="An adapter's name in the store.", autocompletion=complete_adapter)
    ],
    second: Annotated[
        str, typer.Argument(metavar="SECOND", help="Another's name, of the same base.", autocompletion=complete_adapter)
    ],
    base: BaseName = None,
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Show, layer by layer, how much two adapters change the base, how large their difference is, and at what angle."""
    prepare_environment(offline=True)
    from lora_med.adapters.algebra.diff import diff
    from lora_med.adapters.store.store import find_adapter

    difference = diff(find_adapter(first, store), find_adapter(second, store), base=base)
    print_text(json.dumps(asdict(difference))) if as_json else _draw(difference)


def _draw(diff: Diff) -> None:
    from rich.markup import escape

    screen = console()
    has_bars = screen.width >= BARS_FIT
    numbers = tuple(map(escape, (diff.first, diff.second, "difference", "cosine")))
    table = new_table(("layer", *numbers), right=numbers)
    if has_bars:
        table.add_column("difference")
    longest = max((layer.difference for layer in diff.layers), default=0.0) or 1.0
    for layer in diff.layers:
        bar = ["\u2588" * round(20 * layer.difference / longest)] if has_bars else []
        table.add_row(*map(escape, _cells(layer)), *bar)
    table.add_section()
    table.add_row(*_cells(diff.whole))
    screen.print(table)
    screen.print("\nFrobenius norms of the changes to the base's weights; cosine 1: the same direction, 0: unrelated.")


def _cells(layer: LayerDiff) -> tuple[str, str, str, str, str]:
    cosine = "" if layer.cosine is None else f"{layer.cosine:.3f}"
    return layer.layer, f"{layer.first:.4g}", f"{layer.second:.4g}", f"{layer.difference:.4g}", cosine

"""lora-med adapters adopt: an adapter made elsewhere, checked and taken into the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lora_med.run import prepare_environment

Store = Annotated[Path, typer.Option(help="the folder that holds the adapters")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
STORE = Path("adapters")


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
    licence: Annotated[str, typer.Option(help="of these data")] = "unknown",
    source: Annotated[str, typer.Option(help="what these data are")] = "unknown",
    trained_on: Annotated[
        str, typer.Option(help="none, 8bit or 4bit: how the base was quantised in training")
    ] = "none",
    description: Annotated[str, typer.Option(help="a sentence for its card")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an adapter of that name")] = False,
    online: Annotated[bool, typer.Option("--online", help="let the base be loaded from the Hub")] = False,
    as_json: AsJson = False,
) -> None:
    """Take a PEFT folder into the store: settings and every tensor checked against the base, which its card names."""
    prepare_environment(offline=not online)
    from lora_med.adapters.adopt import adopt

    adopted = adopt(
        folder,
        base=base,
        name=name or folder.resolve().name.lower(),
        revision=revision,
        store=store,
        template=template,
        access=access or "credentialed",
        licence=licence,
        source=source,
        trained_on=trained_on,
        description=description,
        overwrite=overwrite,
    )
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

"""lora-med sign keys | add | check | bill: who vouches for an adapter, a merged model, an export or a report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_med.cli.options import STORE, AsJson, Store
from lora_med.cli.terminal import print_text
from lora_med.files import atomic_stream
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.signatures import SignedFolder

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
Target = Annotated[
    str, typer.Argument(metavar="FOLDER|NAME", help="A folder that lora-med made, or an adapter's name in the store.")
]


@app.command()
def keys(
    private: Annotated[Path, typer.Argument(metavar="PRIVATE.pem", help="Where the private key goes; keep it.")],
    public: Annotated[Path, typer.Argument(metavar="PUBLIC.pem", help="Where the public key goes; hand it out.")],
) -> None:
    """Write a new pair of Ed25519 keys; existing files are never replaced."""
    from lora_med.signatures import new_keys

    print_text(f"key {new_keys(private, public)[:16]}: keep {private}, and hand out {public}")


@app.command()
def add(
    target: Target,
    key: Annotated[Path, typer.Option(metavar="PRIVATE.pem", help="Your private key.")],
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Sign all files of a folder, or add a signature to those of others; exit 76 if a signed file has changed."""
    prepare_environment(offline=True)
    from lora_med.signatures import sign

    folder = _folder(target, store)
    _print(folder, sign(folder, key), as_json)


@app.command()
def check(
    target: Target,
    key: Annotated[Path, typer.Option(metavar="PUBLIC.pem", help="The public key of the signer.")],
    store: Store = STORE,
    as_json: AsJson = False,
) -> None:
    """Hash all files of a folder and check the signature; exit 76 with the name of what was changed."""
    prepare_environment(offline=True)
    from lora_med.signatures import check_signature

    folder = _folder(target, store)
    _print(folder, check_signature(folder, key), as_json)


@app.command()
def bill(
    target: Target,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the bill goes. [default: standard output]")
    ] = None,
    store: Store = STORE,
) -> None:
    """Write a software bill of materials (CycloneDX): the model's files, its base, and the packages that made it."""
    prepare_environment(offline=True)
    from lora_med.export.bill_of_materials import bill_of_materials

    content = bill_of_materials(_folder(target, store))
    if out is None:
        print_text(content.rstrip())
        return
    with atomic_stream(out) as stream:
        stream.write(content.encode())


def _folder(target: str, store: Path) -> Path:
    """The folder of that name, else the adapter of the store."""
    from lora_med.adapters.store.store import find_adapter

    path = Path(target)
    return path if path.is_dir() else find_adapter(target, store)


def _print(folder: Path, signed: SignedFolder, as_json: bool) -> None:
    if as_json:
        print_text(json.dumps({"folder": str(folder), **asdict(signed)}))
        return
    print_text(
        f"{signed.kind} {folder.name}: {len(signed.files)} files signed {signed.signed}, key {signed.key_id[:16]}"
    )

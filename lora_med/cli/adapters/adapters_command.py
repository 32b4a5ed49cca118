"""lora-med adapters list|show|verify|check|adopt|compose|diff|push|remove: what is in the store, and is it whole?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.cli.adapters.check_command import check_command
from lora_med.cli.adapters.compose_command import adopt_command, compose_command, diff_command
from lora_med.errors import IntegrityError, SettingsError
from lora_med.run import prepare_environment

app = typer.Typer(
    help="The adapters in the store: list, show, verify, check, adopt, compose, diff, push, remove.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="the adapter's name in the store")]
Store = Annotated[Path, typer.Option(help="the folder that holds the adapters")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
STORE = Path("adapters")
app.command("adopt")(adopt_command)
app.command("compose")(compose_command)
app.command("diff")(diff_command)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


@app.command("list")
def list_command(store: Store = STORE, as_json: AsJson = False) -> None:
    """List the published adapters: base, template, method, size, access class, date."""
    from lora_med.adapters.store.card import Card
    from lora_med.adapters.store.store import cards

    rows: list[dict[str, Any]] = []
    for name, card in cards(store).items():
        row: dict[str, Any] = {"name": name, "bytes": _size(store / name)}
        if isinstance(card, Card):
            row |= {"base": card.base.name, "template": card.template, "access": card.data.access}
            row |= {"rank": card.method.get("r"), "created": card.created}
        else:
            row["error"] = card.what
        rows.append(row)
    if as_json:
        print(json.dumps({"store": str(store), "adapters": rows}))
        return
    if not rows:
        print(f"no adapters in {store}; recipes/sft_pubmed.py trains one")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "base", "template", "rank", "size", "access", "published"):
        table.add_column(title, justify="right" if title in ("rank", "size") else "left")
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        if "error" in row:
            table.add_row(row["name"], f"[red]{escape(row['error'])}[/]", "", "", size, "", "")
        else:
            cells = (row["name"], row["base"], row["template"], str(row["rank"]), size, row["access"], row["created"])
            table.add_row(*map(escape, cells))
    Console().print(table)


@app.command()
def show(name: Name, store: Store = STORE, as_json: AsJson = False) -> None:
    """Show the card of one adapter: base, method, data, settings, scores, versions, files."""
    import yaml

    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter

    value = read_card(find_adapter(name, store)).as_json()
    print(json.dumps(value) if as_json else yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())


@app.command()
def verify(
    name: Name,
    store: Store = STORE,
    base: Annotated[str | None, typer.Option(help="where the base lies, if not where the card says")] = None,
    as_json: AsJson = False,
) -> None:
    """Compute hashes, tensors and the base's fingerprint again; exit 76 if anything is not as published."""
    prepare_environment(offline=True)
    from lora_med.adapters.store.store import find_adapter
    from lora_med.adapters.store.verify import verify as verify_adapter

    folder = find_adapter(name, store)
    found = verify_adapter(folder, base)
    if as_json:
        print(json.dumps({"name": found.name, "whole": found.whole, "checks": [asdict(one) for one in found.checks]}))
    else:
        marks = {"ok": "ok     ", "wrong": "WRONG  ", "skipped": "skipped"}
        for check in found.checks:
            print(f"{marks[check.outcome]}  {check.what:<8}  {check.detail}")
    if not found.whole:
        wrong = [check.what for check in found.checks if check.outcome == "wrong"]
        raise IntegrityError(
            f"adapter {name!r} is not as it was published: {', '.join(wrong)}",
            where=str(folder),
            fix="copy it again from where it came, or train it again",
        )


app.command("check")(check_command)


@app.command()
def push(
    name: Name,
    repo: Annotated[str, typer.Argument(help="the Hub repository, such as your-name/pubmed-micro")],
    store: Store = STORE,
    public: Annotated[bool, typer.Option("--public", help="make it public; private otherwise")] = False,
    permission: Annotated[str | None, typer.Option(help="of credentialed data: who allows it, in writing")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload an adapter's four files to the Hub; refused (77) for credentialed data without a permission."""
    prepare_environment(offline=False)
    from lora_med.adapters.store.push import push as push_adapter
    from lora_med.adapters.store.store import find_adapter

    address = push_adapter(find_adapter(name, store), repo, private=not public, permission=permission)
    print(json.dumps({"name": name, "address": address, "private": not public}) if as_json else address)


@app.command()
def remove(
    name: Name,
    store: Store = STORE,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete an adapter from the store."""
    from lora_med.adapters.store.store import find_adapter
    from lora_med.adapters.store.store import remove as remove_adapter

    folder = find_adapter(name, store)
    if not yes and not _confirmed(f"Delete {folder}?"):
        raise SettingsError(f"{name!r} was not removed", fix="answer y, or pass --yes")
    remove_adapter(name, store)
    print(json.dumps({"removed": name}) if as_json else f"removed {folder}")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # no answer is to be had: the end of what comes in, or Ctrl-C
        return False

"""lora-med adapters list|show|verify|check|adopt|compose|diff|push|remove: the adapters of the store."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_med.cli.adapters.check_command import check_command
from lora_med.cli.adapters.compose_command import adopt_command, compose_command, diff_command
from lora_med.cli.command_groups import AdapterCommand, CommandGroup
from lora_med.cli.options import STORE, AcceptMemorization, AdapterName, AsJson, BaseName, Permission, Store, Yes
from lora_med.cli.terminal import console, new_table, print_text
from lora_med.errors import IntegrityError, SettingsError
from lora_med.run import prepare_environment

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="The adapters in the store: list, show, verify, check, adopt, compose, diff, push, remove.",
    cls=CommandGroup,
)
app.command("adopt")(adopt_command)
app.command("compose")(compose_command)
app.command("diff")(diff_command)


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:  # it may not be read; the row of the list says so
        return 0


def _on_validation(comparison: dict[str, Any] | None) -> str:
    """A cell of the list: the verdict, and the two values that it compares."""
    if comparison is None:
        return ""
    text = f"{comparison['verdict']}: {comparison['value']:.2f} against {comparison['start']:.2f}"
    return f"[red]{text}[/]" if comparison["verdict"] == "worse" else text


@app.command("list")
def list_command(store: Store = STORE, as_json: AsJson = False) -> None:
    """List the published adapters: base, template, method, size, access class, date."""
    from lora_med.adapters.store.card import Card
    from lora_med.adapters.store.on_validation import OnValidation
    from lora_med.adapters.store.store import cards

    rows: list[dict[str, Any]] = []
    for name, card in cards(store).items():
        row: dict[str, Any] = {"name": name, "bytes": _size(store / name)}
        if isinstance(card, Card):
            row |= {"base": card.base.name, "template": card.template, "access": card.data.access}
            row |= {"rank": card.method.get("r"), "created": card.created}
            comparison = OnValidation.of(card.scores)
            row["validation"] = asdict(comparison) if comparison is not None else None
        else:
            row["error"] = card.what
            row["where"] = card.where
        rows.append(row)
    if as_json:
        print_text(json.dumps({"store": str(store), "adapters": rows}))
        return
    if not rows:
        print_text(f"no adapters in {store}; `lora-med train --config quickstart_pubmed` trains one")
        return
    from rich.markup import escape

    titles = ("name", "base", "template", "rank", "size", "access", "published", "on validation")
    table = new_table(titles, right=("rank", "size"))
    for row in rows:
        size = f"{row['bytes'] / 1e6:.1f} MB"
        if "error" in row:
            table.add_row(row["name"], f"[red]{escape(row['error'])}[/]", "", "", size, "", "", "")
        else:
            cells = (row["name"], row["base"], row["template"], str(row["rank"]), size, row["access"], row["created"])
            table.add_row(*map(escape, cells), _on_validation(row["validation"]))
    console().print(table)


@app.command(cls=AdapterCommand)
def show(name: AdapterName, store: Store = STORE, as_json: AsJson = False) -> None:
    """Show the card of one adapter: base, method, data, settings, scores, versions, files."""
    import yaml

    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter

    value = read_card(find_adapter(name, store)).as_json()
    print_text(json.dumps(value) if as_json else yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())


@app.command(cls=AdapterCommand)
def verify(
    name: AdapterName,
    store: Store = STORE,
    base: BaseName = None,
    key: Annotated[
        Path | None, typer.Option(metavar="PUBLIC.pem", help="The public key that must have signed the adapter.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute hashes, tensors and the base's fingerprint again; exit 76 if anything is not as published."""
    prepare_environment(offline=True)
    from lora_med.adapters.store.store import find_adapter
    from lora_med.adapters.store.verify import verify as verify_adapter

    folder = find_adapter(name, store)
    report = verify_adapter(folder, base, key)
    wrong = [check.what for check in report.checks if check.outcome == "wrong"]
    error = IntegrityError(
        f"adapter {name!r} is not as it was published: {', '.join(wrong)}",
        where=str(folder),
        fix="copy it again from its source, or train it again",
    )
    if as_json:
        content = {"name": report.name, "whole": report.intact, "checks": [asdict(check) for check in report.checks]}
        print_text(json.dumps(content if report.intact else content | error.as_json()))
        if not report.intact:
            print_text(error, file=sys.stderr)
            raise typer.Exit(error.exit_code)
    else:
        marks = {"ok": "ok     ", "wrong": "WRONG  ", "skipped": "skipped"}
        for check in report.checks:
            print_text(f"{marks[check.outcome]}  {check.what:<8}  {check.detail}")
        if not report.intact:
            raise error


app.command("check", cls=AdapterCommand)(check_command)


@app.command(cls=AdapterCommand)
def push(
    name: AdapterName,
    repo: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="The Hub repository, such as your-name/pubmed-micro.")
    ],
    store: Store = STORE,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public. [default: private]")] = False,
    permission: Permission = None,
    accept_memorization: AcceptMemorization = None,
    as_json: AsJson = False,
) -> None:
    """Upload an adapter's files to the Hub; refused (77) for credentialed data, or above the bound of its audit."""
    prepare_environment(offline=False)
    from lora_med.adapters.store.push import push as push_adapter
    from lora_med.adapters.store.store import find_adapter

    folder = find_adapter(name, store)
    address = push_adapter(
        folder, repo, private=not public, permission=permission, accept_memorization=accept_memorization
    )
    print_text(json.dumps({"name": name, "address": address, "private": not public}) if as_json else address)


@app.command(cls=AdapterCommand)
def remove(
    name: AdapterName,
    store: Store = STORE,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete an adapter from the store."""
    from lora_med.adapters.store.store import find_adapter
    from lora_med.adapters.store.store import remove as remove_adapter

    folder = find_adapter(name, store)
    if not yes and not _confirmed(f"Delete {folder}?"):
        raise SettingsError(f"{name!r} was not removed", fix="answer y, or pass --yes")
    remove_adapter(name, store)
    print_text(json.dumps({"removed": name}) if as_json else f"removed {folder}")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # standard input has ended, or Ctrl-C
        return False

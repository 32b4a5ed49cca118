"""lora-med data list|read|check|preview: the sources, their records as JSON lines, and what a run would train on."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.config.parse import parse
from lora_med.errors import NotPermittedError, SettingsError
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.data.record import Record

app = typer.Typer(help="Data: the sources there are, their records, what a run would train on.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Config = Annotated[Path | None, typer.Option(help="the YAML; without it, the defaults")]
Overrides = Annotated[list[str] | None, typer.Argument(help="section.key=value, winning over the file")]
PREVIEWED_RECORDS = 200  # read for a preview: enough that some of each split are there


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the sources: what each reads, into which kinds of record, licence, access class, default template."""
    from lora_med.data.catalog import SOURCES

    rows: list[dict[str, Any]] = [
        {**asdict(source), "kinds": [kind.__name__.lower() for kind in source.kinds]} for source in SOURCES.values()
    ]
    if as_json:
        print(json.dumps({"sources": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("source", "reads", "records", "template", "access", "licence"):
        table.add_column(title)
    for row in rows:
        kinds = ", ".join(row["kinds"])
        table.add_row(row["name"], row["summary"], kinds, row["template"], row["access"], row["licence"])
    Console().print(table)


def _columns(mappings: Iterable[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for mapping in mappings:
        field, sign, column = mapping.partition("=")
        if not (sign and field and column):
            raise SettingsError(
                f"{mapping!r} is not of the form field=column", where="--column", fix="for example --column text=note"
            )
        columns[field] = column
    return columns


@app.command("read")
def read_command(
    source: Annotated[str, typer.Argument(help="the source's name; `lora-med data list` shows them")],
    paths: Annotated[list[str], typer.Argument(help="files, folders, glob patterns, or a Hub data set id")],
    out: Annotated[Path, typer.Option(help="the JSON lines file to write")],
    column: Annotated[list[str] | None, typer.Option(help="field=column, for the source custom; repeatable")] = None,
    hub_split: Annotated[str, typer.Option(help="for a Hub data set: the split to read")] = "train",
    keep_retracted: Annotated[bool, typer.Option(help="keep retracted articles")] = False,
    max_records: Annotated[int | None, typer.Option(min=1, help="write at most this many")] = None,
    skip_bad: Annotated[bool, typer.Option(help="skip and count what is bad instead of stopping")] = False,
    online: Annotated[bool, typer.Option(help="let the Hub be asked")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a source and write its records as JSON lines, whole or not at all; print what was read, kept and dropped."""
    prepare_environment(offline=not online)
    from lora_med.data.catalog import find_source
    from lora_med.data.lines import as_line
    from lora_med.data.outcome import ReadOptions
    from lora_med.data.reading import find_inputs, read_records
    from lora_med.files import atomic_stream

    found = find_source(source)
    inputs = find_inputs(found, paths, hub_split)
    options = ReadOptions(_columns(column or ()), keep_retracted, streaming=True)
    reading = read_records(found, inputs, options, skip_bad=skip_bad, limit=max_records)
    with atomic_stream(out) as stream:
        for record in _with_progress(reading, found.name):
            stream.write(as_line(record))
    tally = reading.tally
    summary: dict[str, Any] = {"read": tally.read, "kept": tally.kept, "dropped": tally.dropped}
    if found.name == "pubmed":  # versions of one article are one, and a deleted one is none
        gone = sum(tally.dropped.get(reason, 0) for reason in ("superseded", "deleted", "bad"))
        summary["articles"] = tally.read - gone
    if as_json:
        print(json.dumps(summary | {"out": str(out)}))
        return
    articles = f" ({summary['articles']:,} articles)" if "articles" in summary else ""
    print(f"{tally}{articles}\n{out}")


def _with_progress(records: Iterable[Record], name: str) -> Iterator[Record]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,.0f} records"), TimeElapsedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress:
        task = progress.add_task(name, total=None)
        for number, record in enumerate(records, 1):
            if number % 100 == 0:
                progress.update(task, completed=number)
            yield record


@app.command("check")
def check_command(overrides: Overrides = None, config: Config = None, as_json: AsJson = False) -> None:
    """Read a run's data in full, as the run would: counts, how it is split, and whether the parts are apart."""
    settings = parse(config, overrides or [])
    prepare_environment(settings.offline)
    from lora_med.data.corpus import survey

    found = survey(settings.data)
    if as_json:
        print(json.dumps(asdict(found)))
        return
    sizes = ", ".join(f"{part} {size:,}" for part, size in found.sizes.items())
    print(f"source    {found.source}: {', '.join(found.inputs)}")
    print(f"records   {found.tally}")
    print(f"parts     {sizes}; no group stands in two")
    print(f"split     {found.split}")
    print(f"template  {found.template}")


@app.command("preview")
def preview_command(
    overrides: Overrides = None,
    config: Config = None,
    rows: Annotated[int, typer.Option(min=1, help="how many rows to show")] = 3,
    as_json: AsJson = False,
) -> None:
    """Show training rows as the model will see them, the trained tokens in colour."""
    settings = parse(config, overrides or [])
    prepare_environment(settings.offline)
    from lora_med.data.corpus import open_corpus
    from lora_med.models.resolve import resolve_base
    from lora_med.models.tokenizer import load_tokenizer
    from lora_med.prompts.render import render
    from lora_med.prompts.tokens import tokenise_rows

    limit = min(settings.data.max_records or PREVIEWED_RECORDS, PREVIEWED_RECORDS)
    corpus = open_corpus(settings.data.model_copy(update={"max_records": limit, "streaming": False}))
    if corpus.access == "credentialed" or settings.adapter.access == "credentialed":
        raise NotPermittedError(
            "rows of a credentialed source are not shown", where="data.source", fix="lora-med data check shows counts"
        )
    template = settings.data.template or corpus.source.template
    rendered = render(list(corpus.train)[:rows], template)
    tokenizer, _ = load_tokenizer(resolve_base(settings.model.base, settings.model.revision)[0])
    shown = tokenise_rows(rendered, tokenizer)
    if as_json:
        print(json.dumps({"template": template, "rows": [_spelled(tokens, tokenizer) for tokens in shown]}))
        return
    from rich.console import Console

    from lora_med.training.preflight import colour_row

    console = Console()
    console.print(f"template {template}; trained tokens in colour\n", style="bold")
    for tokens in shown:
        console.print(colour_row(tokens, tokenizer), end="\n\n")


def _spelled(tokens: Any, tokenizer: Any) -> dict[str, Any]:
    pairs = list(zip(tokens.input_ids, tokens.trained, strict=True))
    return {
        "uid": tokens.uid,
        "tokens": len(pairs),
        "trained_tokens": sum(tokens.trained),
        "given": tokenizer.decode([number for number, trained in pairs if not trained]),
        "trained": tokenizer.decode([number for number, trained in pairs if trained]),
    }

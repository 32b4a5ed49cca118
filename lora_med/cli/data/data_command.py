"""lora-med data list|templates|get|read|blocklist|...: the sources there are, how to obtain and read them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from lora_med.cli.command_groups import CommandGroup
from lora_med.cli.data.column_option import AnswerForm, Columns, IgnoreColumns, own_rows_options
from lora_med.cli.data.deidentify_command import deidentify_command, purge_command
from lora_med.cli.data.output_file import check_no_input, check_output
from lora_med.cli.data.pairs_command import pairs_command
from lora_med.cli.data.preview_command import check_command, preview_command
from lora_med.cli.data.read_report import print_counts
from lora_med.cli.data.stdin import StdinName, spooled
from lora_med.cli.options import (
    AsJson,
    DataAccess,
    Delimiter,
    Encoding,
    Online,
    OutFile,
    OutFolder,
    Paths,
    Sheet,
    SkipBad,
    Source,
    SourceName,
)
from lora_med.cli.terminal import console, new_table, print_text, progress_bar
from lora_med.errors import SettingsError
from lora_med.run import prepare_environment

Item = TypeVar("Item")
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="List sources, read their records, check and preview what a run trains on.",
    cls=CommandGroup,
)
app.command("check")(check_command)
app.command("preview")(preview_command)
app.command("deidentify")(deidentify_command)
app.command("purge")(purge_command)
app.command("pairs")(pairs_command)


@app.command("list")
def list_command(as_json: AsJson = False) -> None:
    """List the sources: what each reads, into which kinds of record, license, access class, default template."""
    from lora_med.data.catalog import SOURCES

    rows = [source.as_json() for source in SOURCES.values()]
    if as_json:
        print_text(json.dumps({"sources": rows}))
        return
    _print_table(
        ("source", "reads", "records", "template", "access", "license"),
        [
            (
                row["name"],
                row["summary"],
                ", ".join(row["kinds"]),
                row["template"],
                row["access"] or "yours",
                row["license"],
            )
            for row in rows
        ],
    )


@app.command("read")
def read_command(
    source: SourceName,
    paths: Paths,
    out: OutFile,
    column: Columns = None,
    access: DataAccess = None,
    ignore_column: IgnoreColumns = None,
    answer_form: AnswerForm = None,
    stdin_filename: StdinName = None,
    hub_split: Annotated[str, typer.Option(help="For a Hub data set: the split to read.")] = "train",
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    keep_retracted: Annotated[bool, typer.Option(help="Keep retracted articles.")] = False,
    max_records: Annotated[int | None, typer.Option(min=1, help="Write at most this many records.")] = None,
    skip_bad: SkipBad = False,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Read a source and write its records as JSON lines, all or nothing; print the counts read, kept and dropped."""
    prepare_environment(offline=not online)
    from lora_med.data.access import CREDENTIALED, ask, handled_as
    from lora_med.data.catalog import find_source
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.formats.jsonl import as_line
    from lora_med.data.outcome import TableFormat
    from lora_med.data.reading import read_records
    from lora_med.data.scanning.record_lines import RecordLines, is_worth_processes
    from lora_med.data.shapes.columns.accounting import check_ignored, columns_report
    from lora_med.files import BLOCK_BYTES, atomic_stream, make_private

    row = find_source(source)
    check_output([out], row, paths, hub_split)
    with spooled(paths, stdin_filename, row.suffixes[0], out) as names:
        inputs = find_inputs(row, names, hub_split)
        own = own_rows_options(column, ignore_column, answer_form, TableFormat(encoding, delimiter, sheet))
        options = replace(own, keep_retracted=keep_retracted)
        common = {"skip_bad": skip_bad, "access": access}
        is_private = handled_as(options.access_of(row.access, access)) == CREDENTIALED
        with atomic_stream(out, private=is_private) as stream:
            if max_records is None and is_worth_processes(row, inputs):
                reading = RecordLines(row, inputs, options, **common)
                for lines in _with_progress(reading, row.name, "files"):
                    with lines.open("rb") as content:
                        shutil.copyfileobj(content, stream, BLOCK_BYTES)
            else:
                reading = read_records(row, inputs, options, limit=max_records, **common)
                for record in _with_progress(reading, row.name, "records"):
                    # Rows may say that they came from such a source, before the first of them is written.
                    if not is_private and options.access_of(row.access, access) == CREDENTIALED:
                        make_private(stream)
                        is_private = True
                    stream.write(as_line(record))
            if max_records is None:
                check_ignored(options)
    found = options.access_of(row.access, access)
    if found is None:
        ask(row.name, "--access ")
    more = {"access": found} if row.access is None else {}  # null until it is stated
    print_counts(row, reading.tally, columns_report(options.notes), more, out, as_json=as_json)


def _with_progress(items: Iterable[Item], name: str, unit: Literal["records", "files"]) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(f"{{task.description}} {{task.completed:,.0f}} {unit}"), TimeElapsedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as progress:
        task = progress.add_task(name, total=None)
        for number, item in enumerate(items, 1):
            if unit == "files" or number % 100 == 0:
                progress.update(task, completed=number)
            yield item


@app.command("templates")
def templates_command(as_json: AsJson = False) -> None:
    """List the prompt templates: what each takes and writes, what a record needs, how a row too long is fitted."""
    from lora_med.prompts.templates.templates import TEMPLATES

    rows = [
        {
            "name": template.name,
            "takes": template.takes.__name__.lower(),
            "writes": template.summary,
            "needs": template.needs,
            "too_long": list(template.too_long),
        }
        for template in TEMPLATES.values()
    ]
    if as_json:
        print_text(json.dumps({"templates": rows}))
        return
    _print_table(
        ("template", "takes", "writes", "needs", "too long"),
        [(row["name"], row["takes"], row["writes"], row["needs"], ", ".join(row["too_long"])) for row in rows],
    )


@app.command("get")
def get_command(
    source: SourceName,
    out: OutFolder = Path("data"),
    download: Annotated[
        bool, typer.Option("--download", help="Download the open files and check their SHA-256.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how to obtain a source; with --download fetch its open files and check them."""
    from lora_med.data.catalog import find_source
    from lora_med.data.download import HOWTOS

    row = find_source(source)
    obtain = HOWTOS[source]
    files = _downloaded(obtain.files, out / source) if download else []
    if as_json:
        urls = [remote.url for remote in obtain.files]
        print_text(
            json.dumps(
                {
                    "source": source,
                    "access": row.access,
                    "license": row.license,
                    "how": obtain.how,
                    "urls": urls,
                    "files": files,
                }
            )
        )
        return
    print_text(f"{row.summary}\naccess   {row.access or 'yours to state'}\nlicense  {row.license}")
    print_text(f"cite     {row.citation}\n\n{obtain.how}")
    for remote in obtain.files:
        print_text(f"  {remote.url}")
    if files:
        print_text("\n".join(files))
    elif obtain.files:
        print_text(f"lora-med data get {source} --download fetches the above")


def _downloaded(remotes: Iterable[Any], folder: Path) -> list[str]:
    from lora_med.data.download import download

    paths: list[str] = []
    for remote in remotes:
        with progress_bar(remote.name, in_bytes=True) as progress:
            paths.append(str(download(remote, folder, progress)))
    return paths


@app.command("blocklist")
def blocklist_command(
    out: OutFile,
    source: Source = None,
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files of the source; without --source, files of one PMID a line.")
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    access: DataAccess = None,
    as_json: AsJson = False,
) -> None:
    """Write a block-list: the hashed identifiers of a test set, for data.block_lists to keep out of training."""
    from lora_med.data.access import CREDENTIALED, ask, handled_as
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.outcome import ReadOptions, TableFormat
    from lora_med.data.reading import read_records
    from lora_med.data.splitting.block_lists import identifiers_of, write_block_list

    is_private = False
    if source is None:
        check_no_input(out, paths or [])
        identifiers = _pmids(paths or [])
    else:
        from lora_med.data.catalog import find_source

        row = find_source(source)
        table = TableFormat(encoding, delimiter, sheet)
        options = ReadOptions(streaming=True, stops_at_columns=False, table=table)
        check_output([out], row, paths or [])
        records = read_records(row, find_inputs(row, paths or []), options)
        identifiers = [name for record in records for name in identifiers_of(record)]
        found = options.access_of(row.access, access)
        is_private = handled_as(found) == CREDENTIALED
        if found is None:
            ask(row.name, "--access ")
    names = ", ".join(Path(path).name for path in paths or [])
    count = write_block_list(out, identifiers, f"{out.name.removesuffix('.txt')}: {names}", private=is_private)
    print_text(json.dumps({"out": str(out), "ids": count}) if as_json else f"{count:,} identifiers\n{out}")


def _pmids(paths: Iterable[str]) -> list[str]:
    from lora_med.data.splitting.block_lists import PMID
    from lora_med.errors import DataError, InputMissingError

    pmids: list[str] = []
    for path in paths:
        if not Path(path).is_file():
            raise InputMissingError(f"no such file: {path}", fix="name a file of one PMID a line")
        for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            name = line.strip().removeprefix("pmid:")
            if name and not PMID.fullmatch(name):
                raise DataError("expected one PMID a line", where=f"{path}:{number}", fix="remove all other lines")
            pmids += [f"pmid:{name}"] if name else []
    if not pmids:
        raise SettingsError(
            "no identifier to list", where="the command line", fix="name files, or --source with its files"
        )
    return pmids


def _print_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    table = new_table(titles)
    for row in rows:
        table.add_row(*row)
    console().print(table)

"""lora-med data deidentify|purge: identifiers made tags, and what was made from a source deleted."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from lora_med.cli.data.column_option import AnswerForm, Columns, IgnoreColumns, own_rows_options
from lora_med.cli.data.output_file import check_no_input, check_output, is_stdout
from lora_med.cli.data.stdin import StdinName, spooled
from lora_med.cli.options import (
    AsJson,
    DataAccess,
    Delimiter,
    Encoding,
    OutFile,
    Paths,
    Sheet,
    SkipBad,
    SourceName,
    Yes,
)
from lora_med.cli.terminal import print_text
from lora_med.errors import InputMissingError, OutputError, SettingsError

LEAST_SECRET_BYTES = 16


def deidentify_command(
    source: SourceName,
    paths: Paths,
    out: OutFile,
    secret: Annotated[
        Path | None,
        typer.Option(help="A file of random bytes, created if missing: with it, equal dates move alike in every run."),
    ] = None,
    column: Columns = None,
    access: DataAccess = None,
    ignore_column: IgnoreColumns = None,
    answer_form: AnswerForm = None,
    stdin_filename: StdinName = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Write a source's records with identifiers replaced and dates moved, readable by you only: no legal guarantee."""
    from rich.console import Console

    from lora_med.audit.deidentify import deidentified, gold_notes, load_finder, measure
    from lora_med.data.access import NOT_STATED, ask
    from lora_med.data.catalog import find_source
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.formats.jsonl import as_line
    from lora_med.data.outcome import TableFormat
    from lora_med.data.reading import read_records
    from lora_med.files import atomic_stream

    row = find_source(source)
    check_output([out], row, paths)
    check_no_input(out, [secret] if secret is not None else [])
    secret_bytes = _secret_bytes(secret)
    counts, touched = Counter[str](), 0
    status = Console(stderr=True).status("looking for identifiers")
    with status, spooled(paths, stdin_filename, row.suffixes[0], out) as names:
        inputs = find_inputs(row, names)
        find = load_finder()
        options = own_rows_options(column, ignore_column, answer_form, TableFormat(encoding, delimiter, sheet))
        reading = read_records(row, inputs, options, skip_bad=skip_bad, access=access)
        with atomic_stream(out, private=True) as stream:
            for record in reading:
                clean, replaced = deidentified(record, find, secret_bytes)
                counts += replaced
                touched += bool(replaced)
                stream.write(as_line(clean))
        recall = measure(find, gold_notes())
    found = options.access_of(row.access, access)
    if found is None:
        ask(row.name, "--access ")
    report = sys.stderr if is_stdout(out) else sys.stdout
    if as_json:
        summary = {"kept": reading.tally.kept, "touched": touched, "replaced": dict(counts), "out": str(out)}
        print_text(json.dumps(summary | {"recall": round(recall.recall, 3), "access": found}), file=report)
        return
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()) or "nothing"
    print_text(f"{reading.tally}\nreplaced in {touched:,} records: {kinds}\n{out}", file=report)
    print_text(f"This is no legal guarantee: {recall}. Access class as before: {found or NOT_STATED}.", file=sys.stderr)


def _secret_bytes(path: Path | None) -> bytes:
    """The secret that decides how far dates move: new random bytes, or those of a file that only its owner may read."""
    from lora_med.files import atomic_stream

    if path is None:
        return os.urandom(32)
    if not path.is_file():
        with atomic_stream(path, private=True) as stream:
            stream.write(os.urandom(32))
    secret_bytes = path.read_bytes()
    if len(secret_bytes) < LEAST_SECRET_BYTES:
        raise SettingsError(
            f"the file holds {len(secret_bytes)} bytes; if they are guessed, it is known how far dates were moved",
            where=f"--secret {path}",
            fix=f"name a file that does not exist yet, or one of {LEAST_SECRET_BYTES} random bytes or more",
        )
    return secret_bytes


def purge_command(
    source: SourceName,
    roots: Annotated[
        list[Path] | None, typer.Argument(help="Folders to search. [default: the working directory]")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """List, and with --yes delete, what was made from a source: records, runs, adapters, merged models, reports."""
    from lora_med.audit.purge import delete, find_derived
    from lora_med.data.catalog import find_source

    find_source(source)
    folders = roots or [Path()]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise InputMissingError(f"no such folder: {', '.join(missing)}", where="the command line", fix="name a folder")
    copies = find_derived(source, [folder.resolve() for folder in folders])
    if yes:
        try:
            delete(source, copies)
        except OSError as error:
            raise OutputError(f"cannot delete: {error.strerror}", where=str(error.filename)) from error
    if as_json:
        listed = [{"kind": copy.kind, "path": str(copy.path), "size_bytes": copy.size_bytes} for copy in copies]
        print_text(json.dumps({"source": source, "deleted": yes, "found": listed}))
        return
    for copy in copies:
        print_text(f"{'deleted' if yes else 'found':<8} {copy.kind:<13} {copy.size_bytes / 1e6:>9.1f} MB  {copy.path}")
    if not copies:
        print_text(f"nothing here was made from {source}")
    elif not yes:
        print_text("--yes deletes them; the source's own files are yours to delete")

"""lora-med data deidentify|purge: identifiers made tags, and what was made from a source deleted."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.data.column_option import AnswerForm, Columns, IgnoreColumns, own_rows_options
from lora_med.cli.data.output_file import check_no_input, check_output, is_stdout
from lora_med.cli.data.stdin import StdinName, spooled
from lora_med.cli.options import (
    STORE,
    AsJson,
    BaseName,
    DataAccess,
    Delimiter,
    Encoding,
    OutFile,
    Paths,
    Sheet,
    SkipBad,
    SourceName,
    Store,
    Yes,
)
from lora_med.cli.terminal import print_text
from lora_med.errors import InputMissingError, OutputError, SettingsError

if TYPE_CHECKING:
    from lora_med.audit.identifiers import Finder
    from lora_med.audit.surrogates import Surrogates
    from lora_med.data.record import Record

LEAST_SECRET_BYTES = 16
MEASURED_WITH_MODEL = 50  # invented notes

SecretFile = Annotated[
    Path | None,
    typer.Option(help="A file of random bytes, created if missing: with it, equal dates move alike in every run."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER", help="An adapter that tags identifiers, used beside the patterns; deid-micro ships."
    ),
]
WithSurrogates = Annotated[
    bool, typer.Option("--surrogates", help="Invented identifiers of the same kind and length instead of tags.")
]


def deidentify_command(
    source: SourceName,
    paths: Paths,
    out: OutFile,
    secret: SecretFile = None,
    model: Model = None,
    surrogates: WithSurrogates = False,
    base: BaseName = None,
    store: Store = STORE,
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

    from lora_med.audit.deidentify import measure
    from lora_med.audit.surrogates import Surrogates
    from lora_med.data.access import NOT_STATED, ask
    from lora_med.data.catalog import find_source
    from lora_med.data.formats.find_inputs import find_inputs
    from lora_med.data.outcome import TableFormat
    from lora_med.data.reading import read_records

    row = find_source(source)
    check_output([out], row, paths)
    check_no_input(out, [secret] if secret is not None else [])
    secret_bytes = _secret_bytes(secret)
    status = Console(stderr=True).status("looking for identifiers")
    with status, spooled(paths, stdin_filename, row.suffixes[0], out) as names:
        inputs = find_inputs(row, names)
        find, notes = _finder(model, base, store)
        options = own_rows_options(column, ignore_column, answer_form, TableFormat(encoding, delimiter, sheet))
        reading = read_records(row, inputs, options, skip_bad=skip_bad, access=access)
        counts, touched = _write(reading, out, find, secret_bytes, Surrogates(secret_bytes) if surrogates else None)
        recall = measure(find, notes)
    stated = options.access_of(row.access, access)
    if stated is None:
        ask(row.name, "--access ")
    missed = 1 - recall.late_names[0] / recall.late_names[1]
    report = sys.stderr if is_stdout(out) else sys.stdout
    if as_json:
        summary = {"kept": reading.tally.kept, "touched": touched, "replaced": dict(counts), "out": str(out)}
        summary |= {"recall": round(recall.recall, 3), "names_missed": round(missed, 3), "access": stated}
        print_text(json.dumps(summary), file=report)
        return
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common()) or "nothing"
    print_text(f"{reading.tally}\nreplaced in {touched:,} records: {kinds}\n{out}", file=report)
    advice = "" if model else "; --model deid-micro misses fewer"
    print_text(f"This is no legal guarantee: {recall}.", file=sys.stderr)
    print_text(f"Of the names in such sentences {missed:.2f} are missed{advice}.", file=sys.stderr)
    print_text(f"Access class as before: {stated or NOT_STATED}.", file=sys.stderr)


def _write(
    records: Iterable[Record], out: Path, find: Finder, secret: bytes, surrogates: Surrogates | None
) -> tuple[Counter[str], int]:
    """Write the records without identifiers; how many identifiers of each type there were, and in how many records."""
    from lora_med.audit.deidentify import deidentified
    from lora_med.data.formats.jsonl import as_line
    from lora_med.files import atomic_stream

    counts, touched = Counter[str](), 0
    with atomic_stream(out, private=True) as stream:
        for record in records:
            clean, replaced = deidentified(record, find, secret, surrogates)
            counts += replaced
            touched += bool(replaced)
            stream.write(as_line(clean))
    return counts, touched


def _finder(model: str | None, base: str | None, store: Path) -> tuple[Finder, list[dict[str, Any]]]:
    """The finder to use, and the invented notes to measure it on: only some with a model, which takes seconds."""
    from lora_med.audit.deidentify import gold_notes, load_finder

    if model is None:
        return load_finder(), gold_notes()
    from lora_med.audit.tagger import load_tagger_of_identifiers, with_tagger

    tagger = load_tagger_of_identifiers(model, store, base=base)
    return with_tagger(load_finder(), tagger), gold_notes()[:MEASURED_WITH_MODEL]


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

"""lora-med init FILE...: what the files are, and a settings file that trains on them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.data.column_option import AnswerForm, Columns, IgnoreColumns, columns_of
from lora_med.cli.options import (
    AsJson,
    BaseName,
    DataAccess,
    Delimiter,
    Encoding,
    Online,
    Paths,
    Sheet,
    Source,
    Template,
)
from lora_med.cli.terminal import console, print_text
from lora_med.errors import OutputError, SettingsError
from lora_med.files import write_atomic
from lora_med.run import prepare_environment

if TYPE_CHECKING:
    from lora_med.workflows.init_run import Answers, Draft, Look

app = typer.Typer(add_completion=False, rich_markup_mode=None)
SHOWN_ROWS = 3
MEANINGS = {
    "open": "anyone may read the data",
    "registered": "those who registered for them may",
    "credentialed": "patients' records, or data under an agreement",
}


@app.command("init")
def init_command(
    paths: Paths,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The settings file to write.")] = Path("run.yaml"),
    base: BaseName = None,
    access: DataAccess = None,
    column: Columns = None,
    ignore_column: IgnoreColumns = None,
    answer_form: AnswerForm = None,
    source: Source = None,
    template: Template = None,
    name: Annotated[str | None, typer.Option("--name", help="The adapter's name. [default: the first file's]")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="section.key=value", help="A setting for the file; repeat it for several."),
    ] = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    sheet: Sheet = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing; what only you can know must be in the flags.")
    ] = False,
    online: Online = False,
    as_json: AsJson = False,
) -> None:
    """Look at files, say what they are, and write the settings that train on them, with a reason for each value."""
    prepare_environment(offline=not online)
    from lora_med.data.outcome import TableFormat
    from lora_med.workflows.draft_config import as_yaml
    from lora_med.workflows.init_run import Answers, draft, look

    _refuse_existing(out)
    table = TableFormat(encoding, delimiter, sheet)
    seen = look(paths, table, source)
    what = f"files        {len(seen.files):,}: {seen.source.name}; {'; '.join(seen.reasons)}"
    print_text(what, file=sys.stderr if as_json else sys.stdout)
    answers = Answers(
        base=base,
        access=access,
        columns=columns_of(column or ()),
        ignore_columns=tuple(ignore_column or ()),
        answer_form=answer_form,
        table=table,
        template=template,
        name=name,
        settings=tuple(settings or ()),
    )
    answers = _asked(seen, answers) if sys.stdin.isatty() and not yes else _without_questions(seen, answers)
    drafted = draft(paths, seen, answers)
    title = ("Written by `lora-med init`; every value may be changed.", f"lora-med train --config {out}")
    write_atomic(out, as_yaml(drafted.choices, title))
    if as_json:
        print_text(json.dumps(_as_json(seen, drafted, out)))
        return
    _print_check(drafted)
    _print_rows(drafted)
    print_text(f"{out}\nNext: lora-med train --config {out}")


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise OutputError(f"{out} exists", where="--out", fix="name another file with --out, or move this one away")


def _without_questions(seen: Look, answers: Answers) -> Answers:
    """The answers as they are, if nothing is missing that only the user knows.

    Raises:
        SettingsError: what must be stated by a flag.
    """
    if seen.patient_columns and "group" not in answers.columns:
        raise SettingsError(
            f"the column {', '.join(seen.patient_columns)} is named like a patient, and no group is named",
            where="--column",
            fix=f"--column group={seen.patient_columns[0]}, or --column group=none if it names no patient",
        )
    if seen.needs_access and answers.access is None:
        listed = "; ".join(f"{value}: {meaning}" for value, meaning in MEANINGS.items())
        raise SettingsError(
            f"who may read the data is not stated ({listed})", where="--access", fix="--access open, for example"
        )
    return answers


def _asked(seen: Look, answers: Answers) -> Answers:
    """The answers, with what is missing asked for on the terminal."""
    from lora_med.data.shapes.columns.cells import listed

    if seen.columns:
        print_text(f"columns      {listed(seen.columns)}")
    if seen.needs_columns and not set(answers.columns) - {"group", "uid"}:
        answers = replace(answers, columns={**answers.columns, **_asked_columns(seen)})
    if seen.patient_columns and "group" not in answers.columns:
        print_text(f"patient      {', '.join(seen.patient_columns)}: named like a patient")
        question = "Which column names the patient or document, whose rows stay in one split (none: each row alone)"
        group = _asked_column(question, seen, seen.patient_columns[0], "none")
        answers = replace(answers, columns={**answers.columns, "group": group})
    if seen.needs_access and answers.access is None:
        for value, meaning in MEANINGS.items():
            print_text(f"  {value:13}{meaning}")
        stated: Any = _asked_of("Who may read the data", tuple(MEANINGS), None)
        answers = replace(answers, access=stated)
    if answers.base is None:
        question = "Base model: a folder, a Hub id, or micro, the embedded one"
        answers = replace(answers, base=typer.prompt(question, default="micro"))
    return answers


def _asked_columns(seen: Look) -> dict[str, str]:
    """Field -> column, where no column has a name that says what it is."""
    question = "What are the rows: running text, a prompt and its completion, or a question and its answer"
    shapes = {"text": ("text",), "prompt": ("prompt", "completion"), "question": ("question", "answer")}
    shape = _asked_of(question, tuple(shapes), "prompt" if len(seen.columns) > 1 else "text")
    return {name: _asked_column(f"Which column is the {name}", seen, None) for name in shapes[shape]}


def _asked_column(question: str, seen: Look, default: str | None, *others: str) -> str:
    return _asked_of(question, (*seen.columns, *others), default)


def _asked_of(question: str, choices: tuple[str, ...], default: str | None) -> str:
    """One of the choices, asked for until it is one."""
    from lora_med.data.shapes.columns.cells import listed

    while (answer := typer.prompt(question, default=default).strip()) not in choices:
        print_text(f"{answer!r} is none of {listed(choices)}")
    return answer


def _print_check(drafted: Draft) -> None:
    from lora_med.cli.data.preview_command import print_source

    for source in drafted.check.sources:
        print_source(source, drafted.check.max_length)
    for choice in drafted.choices:
        print_text(f"{choice.key:24} {choice.value!s:32} {choice.reason}")


def _print_rows(drafted: Draft) -> None:
    """Three rows as they would be trained; of credentialed data none."""
    from lora_med.prompts.fit import Refused, fit_stream
    from lora_med.prompts.render import render_stream
    from lora_med.training.rows.preflight import color_row

    if drafted.check.access != "open":
        print_text(f"rows         not shown: the access class is {drafted.check.access}")
        return
    corpus, train = drafted.corpus, drafted.settings.train
    rendered = render_stream(corpus.train, corpus.templates, train.too_long, train.assistant_turns)
    fitted = fit_stream(rendered, drafted.tokenizer, train.max_length, Refused(drafted.settings.data.skip_bad))
    screen = console()
    screen.print("\nrows as they would be trained; trained tokens in color\n", style="bold")
    for tokens in islice(fitted, SHOWN_ROWS):
        screen.print(color_row(tokens, drafted.tokenizer), end="\n\n")


def _as_json(seen: Look, drafted: Draft, out: Path) -> dict[str, Any]:
    from lora_med.data.shapes.columns.cells import listed

    return {
        "files": [str(path) for path in seen.files],
        "source": seen.source.name,
        "reasons": list(seen.reasons),
        "columns": listed(seen.columns),
        "patient_columns": list(seen.patient_columns),
        "settings": [{"key": choice.key, "value": choice.value, "reason": choice.reason} for choice in drafted.choices],
        "check": drafted.check.as_json(),
        "out": str(out),
    }

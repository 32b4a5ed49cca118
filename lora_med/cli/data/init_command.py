"""lora-med init FILE...: what the files are, and a settings file that trains on them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lora_med.cli.data.column_option import AnswerForm, Columns, IgnoreColumns, columns_of
from lora_med.cli.data.init_report import init_json, print_draft, print_look, print_rows
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
from lora_med.cli.terminal import print_text
from lora_med.errors import DataError, OutputError, SettingsError
from lora_med.files import write_atomic
from lora_med.run import prepare_environment, quiet

if TYPE_CHECKING:
    from lora_med.data.detection.look_at_files import Finding, Look
    from lora_med.data.outcome import TableFormat
    from lora_med.workflows.init_run import Answers

app = typer.Typer(add_completion=False, rich_markup_mode=None)
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
    from lora_med.workflows.init_run import Answers, draft

    _refuse_existing(out)
    may_ask = sys.stdin.isatty() and not yes
    table = TableFormat(encoding, delimiter, sheet)
    seen = _look(paths, table, source)
    if may_ask and seen.likely_encoding is not None:
        table = replace(table, encoding=_asked_encoding(seen.likely_encoding))
        seen = _look(paths, table, source)
    print_look(seen, file=sys.stderr if as_json else sys.stdout)
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
    answers = _asked(seen, answers) if may_ask else _without_questions(seen, answers)
    drafted = draft(paths, seen, answers)
    title = ("Written by `lora-med init`; every value may be changed.", f"lora-med train --config {out}")
    write_atomic(out, as_yaml(drafted.choices, title))
    if as_json:
        print_text(json.dumps(init_json(seen, drafted, out)))
        return
    print_draft(drafted, answers)
    print_rows(drafted)
    print_text(f"{out}\nNext: lora-med train --config {out}")


def _look(paths: list[str], table: TableFormat, source: str | None) -> Look:
    from lora_med.data.detection.look_at_files import look

    with quiet("lora_med.data"):  # what reading says, it says when the files are read whole
        return look(paths, table, source)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise OutputError(f"{out} exists", where="--out", fix="name another file with --out, or move this one away")


def _without_questions(seen: Look, answers: Answers) -> Answers:
    """The answers as they are, if nothing is missing that only the user knows.

    Raises:
        SettingsError: what must be stated by a flag.
        DataError: no column's name says what the rows are.
    """
    if seen.needs_columns and not _is_mapped(answers):
        raise _without_names(seen)
    patients = _unexplained_patients(seen, answers)
    if patients:
        raise SettingsError(
            f"the column {', '.join(patients)} is named like a patient, and no group is named",
            where="--column",
            fix=f"--column group={patients[0]}, or --column group=none if it names no patient",
        )
    if seen.needs_access and answers.access is None:
        listed = "; ".join(f"{value}: {meaning}" for value, meaning in MEANINGS.items())
        raise SettingsError(
            f"who may read the data is not stated ({listed})", where="--access", fix="--access open, for example"
        )
    return answers


def _is_mapped(answers: Answers) -> bool:
    """Whether a column is named for what the rows are, not only for whom they are about."""
    return bool(set(answers.columns) - {"group", "uid"})


def _without_names(seen: Look) -> DataError:
    """The error of a table whose columns' names do not say what the rows are."""
    from lora_med.data.shapes.columns.cells import listed

    text = seen.longest_texts
    as_text = f"--column text={text} trains on {text}, which holds the longest texts; " if text else ""
    return DataError(
        f"no column's name says what the rows are: {listed(seen.columns)}",
        where="--column",
        fix=f"{as_text}--column prompt=COLUMN --column completion=COLUMN, or question and answer, or text and label",
    )


def _unexplained_patients(seen: Look, answers: Answers) -> list[str]:
    """The columns named like a patient, if no group is named and nothing says that they are something else."""
    if "group" in answers.columns:
        return []
    return [name for name in seen.patient_columns if name not in answers.columns.values()]


def _asked_encoding(likely: Finding) -> str:
    print_text(f"encoding     {likely.reason}")
    return typer.prompt("Encoding of the files", default=likely.value).strip()


def _asked(seen: Look, answers: Answers) -> Answers:
    """The answers, with what is missing asked for on the terminal."""
    from lora_med.data.shapes.columns.cells import listed

    if seen.columns:
        print_text(f"columns      {listed(seen.columns)}")
    if seen.needs_columns and not _is_mapped(answers):
        answers = replace(answers, columns={**answers.columns, **_asked_columns(seen)})
    if seen.columns and "group" not in answers.columns:
        patients = _unexplained_patients(seen, answers)
        question = "Which column names the patient or document, whose rows stay in one split (none: each row alone)"
        group = _asked_column(question, seen, patients[0] if patients else "none", "none")
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
    likely = {"text": seen.longest_texts}
    return {name: _asked_column(f"Which column is the {name}", seen, likely.get(name)) for name in shapes[shape]}


def _asked_column(question: str, seen: Look, default: str | None, *others: str) -> str:
    return _asked_of(question, (*seen.columns, *others), default)


def _asked_of(question: str, choices: tuple[str, ...], default: str | None) -> str:
    """One of the choices, asked for until it is one."""
    from lora_med.data.shapes.columns.cells import listed

    while (answer := typer.prompt(question, default=default).strip()) not in choices:
        print_text(f"{answer!r} is none of {listed(choices)}")
    return answer

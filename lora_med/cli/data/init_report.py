"""What `lora-med init` prints: what was found in the files with the reason for it, the settings, and three rows."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from lora_med.cli.terminal import console, print_text

if TYPE_CHECKING:
    from pathlib import Path

    from lora_med.data.detection.look_at_files import Finding, Look
    from lora_med.workflows.init_run import Answers, Draft

SHOWN_ROWS = 3


def print_look(seen: Look, file: TextIO) -> None:
    """Print what the beginnings of the files show, a line for each finding."""
    lines = [f"files        {len(seen.files):,}: {seen.source.name}; {'; '.join(seen.reasons)}"]
    lines += [f"encoding     {_finding(found, count)}" for found, count in seen.encodings.items()]
    lines += [f"cells        divided by {_finding(found, count)}" for found, count in seen.delimiters.items()]
    if seen.columns:
        named = ", ".join(f"{column} (in {file_name})" for column, file_name in seen.patient_columns.items())
        lines.append(
            f"patient      {named}: named like a patient" if named else "patient      no column is named like one"
        )
    for line in lines:
        print_text(line, file=file)


def _finding(found: Finding, count: int) -> str:
    files = f" ({count:,} files)" if count > 1 else ""
    return f"{'likely ' if found.likely else ''}{found.value}{files}: {found.reason}"


def print_draft(drafted: Draft, answers: Answers) -> None:
    """Print what a run would read, what each column means and why, and each setting with its reason."""
    from lora_med.cli.data.preview_command import print_source

    for source in drafted.check.sources:
        print_source(source, drafted.check.max_length)
        for line in _meanings(source.columns["used"], answers):
            print_text(f"meaning      {line}")
    longest = max(lengths.quantiles.get("100%", 0) for lengths in drafted.check.sources[0].lengths.values())
    fits = "so every row fits" if longest <= drafted.context else "so not every row fits"
    print_text(f"context      the base takes {drafted.context:,} tokens, and the longest row has {longest:,}: {fits}\n")
    for choice in drafted.choices:
        print_text(f"{choice.key:24} {choice.value!s:32} {choice.reason}")


def _meanings(used: dict[str, str], answers: Answers) -> list[str]:
    """Each column that is used, with its field and the reason."""
    from lora_med.data.shapes.columns.cells import spelling

    lines = []
    for column, field in used.items():
        if answers.columns.get(field) == column:
            reason = "as stated"
        elif spelling(column) == spelling(field):
            reason = "by its name"
        else:
            reason = f"files often name the {field} so"
        lines.append(f"{column} is the {field}: {reason}")
    return lines


def print_rows(drafted: Draft) -> None:
    """Print three rows as they would be trained; of data that are not open none."""
    from lora_med.data.record import each_answer
    from lora_med.prompts.fit import Refused, fit_stream
    from lora_med.prompts.render import render_stream
    from lora_med.training.rows.preflight import color_row

    if drafted.check.access in (None, "credentialed"):
        print_text(f"rows         not shown: the access class is {drafted.check.access}")
        return
    corpus, train = drafted.corpus, drafted.settings.train
    rendered = render_stream(each_answer(corpus.train), corpus.templates, train.too_long, train.assistant_turns)
    fitted = fit_stream(rendered, drafted.tokenizer, train.max_length, Refused(drafted.settings.data.skip_bad))
    trained = (tokens for tokens in fitted if tokens.running or len(tokens.input_ids) <= train.max_length)
    screen = console()
    screen.print("\nrows as they would be trained; trained tokens in color\n", style="bold")
    for tokens in islice(trained, SHOWN_ROWS):
        screen.print(color_row(tokens, drafted.tokenizer), end="\n\n")


def init_json(seen: Look, drafted: Draft, out: Path) -> dict[str, Any]:
    """What was found and chosen, as JSON values."""
    from lora_med.data.shapes.columns.cells import listed

    return {
        "files": [str(path) for path in seen.files],
        "source": seen.source.name,
        "reasons": list(seen.reasons),
        "encodings": [_as_json(found, count) for found, count in seen.encodings.items()],
        "delimiters": [_as_json(found, count) for found, count in seen.delimiters.items()],
        "columns": listed(seen.columns),
        "patient_columns": list(seen.patient_columns),
        "context": drafted.context,
        "settings": [{"key": choice.key, "value": choice.value, "reason": choice.reason} for choice in drafted.choices],
        "check": drafted.check.as_json(),
        "out": str(out),
    }


def _as_json(found: Finding, count: int) -> dict[str, Any]:
    return {"value": found.value, "reason": found.reason, "files": count, "likely": found.likely}

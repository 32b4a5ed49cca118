"""From files to settings: what the files are, what is missing, and a commented YAML that `lora-med train` runs.

`look` says what can be seen without reading the files whole. `draft` reads them as a run would, and gives the settings
with the reason for each value. Nothing is guessed in silence: a value without a flag carries its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.audit.data_check import Check, check_data
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.access import Access
from lora_med.data.catalog import find_source, read
from lora_med.data.corpus import Corpus
from lora_med.data.detection.detect_source import Detected, detect_sources, files_in
from lora_med.data.formats.containers.table_row import TableRow
from lora_med.data.formats.tables import AS_SHOWN, rows
from lora_med.data.outcome import Drop, ReadOptions, TableFormat
from lora_med.data.shapes.columns.patient_columns import is_named_like_a_patient
from lora_med.data.source import Source
from lora_med.errors import SettingsError
from lora_med.models.files.resolve import resolve_base
from lora_med.models.tokenizer import load_tokenizer
from lora_med.workflows.draft_config import Choice, overrides_of

MICRO = "micro"
FEW_RECORDS = 2_000  # below it, a twentieth is too few to compare on
ROW_LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
NO_GROUP = "none"


@dataclass(frozen=True)
class Look:
    """What can be seen of the files at once: their source with its reasons, the columns of a table's first row.

    `patient_columns` are those named like a patient. `needs_columns`: no column's name says what the rows are.
    """

    files: tuple[Path, ...]
    source: Source
    reasons: tuple[str, ...]
    columns: tuple[str, ...]
    patient_columns: tuple[str, ...]
    needs_columns: bool

    @property
    def needs_access(self) -> bool:
        """Whether the access class must be stated."""
        return self.source.access is None


@dataclass(frozen=True)
class Answers:
    """What the user stated, by flags or when asked; None and empty: not stated."""

    base: str | None = None
    access: Access | None = None
    columns: dict[str, str] = field(default_factory=dict)
    ignore_columns: tuple[str, ...] = ()
    answer_form: str | None = None
    table: TableFormat = AS_SHOWN
    template: str | None = None
    name: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """The settings for the files, value by value, and what a run would learn from."""

    choices: tuple[Choice, ...]
    settings: Settings
    check: Check
    corpus: Corpus
    tokenizer: Any = field(repr=False)


def look(names: Sequence[str], table: TableFormat, source: str | None = None) -> Look:
    """What the files are, by their content, unless `source` says it.

    Raises:
        InputMissingError: no such file.
        DataError: a file that nothing reads.
        SettingsError: the files are of several sources.
    """
    files = files_in(names)
    detected = (
        {path: Detected(source, "as --source says") for path in files} if source else detect_sources(files, table)
    )
    by_source: dict[str, list[Path]] = {}
    for path, item in detected.items():
        by_source.setdefault(item.source, []).append(path)
    if len(by_source) > 1:
        listed = "; ".join(f"{name}: {paths[0].name}, {len(paths)} in all" for name, paths in sorted(by_source.items()))
        raise SettingsError(
            f"the files are of several sources: {listed}",
            where=", ".join(names),
            fix="name the files of one source; data.mix in the settings adds others",
        )
    row_source = find_source(next(iter(by_source)))
    first = _first_row(files[0], table) if row_source.template_by_kind else None
    columns = () if first is None else tuple(map(str, first))
    return Look(
        files=tuple(files),
        source=row_source,
        reasons=tuple(dict.fromkeys(item.reason for item in detected.values())),
        columns=columns,
        patient_columns=tuple(name for name in columns if is_named_like_a_patient(name)),
        needs_columns=first is not None and _needs_columns(row_source, files[0], table),
    )


def _first_row(path: Path, table: TableFormat) -> Mapping[str, Any] | None:
    return next((item.values for item in rows(path, table) if isinstance(item, TableRow)), None)


def _needs_columns(source: Source, path: Path, table: TableFormat) -> bool:
    """Whether the first row has no columns whose names say what it is."""
    options = ReadOptions(table=table, stops_at_columns=False)
    first = next(iter(read(source, [path], options)), None)
    return isinstance(first, Drop) and first.reason == "missing_column"


def draft(names: Sequence[str], seen: Look, answers: Answers) -> Draft:
    """The settings for what was seen and answered; the data are read and checked as a run would.

    Raises:
        SettingsError, DataError: a run would raise it too; the message says what to state.
    """
    choices = [*_base(answers), *_data(names, seen, answers)]
    own = [_stated(setting) for setting in answers.settings]
    choices = [choice for choice in choices if choice.key not in {item.key for item in own}] + own
    settings = parse(None, overrides_of(choices))
    tokenizer, _ = load_tokenizer(resolve_base(settings.model.base, settings.model.revision)[0])
    check, corpus = check_data(settings, tokenizer)
    shares = [choice for choice in _shares(check) if choice.key not in {item.key for item in own}]
    if shares:  # of few records: reading them again costs little
        choices += shares
        check, corpus = check_data(parse(None, overrides_of(choices)), tokenizer)
    taken = {choice.key for choice in choices}
    choices += [choice for choice in _from_check(check, corpus, tokenizer, answers) if choice.key not in taken]
    return Draft(tuple(_in_sections(choices)), parse(None, overrides_of(choices)), check, corpus, tokenizer)


def _base(answers: Answers) -> list[Choice]:
    reason = "as --base says" if answers.base else "the embedded base, to try the run; name a folder or a Hub id"
    return [Choice("model.base", answers.base or MICRO, reason)]


def _data(names: Sequence[str], seen: Look, answers: Answers) -> list[Choice]:
    table = answers.table
    group = answers.columns.get("group")
    choices = [
        Choice("data.source", seen.source.name, "; ".join(seen.reasons)),
        Choice("data.paths", list(names), f"{len(seen.files):,} files" if len(seen.files) > 1 else "one file"),
    ]
    if answers.columns:
        of_group = "" if group in (None, NO_GROUP) else f"; rows with one {group} stay in one split"
        choices.append(Choice("data.columns", dict(answers.columns), f"our names: your columns{of_group}"))
    if answers.ignore_columns:
        choices.append(Choice("data.ignore_columns", list(answers.ignore_columns), "left out on purpose"))
    stated = {"answer_form": answers.answer_form, "encoding": table.encoding, "delimiter": table.delimiter}
    for key, value in {**stated, "sheet": table.sheet}.items():
        if value is not None:
            choices.append(Choice(f"data.{key}", value, f"as --{key.replace('_', '-')} says"))
    if answers.template is not None:
        choices.append(Choice("data.template", answers.template, "as --template says"))
    if answers.access is not None:
        choices.append(Choice("adapter.access", answers.access, "who may read the data, and so the adapter"))
    return choices


def _stated(setting: str) -> Choice:
    key, sign, value = setting.partition("=")
    if not sign or "." not in key:
        raise SettingsError(
            f"{setting!r} is not of the form section.key=value", where="--set", fix="for example --set lora.r=8"
        )
    import yaml

    return Choice(key, yaml.safe_load(value), "as --set says")


def _shares(check: Check) -> list[Choice]:
    """The shares held out, where so few records make a twentieth too little."""
    source = check.sources[0]
    count = sum(source.sizes.values())
    if count >= FEW_RECORDS or not source.split.startswith("split by group"):
        return []
    reason = f"few records ({count:,}): a tenth each to validate and to test on"
    return [Choice("data.validation_share", 0.1, reason), Choice("data.test_share", 0.1, reason)]


def _from_check(check: Check, corpus: Corpus, tokenizer: Any, answers: Answers) -> list[Choice]:
    """The values that depend on what was read: template, length of rows, names."""
    longest = max(lengths.quantiles["100%"] for lengths in check.sources[0].lengths.values())
    context = min(int(tokenizer.model_max_length), ROW_LENGTHS[-1])
    length = min(next((size for size in ROW_LENGTHS if size >= longest), ROW_LENGTHS[-1]), context)
    of_rows = f"the longest row has {longest:,} tokens"
    name = answers.name or _name(corpus)
    choices = [
        Choice(
            "data.template",
            check.sources[0].template,
            "the template of such records; `lora-med data templates` lists all",
        ),
        Choice("train.max_length", length, of_rows if length >= longest else f"{of_rows}, more than this base takes"),
        Choice("train.output_dir", f"runs/{name}", "checkpoints, metrics and run.json"),
        Choice("adapter.name", name, "as --name says" if answers.name else "after the first file"),
    ]
    if answers.base in (None, MICRO):
        reason = "ten times the default, because micro is a thousand times smaller than the usual base"
        choices.append(Choice("train.learning_rate", 2e-3, reason))
    return choices


def _name(corpus: Corpus) -> str:
    stem = corpus.files[0].name.split(".")[0] if corpus.files else "adapter"
    name = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:64]
    return name or "adapter"


def _in_sections(choices: Sequence[Choice]) -> list[Choice]:
    order = ("model", "data", "lora", "train", "adapter", "evaluate")
    return sorted(choices, key=lambda choice: order.index(choice.key.partition(".")[0]))

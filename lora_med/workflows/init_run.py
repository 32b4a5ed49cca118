"""From files to settings: a commented YAML that `lora-med train` runs, with the reason for each value.

`draft` reads the files as a run would. Nothing is guessed in silence: a value without a flag carries its reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from lora_med.adapters.store.store import STORE, check_loadable
from lora_med.audit.data_check import Check, check_data
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.access import Access
from lora_med.data.corpus import Corpus
from lora_med.data.detection.look_at_files import Look
from lora_med.data.formats.tables import AS_SHOWN
from lora_med.data.outcome import TableFormat
from lora_med.data.record import Annotated, Pair, Passage, Question
from lora_med.errors import DataError, SettingsError
from lora_med.models.files.resolve import read_config, resolve_base
from lora_med.models.tokenizer import load_tokenizer
from lora_med.prompts.chat_template import tokenizer_of_run
from lora_med.prompts.templates.templates import find_template
from lora_med.run import quiet
from lora_med.training.preparation.opened_corpus import holds_preferences
from lora_med.workflows.draft_config import Choice, overrides_of

MICRO = "micro"
FEW_RECORDS = 2_000  # below it, a twentieth is too few to compare on
ROW_LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
# Shares to validate and to test on, the first that leave records in each split; of very few records none to test on.
FEW_SHARES = ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3), *((tenths / 10, 0.0) for tenths in range(2, 10)))
NO_GROUP = "none"
TASKS = {
    Passage: "running text",
    Pair: "a prompt and its completion",
    Question: "questions and their answers",
    Annotated: "named entities in a text",
}
CLASSIFICATION = {"label": "the class of a text"}
REPEATED = ("lora_med.data.corpus", "lora_med.data.splitting.build_splits")  # what they log, the report says


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
    """The settings for the files, value by value, and what a run would learn from.

    `context` is the number of tokens that the base takes, and `tokenizer` the one of the run, with its chat template.
    """

    choices: tuple[Choice, ...]
    settings: Settings
    check: Check
    corpus: Corpus
    context: int
    tokenizer: Any = field(repr=False)


def draft(names: Sequence[str], seen: Look, answers: Answers) -> Draft:
    """The settings for what was seen and answered; the data are read and checked as a run would.

    Raises:
        SettingsError, DataError: a run would raise it too; the message says what to state.
    """
    own = [_stated(setting) for setting in answers.settings]
    fixed = {choice.key for choice in own}
    choices = [choice for choice in (*_base(answers), *_data(names, seen, answers)) if choice.key not in fixed] + own
    settings = parse(None, overrides_of(choices))
    folder = resolve_base(settings.model.base, settings.model.revision)[0]
    tokenizer, _ = load_tokenizer(folder)
    context = context_of(folder, tokenizer)
    most = min(context, ROW_LENGTHS[-1])
    trial = [] if "train.max_length" in fixed else [Choice("train.max_length", most, "as long as any row may be")]
    shares, check, corpus = _split([*choices, *trial], fixed, tokenizer)
    more = [*shares, *_from_check(check, names, corpus, most, answers)]
    taken = {choice.key for choice in more}
    choices = [choice for choice in choices if choice.key not in taken or choice.key in fixed]
    choices += [choice for choice in more if choice.key not in fixed]
    settings = parse(None, overrides_of(choices))
    check = replace(check, max_length=settings.train.max_length)
    model = settings.model
    options = {"file": model.chat_template, "enable_thinking": model.enable_thinking}
    with quiet("lora_med.prompts"):
        tokenizer = tokenizer_of_run(tokenizer, corpus.templates.values(), **options)
    return Draft(tuple(_in_sections(choices)), settings, check, corpus, context, tokenizer)


def context_of(folder: Path, tokenizer: Any) -> int:
    """The most tokens that a base takes: what its configuration says, and its tokenizer where that is less."""
    config = read_config(folder).get_text_config()
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
    return min([int(tokenizer.model_max_length), *(int(limit) for limit in limits if limit)])


def _base(answers: Answers) -> list[Choice]:
    reason = "as stated" if answers.base else "the embedded base, to try the run; name a folder or a Hub id"
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
            choices.append(Choice(f"data.{key}", value, "as stated"))
    if answers.template is not None:
        choices.append(Choice("data.template", answers.template, "as --template says"))
    if answers.access is not None:
        choices.append(Choice("adapter.access", answers.access, "who may read the data, and so the adapter, as stated"))
    return choices


def _stated(setting: str) -> Choice:
    key, sign, value = setting.partition("=")
    if not sign or "." not in key:
        raise SettingsError(
            f"{setting!r} is not of the form section.key=value", where="--set", fix="for example --set lora.r=8"
        )
    import yaml

    return Choice(key, yaml.safe_load(value), "as --set says")


def _split(choices: Sequence[Choice], fixed: set[str], tokenizer: Any) -> tuple[list[Choice], Check, Corpus]:
    """The shares held out, and the check with them: the default ones, or those that leave few records in each split.

    Raises:
        SettingsError: no share leaves records both to train and to validate on.
        DataError: the data cannot be read.
    """
    keys = tuple(f"data.{name}_share" for name in ("validation", "test"))
    may_choose = not fixed & set(keys)
    none_held_out = [Choice(key, 0.0, "") for key in keys]
    try:
        with quiet(*REPEATED):
            check, corpus = check_data(parse(None, overrides_of(choices)), tokenizer)
    except DataError:  # so few records that none is left to train on, or a fault that comes again
        if not may_choose:
            raise
        with quiet("lora_med.data", "lora_med.prompts"):
            check, corpus = check_data(parse(None, overrides_of([*choices, *none_held_out])), tokenizer)
    source = check.sources[0]
    size = sum(source.sizes.values())
    if may_choose and size < FEW_RECORDS and source.split.startswith("split by group"):
        for validation, test in FEW_SHARES:  # of few records: reading them again costs little
            reason = f"few records ({size:,}): the smallest of the usual shares that leave records in each split"
            shares = [Choice(key, share, reason) for key, share in zip(keys, (validation, test), strict=True)]
            with contextlib.suppress(DataError), quiet("lora_med.data", "lora_med.prompts"):
                check, corpus = check_data(parse(None, overrides_of([*choices, *shares])), tokenizer)
                if check.sources[0].sizes["validation"] and (check.sources[0].sizes["test"] or not test):
                    return shares, check, corpus
    if not check.sources[0].sizes["validation"] or not check.sources[0].sizes["train"]:
        raise SettingsError(
            f"a run validates on records that it does not train on, and none are left for it: {source.tally}; "
            f"{source.split}",
            where="data.paths",
            fix="name more files, a validation file too, or for rows that are of one group, --column group=COLUMN",
        )
    return [], check, corpus


def _from_check(check: Check, names: Sequence[str], corpus: Corpus, most: int, answers: Answers) -> list[Choice]:
    """The values that depend on what was read: template, length of rows, access, names."""
    choices = [*_template(check, corpus, answers), *_lengths(check, most)]
    compares = holds_preferences(corpus)
    if compares:
        choices.append(Choice("train.method", "dpo", "the rows hold a chosen and a rejected answer to one prompt"))
    if answers.access is not None and check.access not in (None, answers.access):
        reason = f"stated as {answers.access}; the class of what was read is stricter, and it counts"
        choices.append(Choice("adapter.access", check.access, reason))
    name = answers.name or _name(names, corpus)
    reason = (
        "as --name says" if answers.name else f"after {'the folder' if Path(names[0]).is_dir() else 'the first file'}"
    )
    choices += [
        Choice("train.output_dir", f"runs/{name}", "checkpoints, metrics and run.json"),
        Choice("adapter.name", name, reason),
    ]
    if answers.base in (None, MICRO) and compares:
        reason = "fifteen times the default of dpo, because micro is a thousand times smaller than the usual base"
        choices.append(Choice("train.learning_rate", 3e-4, reason))
    elif answers.base in (None, MICRO):
        reason = "ten times the default, because micro is a thousand times smaller than the usual base"
        choices.append(Choice("train.learning_rate", 2e-3, reason))
    return choices


def _template(check: Check, corpus: Corpus, answers: Answers) -> list[Choice]:
    if answers.template is not None:
        return []
    template = find_template(check.sources[0].template)
    why = "what the rows are chooses it" if corpus.source.template_by_kind else f"that of {corpus.source.name}"
    task = CLASSIFICATION.get(template.name, TASKS[template.takes])
    reason = f"the task is {task}: {template.summary}; {why}. `lora-med data templates` lists all"
    return [Choice("data.template", template.name, reason)]


def _lengths(check: Check, most: int) -> list[Choice]:
    """The longest row, and what becomes of those that are longer than the base takes.

    Raises:
        SettingsError: all rows are, and none may be cut.
    """
    every = check.sources[0].lengths.values()
    longest = max(lengths.quantiles.get("100%", 0) for lengths in every)
    length = min(next((size for size in ROW_LENGTHS if size >= longest), most), most)
    of_rows = f"the longest row has {longest:,} tokens"
    if longest <= length:
        return [Choice("train.max_length", length, of_rows)]
    choices = [Choice("train.max_length", length, f"{of_rows}, and a row of this run has at most {length:,}")]
    over, rows = sum(lengths.too_long for lengths in every), sum(lengths.rows for lengths in every)
    if find_template(check.sources[0].template).takes is Passage and check.sources[0].template == "text":
        return [replace(choices[0], reason=f"{choices[0].reason}: longer texts are cut where a section begins")]
    if over == rows:
        raise SettingsError(
            f"every row is longer than {length:,} tokens, and no answer is ever cut; the shortest has "
            f"{min(lengths.quantiles['0%'] for lengths in every):,}",
            where="--base",
            fix="name a base with a longer context, or divide the rows",
        )
    reason = f"{over:,} of {rows:,} rows are longer, and no answer is ever cut: they are left out, and counted"
    return [*choices, Choice("train.too_long", "drop", reason)]


def _name(names: Sequence[str], corpus: Corpus) -> str:
    """A name for the adapter: that of the folder that was named, else of the first file."""
    first = Path(names[0]).expanduser()
    stem = first.resolve().name if first.is_dir() else corpus.files[0].name.split(".")[0] if corpus.files else ""
    name = re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:56]
    try:
        check_loadable(name)
    except SettingsError:  # empty, or a word that is reserved, such as `train`
        name = f"{name}-adapter".strip("-")
    numbered = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in numbered if not Path(STORE, free).exists() and not Path("runs", free).exists())


def _in_sections(choices: Sequence[Choice]) -> list[Choice]:
    order = ("model", "data", "lora", "train", "adapter", "evaluate")
    return sorted(choices, key=lambda choice: order.index(choice.key.partition(".")[0]))

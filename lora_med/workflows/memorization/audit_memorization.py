"""The memorization audit of an adapter: a twin run with canaries, and attacks on the adapter's own patients.

1. Canaries are drawn and sealed, and the twin is trained: the same settings, the canaries added. Attacks on the twin
   bound epsilon: what is true of this training, whatever the data.
2. The same attacks read the patients of the run's data on the adapter itself, and what it writes of them verbatim.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lora_med.adapters.runtime.attach import attach_opened
from lora_med.adapters.store.memorization_bound import record_audit
from lora_med.adapters.store.published import Published, open_published
from lora_med.audit.memorization.canaries import (
    LIST,
    Canary,
    Shape,
    draw_canaries,
    seal,
    shape_of,
    toss_again,
    training_records,
)
from lora_med.audit.memorization.extraction import SharedText
from lora_med.audit.memorization.membership import Items, Reading, blind_area, read_membership
from lora_med.config.schema import Settings
from lora_med.data.corpus import Corpus, open_corpus, open_heldout
from lora_med.data.record import Record, texts_of
from lora_med.errors import DataError, SettingsError
from lora_med.models.base import Base
from lora_med.models.tokens.vocabulary import add_tokens
from lora_med.run import keep_private
from lora_med.workflows.memorization.audit_options import AuditOptions
from lora_med.workflows.memorization.audit_report import CanaryResult, Extraction, PatientResult, Result, write_result
from lora_med.workflows.memorization.base_notes import write_notes
from lora_med.workflows.memorization.scored_rows import (
    Passes,
    PatientRows,
    membership_items,
    patient_rows,
    run_passes,
    written_rows,
)
from lora_med.workflows.memorization.twin_run import check_same_data, refuse_unauditable, twin_settings, with_canaries
from lora_med.workflows.train import TrainingBase, open_data
from lora_med.workflows.train_text import TextTask

MOST_TOSSES = 20  # of all coins, before the training
SHAPE_RECORDS = 200  # that show which options and types the data have
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Audit:
    """The content of report.json, and the folder with the report."""

    content: dict[str, Any]
    folder: Path


def audit_memorization(
    name: str, options: AuditOptions, *, advance: Callable[[int, int], None] = lambda done, total: None
) -> Audit:
    """Audit adapter `name`, write the report into `options.out`, and the figures into the adapter's card.

    Args:
        advance: called while the base writes canaries, with what is done and the total.

    Raises:
        SettingsError: an option is impossible, or the adapter is of a kind that cannot be audited.
        IntegrityError: the files are not those that the adapter learned from.
        InputMissingError, DataError, StoppedError, DivergedError, OutputError: as training and evaluation raise them.
    """
    begun = time.monotonic()
    options.check()
    adapter = open_published(name, options.store, options.base, options.revision)
    refuse_unauditable(adapter.card)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = twin_settings(adapter, options.store, options.out, data=options.data, overrides=options.overrides)
    corpus, twin = _twin(adapter, settings, options, advance) if options.twin else (_corpus(adapter, settings), None)
    patients, tokenizer = _patients(adapter, settings, corpus, options)
    result = Result(adapter, settings, options, twin, patients, round(time.monotonic() - begun, 1))
    content = write_result(result, tokenizer)
    record_audit(adapter.folder, result.card_entry(content))
    if adapter.card.data.access == "credentialed":
        keep_private(options.out)
        keep_private(adapter.folder)
    return Audit(content, options.out)


def _corpus(adapter: Published, settings: Settings) -> Corpus:
    corpus = open_corpus(settings.data, access=settings.adapter.access)
    check_same_data(adapter.card, corpus)
    return corpus


# ---- The twin and its canaries ----


def _twin(
    adapter: Published, settings: Settings, options: AuditOptions, advance: Callable[[int, int], None]
) -> tuple[Corpus, CanaryResult]:
    """Train the twin and attack it; the corpus is that of the adapter's run."""
    named = f"twin-{options.writer}-{options.canaries}-{'_'.join(map(str, options.repeats))}-{options.seed}"
    train = settings.train.model_copy(update={"output_dir": str(options.out / named)})
    settings = settings.model_copy(update={"train": train})
    with open_data(settings) as data:
        corpus = data.corpus
        check_same_data(adapter.card, corpus)
        shape = shape_of(_of_source(corpus, settings)[:SHAPE_RECORDS], corpus.templates[settings.data.source])
        ready = data.load_base()
        notes = write_notes(options.canaries, options.writer, ready.base, seed=options.seed, advance=advance)
        canaries = toss_fairly(draw_canaries(notes, options.repeats, seed=options.seed), shape, seed=options.seed)
        sha256 = seal(canaries, options.out)
        data.run.record(canaries={"list": LIST, "sha256": sha256, "members": sum(each.is_member for each in canaries)})
        logger.info("%d canaries sealed, SHA-256 %s; the twin trains now", len(canaries), sha256)
        rows = canary_rows(canaries, shape, ready.base, settings)
        before = run_passes(ready.base.model, rows)
        added = with_canaries(corpus, training_records(canaries, shape), sha256)
        trained = TrainingBase(replace(ready.data, corpus=added), ready.base).attach().train()
        after = run_passes(trained.model.eval(), rows)
    items = canary_items(canaries, rows, after, before)
    reading = read_membership(items, seed=options.seed, delta=options.delta)
    return corpus, CanaryResult(sha256, canaries, reading, _extraction(rows, after, before, items, options))


def toss_fairly(canaries: Sequence[Canary], shape: Shape, *, seed: int) -> list[Canary]:
    """The canaries under the first coins by which the blind attack is at chance; this is before any training.

    One list in twenty is unlucky: its members differ from the others by their words. The training could not be read.
    """
    texts = tuple("\n".join(texts_of(shape.record(canary))) for canary in canaries)
    drawn = list(canaries)
    for toss in range(1, MOST_TOSSES):
        members = np.array([canary.is_member for canary in drawn])
        repeats = np.array([canary.repeats for canary in drawn])
        items = Items(tuple(canary.uid for canary in drawn), members, repeats, texts, {})
        if blind_area(items, seed=seed).is_chance:
            break
        logger.info("the words of the members would tell them from the others: the coins are tossed again")
        drawn = toss_again(drawn, seed=seed + (toss << 32))
    return drawn


def canary_rows(canaries: Sequence[Canary], shape: Shape, base: Base, settings: Settings) -> list[PatientRows]:
    """The rows of the canaries, one patient each.

    Raises:
        SettingsError: the template makes no row of a canary, or none that fits `train.max_length`.
    """
    records = [shape.record(canary) for canary in canaries]
    rows = patient_rows(records, shape.template, base.tokenizer, settings.train, skip_bad=False)
    if len(rows) < len(canaries) or any(len(each.rows) > 1 for each in rows):
        raise SettingsError(
            f"{len(canaries) - len(rows)} of {len(canaries)} canaries make no row of their own with the template "
            f"{shape.template!r} in {settings.train.max_length} tokens",
            where="train.max_length, data.template",
            fix="--no-twin reads the patients of the data alone",
        )
    return rows


def canary_items(canaries: Sequence[Canary], rows: Sequence[PatientRows], adapter: Passes, base: Passes) -> Items:
    """The canaries with their scores, their coins and their repeats."""
    return membership_items(
        rows,
        adapter,
        base,
        is_member=[canary.is_member for canary in canaries],
        repeats=[canary.repeats for canary in canaries],
    )


# ---- The adapter and its patients ----


def _patients(
    adapter: Published, settings: Settings, corpus: Corpus, options: AuditOptions
) -> tuple[PatientResult, Any]:
    """Attacks on the adapter itself: patients that it was trained on against patients that were held out.

    With the tokenizer, which spells what was found.
    """
    task = TextTask()
    base = task.with_template(task.load_base(settings.model), settings, corpus)
    if adapter.card.tokens:
        add_tokens(base, adapter.card.tokens)
    template = corpus.templates[settings.data.source]
    sides = [
        _drawn(records, template, base, settings, options)
        for records in (_of_source(corpus, settings), _held_out(settings, corpus))
    ]
    rows = [*sides[0], *sides[1]]
    if not rows:
        raise DataError("no record of the data makes a row", where="data.paths", fix="lora-med data check --config F")
    before = run_passes(base.model, rows)
    after = run_passes(attach_opened(base, adapter), rows)
    is_member = [*(True for _ in sides[0]), *(False for _ in sides[1])]
    items = membership_items(rows, after, before, is_member=is_member, repeats=[1] * len(rows))
    reading: Reading | None = None
    if items.enough():
        reading = read_membership(items, seed=options.seed, delta=options.delta)
    extraction = _extraction(rows, after, before, items, options)
    return PatientResult(reading, len(sides[0]), len(sides[1]), extraction), base.tokenizer


def _of_source(corpus: Corpus, settings: Settings) -> list[Record]:
    """The training records of the run's first source; canaries and patients are its."""
    return [record for record in corpus.train if record.source == settings.data.source]


def _held_out(settings: Settings, corpus: Corpus) -> list[Record]:
    """The records of the source that no training saw: its test split, and its validation split."""
    try:
        heldout = open_heldout(settings.data, "test", with_validation=True, access=settings.adapter.access)
    except DataError:
        return [record for record in corpus.validation if record.source == settings.data.source]
    return [*heldout.records, *heldout.validation]


def _drawn(
    records: Sequence[Record], template: str, base: Base, settings: Settings, options: AuditOptions
) -> list[PatientRows]:
    """The rows of at most `options.patients` groups of the records, drawn by the seed."""
    groups = sorted({record.group for record in records})
    random.Random(f"patients {options.seed}").shuffle(groups)
    chosen = set(groups[: options.patients])
    kept = [record for record in records if record.group in chosen]
    return patient_rows(kept, template, base.tokenizer, settings.train, skip_bad=settings.data.skip_bad)


def _extraction(
    rows: Sequence[PatientRows], adapter: Passes, base: Passes, items: Items, options: AuditOptions
) -> Extraction:
    written = written_rows(rows, adapter, base)
    members = {uid for uid, is_member in zip(items.uids, items.is_member, strict=True) if is_member}
    repeats = dict(zip(items.uids, items.repeats.tolist(), strict=True))
    return Extraction.of(written, SharedText(written), options.others, members, repeats)

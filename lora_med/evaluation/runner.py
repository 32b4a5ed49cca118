"""evaluate(): the base and its adapters on the same held-out items, in one process, the base loaded once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.bank import Bank
from lora_med.adapters.card import read_card
from lora_med.adapters.store import find_adapter
from lora_med.adapters.swap import load_many, use
from lora_med.data.access import strictest
from lora_med.data.catalog import find_source
from lora_med.data.corpus import HeldOut
from lora_med.data.record import Record
from lora_med.errors import DataError
from lora_med.evaluation.confidence import Fitted, confidence, fit
from lora_med.evaluation.measures import (
    TEXT_MEASURES,
    Change,
    Measure,
    Numbers,
    changes,
    choice_measures,
    choice_table,
    text_table,
    values,
)
from lora_med.evaluation.results import Answers, Evaluation, Item, Recall, Subject, commonest
from lora_med.evaluation.samples import write_samples
from lora_med.evaluation.score import score_options, score_text
from lora_med.evaluation.tasks import ChoiceItem, TextItem, choice_items, task_of, text_items
from lora_med.metrics.classify import confusion
from lora_med.metrics.significance import mcnemar, wilson
from lora_med.models.base import Base
from lora_med.prompts.render import fitting
from lora_med.run import versions

OPEN = "open"
MOST_CONTEXT = 4096


def context_of(base: Base) -> int:
    """The longest row to score, in tokens: what the base was made for, but at most 4,096, for the memory's sake."""
    config = base.model.config
    known = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    return min([MOST_CONTEXT, *(int(size) for size in known if size)])


def evaluate(
    base: Base,
    adapters: Sequence[str],
    records: Sequence[Record],
    *,
    template: str,
    source: str,
    split: str = "test",
    store: Path | str = "adapters",
    bank: Bank | None = None,
    max_items: int | None = None,
    bootstrap_samples: int = 10_000,
    seed: int = 42,
    samples: int = 3,
    validation: Sequence[Record] = (),
) -> Evaluation:
    """Scores of the base and of each adapter on the records, with paired 95% intervals and verdicts.

    Args:
        base: as `load_base` gave it.
        adapters: at least one name in the store.
        records: held-out records, as `open_heldout` gives them.
        template: the prompt template; one with options makes it a task of choice.
        source: the records' source, which decides whether texts may be shown.
        split: the name of the held-out part, for the report.
        store: where the adapters are.
        bank: the base with these adapters, as `load_many` gave it; None makes one, and closes it at the end.
        max_items: draw at most this many records, by `seed`.
        bootstrap_samples: resamples behind each interval.
        seed: of the draw, the resampling and the samples.
        validation: records on which temperature and threshold of questions with options are chosen; never `records`.
        samples: how many texts to let each subject write; none for records that are not open.

    Raises:
        BaseMismatchError: an adapter was trained on another base.
        SettingsError: the records are not what the template takes, or no adapter is named.
        DataError: no records, or none with anything to score.
        DivergedError: a model gives values that are not finite.
    """
    chosen = _draw(fitting(records, template), max_items, seed)
    cards = [read_card(find_adapter(name, store)) for name in adapters]
    known = records.access if isinstance(records, HeldOut) else None
    access = strictest([find_source(source).access, known, *(card.data.access for card in cards)])
    task = task_of(template)
    loaded = load_many(base, adapters, store) if bank is None else bank
    scored = _Scored(loaded, (None, *adapters), bootstrap_samples, seed)
    try:
        found = (
            scored.text(chosen, template)
            if task == "text"
            else scored.choice(chosen, template, fitting(validation, template))
        )
        shown = chosen[:samples] if access == OPEN else []
        written = write_samples(loaded, scored.names, shown, template, seed=seed)
    finally:
        if bank is None:
            loaded.close()
    about = {"task": task, "source": source, "split": split, "template": template, "access": access}
    return scored.evaluation(samples=written, **about, **found)


def describe(base: Base) -> dict[str, object]:
    """The base as reports name it."""
    return {
        "name": base.name,
        "revision": base.revision,
        "weights": base.fingerprint.weights,
        "quantisation": base.quantisation,
        "dtype": base.dtype,
        "context": context_of(base),
    }


def _draw(records: Sequence[Record], most: int | None, seed: int) -> list[Record]:
    if not records:
        raise DataError("there are no held-out records to score", fix="check data.paths, the split and its share")
    if most is None or len(records) <= most:
        return list(records)
    kept = sorted(random.Random(seed).sample(range(len(records)), most))
    return [records[index] for index in kept]


@dataclass(frozen=True)
class _Scored:
    """Base and adapters under evaluation; `names` begins with None, the base."""

    bank: Bank
    names: tuple[str | None, ...]
    resamples: int
    seed: int

    def evaluation(self, **parts: Any) -> Evaluation:
        """The parts as one value, with what base and settings they came from."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Evaluation(
            base=describe(self.bank.base),
            bootstrap_samples=self.resamples,
            seed=self.seed,
            versions=versions(),
            created=now,
            **parts,
        )

    def runs(self, run: Callable[[], Any]) -> Iterator[tuple[str | None, Any, float]]:
        """Name, result and seconds of `run` under the base and each adapter in turn."""
        for name in self.names:
            with use(self.bank, name):
                begun = time.perf_counter()
                result = run()
                seconds = time.perf_counter() - begun
            yield name, result, seconds

    def measured(self, measures: Sequence[Measure], table: Numbers, first: Numbers, groups: Sequence[str]) -> Any:
        """Values and changes of one subject; no changes where it is the first itself."""
        options = {"samples": self.resamples, "seed": self.seed}
        changed = {} if table is first else changes(measures, first, table, groups, **options)
        return {"values": values(measures, table, groups, **options), "changes": changed}

    def text(self, records: Sequence[Record], template: str) -> dict[str, Any]:
        """Items, measures and subjects of running text."""
        base = self.bank.base
        items = text_items(records, template, base.model, base.tokenizer)
        groups = [item.group for item in items]
        rows = [(item.input_ids, item.first, item.unscored) for item in items]
        sizes = [item.tokens for item in items], [item.size_bytes for item in items]
        context = context_of(base)
        subjects: list[Subject] = []
        first: Numbers | None = None
        for name, nll, seconds in self.runs(lambda: score_text(base.model, rows, context)):
            table = text_table(nll, *sizes)
            first = table if first is None else first
            measured = self.measured(TEXT_MEASURES, table, first, groups)
            subjects.append(Subject(name, scores=tuple((one,) for one in nll), seconds=seconds, **measured))
        return {"items": tuple(map(_text_item, items)), "measures": TEXT_MEASURES, "subjects": tuple(subjects)}

    def fitted(self, records: Sequence[Record], template: str) -> dict[str | None, Fitted]:
        """Temperature and threshold of each subject, from validation records."""
        base = self.bank.base
        items = choice_items(records, template, base.model, base.tokenizer)
        rows = [(item.prompt_ids, item.option_ids) for item in items]
        places = [item.labels.index(item.answer) for item in items]
        context = context_of(base)
        return {
            name: fit(scores, places) for name, scores, _ in self.runs(lambda: score_options(base.model, rows, context))
        }

    def choice(self, records: Sequence[Record], template: str, validation: Sequence[Record]) -> dict[str, Any]:
        """Items, measures, subjects and labels of questions with options."""
        base = self.bank.base
        items = choice_items(records, template, base.model, base.tokenizer)
        labels = tuple(dict.fromkeys(label for item in items for label in item.labels))
        closed = all(set(item.labels) == set(labels) for item in items)
        measures = choice_measures(labels) if closed else choice_measures(labels)[:1]
        truth, groups = [item.answer for item in items], [item.group for item in items]
        places = [item.labels.index(item.answer) for item in items]
        fitted = self.fitted(validation, template) if validation else {}
        rows = [(item.prompt_ids, item.option_ids) for item in items]
        constant = choice_table(truth, [commonest(truth)] * len(truth), labels)
        context = context_of(base)
        subjects: list[Subject] = []
        first: tuple[Numbers, list[bool]] | None = None
        for name, scores, seconds in self.runs(lambda: score_options(base.model, rows, context)):
            predicted = [item.labels[one.index(max(one))] for item, one in zip(items, scores, strict=True)]
            table = choice_table(truth, predicted, labels)
            right = [a == b for a, b in zip(truth, predicted, strict=True)]
            first = (table, right) if first is None else first
            over_majority = self.measured(measures[:1], table, constant, groups)["changes"]["accuracy"]
            subjects.append(
                Subject(
                    name,
                    scores=tuple(tuple(one) for one in scores),
                    seconds=seconds,
                    answers=_answers(truth, predicted, labels, over_majority),
                    mcnemar=None if name is None else mcnemar(first[1], right),
                    confidence=confidence(scores, places, fitted.get(name)),
                    **self.measured(measures, table, first[0], groups),
                )
            )
        return {
            "items": tuple(Item(one.uid, one.group, labels=one.labels, answer=one.answer) for one in items),
            "measures": measures,
            "subjects": tuple(subjects),
            "labels": labels,
            "cut_prompts": sum(_too_long(item, context) for item in items),
        }


def _text_item(item: TextItem) -> Item:
    return Item(item.uid, item.group, item.tokens, item.size_bytes)


def _too_long(item: ChoiceItem, context: int) -> bool:
    return len(item.prompt_ids) + max(len(option) for option in item.option_ids) - 1 > context


def _answers(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str], over_majority: Change) -> Answers:
    table = confusion(truth, predicted, labels)
    recall = {
        label: Recall(row[index], sum(row), wilson(row[index], sum(row)))
        for index, (label, row) in enumerate(zip(labels, table, strict=True))
        if sum(row)
    }
    return Answers(tuple(predicted), tuple(map(tuple, table)), recall, over_majority)

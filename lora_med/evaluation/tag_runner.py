"""evaluate_taggers(): score adapters that tag tokens, in the same tables as adapters that write entities.

Each adapter has a head of its own, and therefore a base object of its own. They are compared with a base without an
adapter, which tags nothing, because its head is zero.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.attach import detach
from lora_med.adapters.runtime.open_tagger import load_opened_tagger
from lora_med.adapters.store.base_data import strictest_with_base
from lora_med.adapters.store.published import AdapterFiles
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Annotated, Record, Span
from lora_med.errors import DataError
from lora_med.evaluation.eval_options import EvalOptions
from lora_med.evaluation.measures import Measure, Numbers
from lora_med.evaluation.results import Evaluation, Item
from lora_med.evaluation.runner import OPEN, check_heldout, describe, open_adapters
from lora_med.evaluation.scorer import Answered
from lora_med.evaluation.scorers.entity_answers import seen_mentions
from lora_med.evaluation.scorers.entity_scorer import DictionaryBaseline
from lora_med.evaluation.scorers.tag_answers import (
    TagItem,
    answer_tags,
    tag_items,
    tag_measures,
    tag_table,
)
from lora_med.evaluation.statistics.intervals import Statistics
from lora_med.models.base import Base
from lora_med.models.generation import RunBatches, in_order
from lora_med.prompts.templates.entity_json import read_entities, write_list
from lora_med.run import versions

TEMPLATE = "tags"


def evaluate_taggers(
    adapters: Sequence[str | AdapterFiles],
    heldout: HeldOutRecords,
    options: EvalOptions,
    *,
    base: str | None = None,
    run: RunBatches = in_order,
) -> Evaluation:
    """Scores of each tagger on the held-out texts, with 95% intervals, beside a base that tags nothing.

    Args:
        adapters: names in `options.store`, or adapters that are already open; all with labels.
        heldout: annotated texts; their training records serve unseen mentions and the dictionary baseline.
        options: template, scoring, metrics and prompt options are not used here.
        base: where the base is, if it is not where the cards say.
        run: runs the batches of texts; `SharedBatches` shares them with processes that `contribute_tags`.

    Raises:
        SettingsError: an adapter writes text, or a record is no annotated text.
        DataError: no records, or none with a mention.
        BaseMismatchError: an adapter was trained on another base.
    """
    drawn = _drawn(heldout, options)
    opened = open_adapters(adapters, options.store)
    scorer, answered, described_base = None, dict[str | None, Answered](), dict[str, object]()
    bases: list[str | Path] = []
    for adapter, (loaded, items, spans, seconds) in zip(opened, _tagged(opened, drawn, base, run), strict=True):
        if scorer is None:
            scorer, described_base = _TagScorer(items, drawn.training), describe(loaded)
            answered[None] = scorer.answered(scorer.outputs(run))
        bases += [loaded.name, loaded.folder]
        answered[adapter.name] = replace(scorer.answered(spans), seconds=seconds)
    if scorer is None:
        raise DataError("no adapter is named", fix="lora-med adapters list")
    access = strictest_with_base([drawn.access, *(adapter.card.data.access for adapter in opened)], *bases)
    statistics = Statistics(scorer, "entities", options.bootstrap_samples, options.seed, access == OPEN)
    return Evaluation(
        scoring="entities",
        source=drawn.source,
        split=drawn.split,
        template=TEMPLATE,
        access=access,
        base=described_base,
        items=scorer.items,
        measures=scorer.measures,
        subjects=statistics.subjects(answered, {}),
        bootstrap_samples=options.bootstrap_samples,
        seed=options.seed,
        layout=scorer.layout,
        baselines=statistics.baselines(),
        notes=scorer.notes,
        versions=versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        published=drawn.published,
        left_out=drawn.left_out_of(len(scorer.items)),
    )


def contribute_tags(
    adapters: Sequence[AdapterFiles],
    heldout: HeldOutRecords,
    options: EvalOptions,
    *,
    base: str | None,
    run: RunBatches,
) -> None:
    """This process's share of the batches of an evaluation that another process reports by `evaluate_taggers`.

    Raises:
        LoraMedError: as `evaluate_taggers`.
    """
    for _ in _tagged(adapters, _drawn(heldout, options), base, run):
        pass


def _drawn(heldout: HeldOutRecords, options: EvalOptions) -> HeldOutRecords:
    """The annotated records to score."""
    check_heldout(heldout)
    annotated = (record for record in heldout if isinstance(record, Annotated))
    return heldout.with_records(annotated, "not annotated").draw(options.max_items, options.seed)


def _tagged(
    adapters: Sequence[AdapterFiles], drawn: HeldOutRecords, base: str | None, run: RunBatches
) -> Iterator[tuple[Base, list[TagItem], list[list[Span]], float]]:
    """For each adapter its base, its items, their mentions, and the seconds that the mentions took."""
    for adapter in adapters:
        loaded, model = load_opened_tagger(adapter, base=base)
        length = adapter.card.settings.get("train", {}).get("max_length") or 1024
        items = tag_items(drawn.records, loaded.tokenizer, int(length))
        started = time.perf_counter()
        spans = answer_tags(model, loaded.tokenizer, items, loaded.labels, run=run)
        seconds = time.perf_counter() - started
        detach(model)
        yield loaded, items, spans, seconds


class _TagScorer:
    """The texts and their gold mentions; see `Scorer`."""

    prompts: tuple[str, ...] = ()
    notes = ("A base without an adapter tags nothing, because its head is zero.",)

    def __init__(self, items: Sequence[TagItem], training: Sequence[Record]) -> None:
        self._tag_items = items
        self._types = tuple(sorted({mention.type for item in items for mention in item.gold}))
        self._seen_in_training = seen_mentions(training)
        self._dictionary = DictionaryBaseline(training) if self._seen_in_training else None
        self.items = tuple(Item(item.uid, item.group) for item in items)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The layout of written entities."""
        return {"types": list(self._types), "unseen": bool(self._seen_in_training)}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of `tag_measures`."""
        return tag_measures(self._types, with_unseen=bool(self._seen_in_training))

    @property
    def references(self) -> tuple[str, ...]:
        """The gold mentions as JSON."""
        return tuple(write_list((mention.type, mention.text) for mention in item.gold) for item in self._tag_items)

    def outputs(self, run: RunBatches) -> list[list[Span]]:
        """No mention, as from a base without an adapter."""
        return [[] for _ in self._tag_items]

    def answered(self, outputs: Sequence[Sequence[Span]]) -> Answered:
        """A tagger's mentions, in the form of all answers."""
        table = tag_table(self._tag_items, outputs, self._types, self._seen_in_training)
        lists = tuple(write_list((span.type, span.text) for span in spans) for spans in outputs)
        return Answered(table, tuple({"mentions": len(spans)} for spans in outputs), lists, lists)

    def baselines(self) -> Mapping[str, Numbers]:
        """The dictionary baseline: marking every text that training marked."""
        if self._dictionary is None:
            return {}
        spans = [read_entities(self._dictionary.answer(item.text), item.text).spans for item in self._tag_items]
        return {
            "Dictionary baseline: entities marked in training": tag_table(
                self._tag_items, spans, self._types, self._seen_in_training
            )
        }

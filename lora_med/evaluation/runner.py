"""evaluate(): the base and its adapters on the same held-out items, in one process, the base loaded once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.store import find_adapter
from lora_med.data.access import Access, strictest
from lora_med.data.catalog import find_source
from lora_med.data.corpus import HeldOut
from lora_med.data.record import Record
from lora_med.errors import DataError
from lora_med.evaluation.results import BASE, Evaluation, Sample
from lora_med.evaluation.samples import write_samples
from lora_med.evaluation.scorer import Answered, Scorer
from lora_med.evaluation.scorers.registry import PromptOptions, ScorerInputs, make_scorer
from lora_med.evaluation.statistics.intervals import Statistics
from lora_med.evaluation.statistics.over_seeds import same_recipe
from lora_med.evaluation.tasks import Scoring, check_scoring, scoring_of
from lora_med.metrics.custom_metric import Metric
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
    scoring: Scoring | None = None,
    split: str = "test",
    store: Path | str = "adapters",
    pool: AdapterPool | None = None,
    max_items: int | None = None,
    bootstrap_samples: int = 10_000,
    seed: int = 42,
    samples: int = 3,
    validation: Sequence[Record] = (),
    training: Sequence[Record] = (),
    prompt_options: PromptOptions | None = None,
    metrics: Mapping[str, Metric] | None = None,
    lower_is_better: Collection[str] = (),
) -> Evaluation:
    """Scores of the base and of each adapter on the records, with paired 95% intervals and verdicts.

    Args:
        adapters: names in the `store`; none scores the base alone.
        records: held-out records of `source`, as `open_heldout` gives them; at most `max_items` are drawn by `seed`.
        scoring: how answers are scored; None takes what the template is made for.
        bank: the base with these adapters, as `load_many` gave it; None makes one, and closes it at the end.
        samples: how many written texts to show of each subject; none for records that are not open.
        validation: records on which temperature and threshold of questions with options are chosen; never `records`.
        training: records for solved examples, unseen mentions and baselines; never `records`.
        metrics: functions of the user's own by name, as `load_metric` gives them.
        lower_is_better: the names among their numbers for which less is better.

    Raises:
        BaseMismatchError: an adapter was trained on another base.
        SettingsError: the records are not what the template takes, or what is asked does not fit the scoring.
        DataError: no records, two with one uid, or none with anything to score.
        DivergedError: a model gives values that are not finite.
    """
    kind = scoring if scoring is not None else scoring_of(template)
    check_scoring(template, kind)
    chosen = draw(fitting(records, template), max_items, seed)
    access = access_of(records, source, adapters, store)
    inputs = ScorerInputs(
        base, context_of(base), chosen, template, prompt_options or PromptOptions(), training, validation, seed
    )
    with _opened(base, adapters, store, pool) as loaded:
        scorer = make_scorer(kind, inputs)
        answered = _answers(loaded, (None, *adapters), scorer)
        shown = chosen[:samples] if access == OPEN else []
        written = _shown(scorer, answered, len(shown)) or write_samples(
            loaded, list(answered), shown, template, seed=seed
        )
    statistics = Statistics(scorer, kind, bootstrap_samples, seed, access == OPEN)
    subjects = statistics.subjects(answered, statistics.custom(metrics or {}, answered, lower_is_better))
    recipes = tuple(same_recipe({name: read_card(find_adapter(name, store)) for name in adapters}))
    about = {"source": source, "split": split, "access": access, "samples": written, "subjects": subjects}
    return _evaluation(inputs, statistics, recipes=recipes, **about)


def access_of(records: Sequence[Record], source: str, adapters: Sequence[str], store: Path | str) -> Access:
    """The strictest class of the records and of what the adapters were trained on."""
    cards = [read_card(find_adapter(name, store)) for name in adapters]
    known = records.access if isinstance(records, HeldOut) else None
    return strictest([find_source(source).access, known, *(card.data.access for card in cards)])


@contextmanager
def _opened(base: Base, adapters: Sequence[str], store: Path | str, pool: AdapterPool | None) -> Iterator[AdapterPool]:
    """The bank that was given, or one with the adapters in memory until the end."""
    if pool is not None:
        yield pool
        return
    loaded = load_many(base, adapters, store) if adapters else AdapterPool(base, store)
    try:
        yield loaded
    finally:
        loaded.close()


def _evaluation(inputs: ScorerInputs, statistics: Statistics, **about: Any) -> Evaluation:
    """The parts as one value, with what base and settings they came from."""
    scorer = statistics.scorer
    return Evaluation(
        scoring=statistics.scoring,
        template=inputs.template,
        base=describe(inputs.base),
        items=scorer.items,
        measures=scorer.measures,
        bootstrap_samples=statistics.resamples,
        seed=inputs.seed,
        layout=scorer.layout,
        baselines=statistics.baselines(),
        notes=scorer.notes,
        asked=asdict(inputs.prompt_options),
        versions=versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **about,
    )


def describe(base: Base) -> dict[str, object]:
    """The base as reports name it."""
    return {
        "name": base.name,
        "revision": base.revision,
        "weights": base.fingerprint.weights,
        "quantization": base.quantization,
        "dtype": base.dtype,
        "context": context_of(base),
    }


def draw(records: Sequence[Record], most: int | None, seed: int) -> list[Record]:
    """At most so many of the records, by seed, in their order.

    Raises:
        DataError: there is none, or two have one uid.
    """
    if not records:
        raise DataError("there are no held-out records to score", fix="check data.paths, the split and its share")
    twice = [uid for uid, count in Counter(record.uid for record in records).items() if count > 1]
    if twice:
        raise DataError(f"{len(twice)} uids are given twice, the first is {twice[0]}", fix="one uid for each record")
    if most is None or len(records) <= most:
        return list(records)
    kept = sorted(random.Random(seed).sample(range(len(records)), most))
    return [records[index] for index in kept]


def _answers(pool: AdapterPool, names: Sequence[str | None], scorer: Scorer) -> dict[str | None, Answered]:
    """What each subject answered."""
    answered: dict[str | None, Answered] = {}
    for name in names:
        begun = time.perf_counter()
        with use(pool, name):
            found = scorer.answer()
        answered[name] = replace(found, seconds=time.perf_counter() - begun)
    return answered


def _shown(scorer: Scorer, answered: Mapping[str | None, Answered], count: int) -> tuple[Sample, ...]:
    """The first answers as samples, where the task itself is to write; the work's prompts are empty where it is not."""
    return tuple(
        Sample(
            scorer.items[place].uid,
            scorer.prompts[place],
            scorer.references[place],
            {BASE if name is None else name: one.written[place] for name, one in answered.items()},
        )
        for place in range(min(count, len(scorer.prompts)))
    )

"""evaluate(): score the base and its adapters on the same held-out items, the base loaded once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.adapters.store.base_data import strictest_with_base
from lora_med.adapters.store.published import AdapterFiles, open_files, shared_chat_template
from lora_med.adapters.store.store import find_adapter
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.shapes.preferences import FAITHFULNESS, mined_by
from lora_med.errors import SettingsError
from lora_med.evaluation.eval_options import EvalOptions
from lora_med.evaluation.results import BASE, Evaluation, Sample
from lora_med.evaluation.samples import write_samples
from lora_med.evaluation.scorer import Answered, Scorer
from lora_med.evaluation.scorers.registry import ScorerInputs, make_scorer
from lora_med.evaluation.statistics.intervals import Statistics
from lora_med.evaluation.statistics.over_seeds import same_recipe
from lora_med.evaluation.tasks import Scoring
from lora_med.models.base import Base
from lora_med.models.generation import RunBatches, in_order
from lora_med.models.tokens.vocabulary import add_tokens
from lora_med.prompts.render import fitting
from lora_med.prompts.templates.templates import is_chat
from lora_med.run import versions

OPEN = "open"
MOST_CONTEXT = 4096


def context_of(base: Base) -> int:
    """The longest row to score, in tokens: the base's own limit, but at most 4,096 because of memory."""
    config = base.model.config
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    return min([MOST_CONTEXT, *(int(size) for size in limits if size)])


def evaluate(
    base: Base,
    adapters: Sequence[str | AdapterFiles],
    heldout: HeldOutRecords,
    options: EvalOptions,
    *,
    pool: AdapterPool | None = None,
    run: RunBatches = in_order,
) -> Evaluation:
    """Scores of the base and of each adapter on the held-out records, with paired 95% intervals and verdicts.

    Args:
        adapters: names in `options.store`, or adapters that are already open; none scores the base alone.
        heldout: as `open_heldout` returns them; a plain list is refused, because it carries no access class.
        pool: the base with these adapters, as `load_many` returns it; None makes one and closes it at the end.
        run: runs the batches of items; `SharedBatches` shares them with processes that `contribute`.

    Raises:
        BaseMismatchError: an adapter was trained on another base.
        SettingsError: `heldout` is a plain list, the template does not take its records, or an option does not fit the
            scoring.
        DataError: no records, two with the same uid, or none with anything to score.
        DivergedError: a model returns values that are not finite.
    """
    opened = open_adapters(adapters, options.store)
    scoring, inputs = _inputs(base, opened, heldout, options)
    options, drawn = inputs.options, inputs.heldout
    access = strictest_with_base(
        [drawn.access, *(adapter.card.data.access for adapter in opened)], inputs.base.name, inputs.base.folder
    )
    with _pool(inputs.base, opened, options.store, pool) as loaded:
        scorer = _scorer(scoring, inputs, opened)
        answered = _answers(loaded, _subjects(opened), scorer, run)
        shown = drawn.records[: options.samples] if access == OPEN else ()
        samples = _written_samples(scorer, answered, len(shown)) or write_samples(
            loaded, list(answered), shown, options.template, seed=options.seed
        )
    statistics = Statistics(scorer, scoring, options.bootstrap_samples, options.seed, access == OPEN)
    custom = statistics.custom(options.metrics, answered, options.lower_is_better)
    subjects = statistics.subjects(answered, custom)
    recipes = tuple(same_recipe({adapter.name: adapter.card for adapter in opened}))
    notes = (*scorer.notes, *_notes_on_checks(scoring, opened))
    options_of = {"access": access, "samples": samples, "subjects": subjects, "recipes": recipes, "notes": notes}
    return _evaluation(inputs, statistics, **options_of)


def contribute(
    base: Base,
    adapters: Sequence[AdapterFiles],
    heldout: HeldOutRecords,
    options: EvalOptions,
    *,
    pool: AdapterPool,
    run: RunBatches,
) -> None:
    """This process's share of the batches of an evaluation that another process reports by `evaluate`.

    Raises:
        LoraMedError: as `evaluate`.
    """
    scoring, inputs = _inputs(base, adapters, heldout, options)
    scorer = _scorer(scoring, inputs, adapters)
    for name in _subjects(adapters):
        with use(pool, name):
            scorer.outputs(run)


def _inputs(
    base: Base, opened: Sequence[AdapterFiles], heldout: HeldOutRecords, options: EvalOptions
) -> tuple[Scoring, ScorerInputs]:
    """The scoring, and what its scorer is made from: the items that are drawn, under the options of their source."""
    check_heldout(heldout)
    options = options.for_source(heldout.source)
    scoring = options.checked_scoring()
    fitted = heldout.with_records(fitting(heldout, options.template), "not what the template needs")
    drawn = fitted.draw(options.max_items, options.seed)
    base = with_template_of(base, opened, options.template)
    return scoring, ScorerInputs(base, context_of(base), drawn, options)


def _scorer(scoring: Scoring, inputs: ScorerInputs, opened: Sequence[AdapterFiles]) -> Scorer:
    """The scorer, whose base has the tokens that the adapters bring; a pool has given them to its own Base only."""
    for adapter in opened:
        if adapter.card.tokens:
            add_tokens(inputs.base, adapter.card.tokens)
    return make_scorer(scoring, inputs)


def _subjects(opened: Sequence[AdapterFiles]) -> list[str | None]:
    """The base, then the adapters."""
    return [None, *(adapter.name for adapter in opened)]


def with_template_of(base: Base, adapters: Sequence[AdapterFiles], *templates: str) -> Base:
    """The base with the chat template that the adapters were trained with, if one of the `templates` is a conversation.

    Raises:
        SettingsError: they were trained with different ones.
    """
    return base.with_chat_template(shared_chat_template(adapters)) if any(map(is_chat, templates)) else base


def check_heldout(heldout: object) -> None:
    """Refuse records without an access class: nobody knows who may read them.

    Raises:
        SettingsError: what is given is no `HeldOutRecords`.
    """
    if not isinstance(heldout, HeldOutRecords):
        raise SettingsError(
            f"expected HeldOutRecords, got {type(heldout).__name__}, which carries no access class",
            where="evaluate",
            fix="pass what lora_med.open_heldout returns, or HeldOutRecords(records, access=..., source=...)",
        )


def open_adapters(adapters: Sequence[str | AdapterFiles], store: Path | str) -> list[AdapterFiles]:
    """The adapters, each card read and each file verified once; names are opened in the store.

    Raises:
        InputMissingError: there is no such adapter.
        IntegrityError: a file is not the one that was published.
    """
    return [open_files(find_adapter(adapter, store)) if isinstance(adapter, str) else adapter for adapter in adapters]


def pool_of(base: Base, opened: Sequence[AdapterFiles], store: Path | str) -> AdapterPool:
    """The base with the open adapters in memory."""
    names = [adapter.name for adapter in opened]
    return load_many(base, names, store, opened=opened) if names else AdapterPool(base, store)


@contextmanager
def _pool(
    base: Base, opened: Sequence[AdapterFiles], store: Path | str, pool: AdapterPool | None
) -> Iterator[AdapterPool]:
    """The pool that was passed, or one with the adapters in memory until the end."""
    if pool is not None:
        yield pool
        return
    loaded = pool_of(base, opened, store)
    try:
        yield loaded
    finally:
        loaded.close()


def _notes_on_checks(scoring: Scoring, opened: Sequence[AdapterFiles]) -> Iterator[str]:
    """For each adapter that learned from what the check of faithfulness chose: that it is no score of this adapter."""
    for adapter in opened if scoring == "writing" else ():
        remarks = [remark for entry in adapter.card.data.columns for remark in entry.get("remarks", ())]
        if any(mined_by(FAITHFULNESS) in remark for remark in remarks):
            yield (
                f"{adapter.name} learned from pairs that the check of faithfulness chose: facts, numbers and words not "
                "in the source, and changed findings and sides, are no score of it."
            )


def _evaluation(inputs: ScorerInputs, statistics: Statistics, **about: Any) -> Evaluation:
    """The results as one value, with the base and the settings that produced them."""
    scorer = statistics.scorer
    return Evaluation(
        scoring=statistics.scoring,
        source=inputs.heldout.source,
        split=inputs.heldout.split,
        template=inputs.template,
        base=describe(inputs.base),
        items=scorer.items,
        measures=scorer.measures,
        bootstrap_samples=statistics.resamples,
        seed=inputs.options.seed,
        layout=scorer.layout,
        baselines=statistics.baselines(),
        prompt_options=asdict(inputs.options.prompt_options),
        versions=versions(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        published=inputs.heldout.published,
        left_out=inputs.heldout.left_out_of(len(scorer.items)),
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


def _answers(
    pool: AdapterPool, names: Sequence[str | None], scorer: Scorer, run: RunBatches
) -> dict[str | None, Answered]:
    """The answers of each subject."""
    answered: dict[str | None, Answered] = {}
    for name in names:
        started = time.perf_counter()
        with use(pool, name):
            outputs = scorer.outputs(run)
        answered[name] = replace(scorer.answered(outputs), seconds=time.perf_counter() - started)
    return answered


def _written_samples(scorer: Scorer, answered: Mapping[str | None, Answered], count: int) -> tuple[Sample, ...]:
    """The first answers as samples, where the task is to write; otherwise the scorer has no prompts."""
    return tuple(
        Sample(
            scorer.items[index].uid,
            scorer.prompts[index],
            scorer.references[index],
            {
                BASE if name is None else name: subject_answers.written[index]
                for name, subject_answers in answered.items()
            },
        )
        for index in range(min(count, len(scorer.prompts)))
    )

"""The jobs of `lora-med eval`: each is a task with its data settings, template, scoring and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast, get_args

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.published import AdapterFiles
from lora_med.config.data_settings import DataSettings
from lora_med.data.access import Access
from lora_med.data.corpus import open_heldout
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import HeldOutSplit
from lora_med.errors import DataError, SettingsError
from lora_med.evaluation.eval_options import EvalOptions, PromptOptions
from lora_med.evaluation.record_scores import record_scores
from lora_med.evaluation.results import Evaluation
from lora_med.evaluation.runner import contribute, evaluate, pool_of, with_template_of
from lora_med.evaluation.scorers.registry import check_prompt_options, learns
from lora_med.evaluation.sharing.shared_batches import SharedBatches
from lora_med.evaluation.tag_runner import contribute_tags, evaluate_taggers
from lora_med.evaluation.tasks import SCORINGS, TASKS, EvalTask, Scoring, check_scoring, find_task, scoring_of
from lora_med.models.base import Base
from lora_med.workflows.heldout_settings import choose_template, heldout_settings, sources_of, stated_class

MOST_TRAINING = 20_000  # records read for solved examples, unseen mentions and baselines


@dataclass(frozen=True)
class Job:
    """One task to score: where its records are, which split is scored, and how they are worded and scored.

    `hold_out_all`: no adapter learned from this source, so files without a split of their own are all held out.
    `access` is the class that the user stated, or the card of an adapter that learned from the same files.
    """

    settings: DataSettings
    template: str
    scoring: Scoring
    split: HeldOutSplit
    hold_out_all: bool = False
    access: Access | None = None

    def applied_to(self, options: EvalOptions) -> EvalOptions:
        """`options` with this job's template and scoring."""
        return replace(options, template=self.template, scoring=self.scoring)


def make_jobs(
    tasks: Sequence[str],
    cards: Sequence[Card],
    *,
    source: str | None = None,
    template: str | None = None,
    paths: Sequence[str] = (),
    overrides: Sequence[str] = (),
    split: str | None = None,
    access: Access | None = None,
) -> list[Job]:
    """A job for each named task; without a task, one job for the data that the adapters were trained on.

    Args:
        tasks: names of tasks or scorings; `NAME:PATH` gives a task's file, several times for several files.
        cards: those of the adapters to score; may be empty.
        source, template, paths: for a single job; they replace or complete what its task and the cards name.
        overrides: `data.key=value`, for every job.
        split: `validation` or `test`; None takes each task's own split, or `test` without a task.
        access: the class of the data, for every job; None takes that of the card whose files are scored.

    Raises:
        SettingsError: there is no such task, source or path; the template does not fit the scoring; or an adapter was
            trained under another split.
    """
    chosen_split = None if split is None else _split(split)
    template = template or ("entities" if tagging(cards) else None)
    paths_of_task = _paths_by_task(tasks)
    if len(paths_of_task) > 1 and (source or template or paths):
        raise SettingsError(
            "several tasks cannot share one source, template or path",
            where="--source, --template, --data",
            fix="--task NAME:PATH for each",
        )
    jobs = []
    for name, own_paths in paths_of_task.items() or [("", [])]:
        task = TASKS.get(name)
        source_name = source or (task.source if task else None)
        files = own_paths or paths or (task.paths if task else ())
        settings = heldout_settings(cards, source=source_name, paths=files, overrides=overrides)
        chosen_template = template or (task.template if task else None)
        chosen_template = choose_template(cards, settings.source, chosen_template)
        scoring = _scoring(name, task, chosen_template)
        check_scoring(chosen_template, scoring)
        hold_out_all = not any(settings.source in sources_of(card) for card in cards) and not any(
            "_share" in override for override in overrides
        )
        jobs.append(
            Job(
                settings=settings,
                template=chosen_template,
                scoring=scoring,
                split=chosen_split or (task.split if task else "test"),
                hold_out_all=hold_out_all,
                access=access or stated_class(cards, settings),
            )
        )
    return jobs


def tagging(cards: Sequence[Card]) -> bool:
    """Whether the adapters tag tokens instead of writing.

    Raises:
        SettingsError: some do and some do not.
    """
    taggers = [card.name for card in cards if card.labels]
    if taggers and len(taggers) < len(cards):
        raise SettingsError(
            f"{', '.join(taggers)} tag tokens and the other adapters write text: they cannot share one base",
            where="--adapter",
            fix="score them in two runs, then compare the reports: lora-med eval compare",
        )
    return bool(taggers)


def _paths_by_task(tasks: Sequence[str]) -> dict[str, list[str]]:
    """Each task's name with its paths, in the order of the names."""
    paths: dict[str, list[str]] = {}
    for task in tasks:
        name, _, path = task.partition(":")
        if name not in SCORINGS:
            find_task(name)
        paths.setdefault(name, []).extend([path] if path else [])
    return paths


def _scoring(name: str, task: EvalTask | None, template: str) -> Scoring:
    if task is not None:
        return task.scoring
    return cast(Scoring, name) if name in SCORINGS else scoring_of(template)


def _split(name: str) -> HeldOutSplit:
    if name not in get_args(HeldOutSplit):
        raise SettingsError(f"no held-out split named {name!r}; known: test, validation", where="--split")
    return cast(HeldOutSplit, name)


def open_job(job: Job, prompt_options: PromptOptions, *, calibrate: bool) -> HeldOutRecords:
    """The job's records; training and validation records come along only where the scoring learns from them.

    Raises:
        SettingsError: a calibration on the items that are reported.
        DataError: the split is empty.
    """
    if calibrate and job.split == "validation":
        raise SettingsError(
            "a temperature fitted on the reported items is worthless",
            where="--calibrate",
            fix="--split test",
        )
    check_prompt_options(job.scoring, prompt_options)
    return open_heldout(
        job.settings,
        job.split,
        hold_out_all=job.hold_out_all,
        most_training=MOST_TRAINING if learns(job.scoring, prompt_options) else 0,
        with_validation=calibrate and job.scoring == "choice",
        access=job.access,
    )


def score_jobs(
    base: Base,
    adapters: Sequence[AdapterFiles],
    jobs: Sequence[Job],
    opened: Sequence[HeldOutRecords],
    options: EvalOptions,
    *,
    run: SharedBatches,
) -> list[Evaluation]:
    """An evaluation of each job, base and adapters loaded once; the scores go into the adapters' cards.

    `options` hold for every job; template and scoring are the job's own. Of several processes that share the batches of
    `run`, the first returns the evaluations and the others none.
    """
    evaluations: list[Evaluation] = []
    base = with_template_of(base, adapters, *(job.template for job in jobs))
    pool = pool_of(base, adapters, options.store)
    try:
        for job, heldout in zip(jobs, opened, strict=True):
            with _job_files_named(job):
                if run.rank:
                    contribute(base, adapters, heldout, job.applied_to(options), pool=pool, run=run)
                    continue
                evaluation = evaluate(base, adapters, heldout, job.applied_to(options), pool=pool, run=run)
            record_scores(evaluation, options.store)
            evaluations.append(evaluation)
    finally:
        pool.close()
    return evaluations


def score_taggers(
    adapters: Sequence[AdapterFiles],
    jobs: Sequence[Job],
    opened: Sequence[HeldOutRecords],
    options: EvalOptions,
    *,
    base: str | None,
    run: SharedBatches,
) -> list[Evaluation]:
    """An evaluation of each job for adapters that tag tokens; the scores go into their cards; `run` as `score_jobs`."""
    evaluations: list[Evaluation] = []
    for job, heldout in zip(jobs, opened, strict=True):
        with _job_files_named(job):
            if run.rank:
                contribute_tags(adapters, heldout, job.applied_to(options), base=base, run=run)
                continue
            evaluation = evaluate_taggers(adapters, heldout, job.applied_to(options), base=base, run=run)
        record_scores(evaluation, options.store)
        evaluations.append(evaluation)
    return evaluations


@contextmanager
def _job_files_named(job: Job) -> Iterator[None]:
    """Name the job's files in a data error that names no location."""
    try:
        yield
    except DataError as error:
        if error.where is not None:
            raise
        files = ", ".join(job.settings.paths)
        raise type(error)(error.what, where=f"{files} ({job.split} split)", fix=error.fix) from error

"""Scores of baselines that need no model, reported before training: an adapter has to exceed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lora_med.data.record import Annotated, Pair, Passage, Question, Record
from lora_med.prompts.templates.question_templates import right_letter


def label_counts(records: Sequence[Record]) -> dict[str, int]:
    """How often each label occurs: answers, entity types, requested sections, or section categories.

    If questions have different options, the letter of the correct option is counted.
    """
    shared = has_shared_options(records)
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(labels_of(record, shared))
    return dict(counts.most_common())


def labels_of(record: Record, shared: bool) -> tuple[str, ...]:
    """The labels of one record, each as often as it occurs; `shared`: all questions have the same options."""
    if isinstance(record, Question) and record.options:
        return (record.answer if shared else right_letter(record),)
    if isinstance(record, Annotated):
        return tuple(span.type for span in record.spans)
    if isinstance(record, Pair) and record.section:
        return (record.section,)
    if isinstance(record, Passage):
        return tuple(section.category for section in record.sections if section.category)
    return ()


def has_shared_options(records: Sequence[Record]) -> bool:
    """Whether all questions have the same options, such as yes, no and maybe; one question is not enough."""
    options = [record.options for record in records if isinstance(record, Question) and record.options]
    return len(options) > 1 and len(set(options)) == 1


def baselines(train: Sequence[Record], held_out: Sequence[Record], *, shown: bool = True) -> dict[str, float]:
    """Scores in [0, 1] on `held_out` of baselines that need no model; empty where the task has none.

    Questions with options (accuracy): the most frequent answer or letter of `train`, always the first option, always
    the longest. Pairs (F1 of words): the input's first words, as many as the reference has. Annotated texts: the share
    of mentions that `train` marks too, with the same type. An answer is named only where text may be `shown`.
    """
    closed = [record for record in held_out if isinstance(record, Question) and record.options]
    if closed:
        return _choices(train, closed, shown)
    pairs = [record for record in held_out if isinstance(record, Pair)]
    if pairs:
        return {"copy the beginning (word F1)": _mean([_copied(record) for record in pairs])}
    marked = [record for record in held_out if isinstance(record, Annotated) and record.spans]
    if marked:
        seen = {
            (span.type, span.text.casefold())
            for record in train
            if isinstance(record, Annotated)
            for span in record.spans
        }
        mentions = [(span.type, span.text.casefold()) for record in marked for span in record.spans]
        return {"repeating what train marks (recall)": _mean([float(mention in seen) for mention in mentions])}
    return {}


def _choices(train: Sequence[Record], held_out: Sequence[Question], shown: bool) -> dict[str, float]:
    questions = [record for record in train if isinstance(record, Question) and record.options]
    shared = has_shared_options([*questions, *held_out])
    counts = Counter(record.answer if shared else right_letter(record) for record in questions)
    scores: dict[str, float] = {}
    if counts:
        majority = max(counts, key=lambda name: counts[name])
        hits = [(record.answer if shared else right_letter(record)) == majority for record in held_out]
        name = f'"{majority}", ' if shown else ""
        scores[f"always {name}the most frequent in train"] = _mean(list(map(float, hits)))
    scores["always the first option"] = _mean([float(record.right_option == 0) for record in held_out])
    if not shared:
        longest = [float(max(record.options, key=len) == record.answer) for record in held_out]
        scores["always the longest option"] = _mean(longest)
    return scores


def _copied(record: Pair) -> float:
    reference = Counter(record.output.casefold().split())
    copied = Counter(record.input.casefold().split()[: reference.total()])
    common = (reference & copied).total()
    return 2 * common / (reference.total() + copied.total()) if common else 0.0


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)

"""What held-out pairs say of an adapter: how often it prefers the chosen answer, and whether it wins by saying less.

The accuracy has an interval over groups, because pairs about one prompt are not independent. A run that learns that
short answers are preferred is easily taken for a better one. So the answers that base and adapter write are compared in
length, and in how much of the prompt they cover, with what the pairs themselves show.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from lora_med.metrics.content_words import content_words
from lora_med.metrics.significance import Interval, Numbers, bootstrap, verdict, wilson
from lora_med.models.generation import greedy
from lora_med.training.preparation.pair_rows import TokenPair
from lora_med.training.step.preference_loss import TIE, StartWeights

logger = logging.getLogger(__name__)
MOST_ANSWERS = 32  # prompts that are answered twice, by reference and adapter
LENGTH_FACTOR = 1.5  # times the longest answer of the pairs: the most tokens of an answer
SEED = 0


@dataclass(frozen=True)
class HeldOutPairs:
    """Held-out pairs in order: their groups, and what their answers are compared by."""

    groups: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    asked: tuple[str, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    longest: int  # tokens of the longest answer

    @classmethod
    def of(cls, pairs: Sequence[TokenPair]) -> HeldOutPairs:
        """Those of pairs as tokens."""
        return cls(
            groups=tuple(pair.record.group for pair in pairs),
            prompts=tuple(tuple(pair.prompt) for pair in pairs),
            asked=tuple(
                "\n".join((*(content for _, content in pair.record.history), pair.record.input)) for pair in pairs
            ),
            chosen=tuple(pair.record.output for pair in pairs),
            rejected=tuple(pair.record.rejected for pair in pairs),
            longest=max((sum(side.trained) for pair in pairs for side in (pair.chosen, pair.rejected)), default=0),
        )


def compare_rewards(margins: Sequence[float], groups: Sequence[str], *, samples: int) -> dict[str, Any]:
    """The preference accuracy of held-out pairs with its 95% interval over groups, and the verdict against 0.5.

    Args:
        margins: the reward of the chosen answer above that of the rejected one, for each pair; 0 counts half.
    """
    wins = [TIE if margin == 0 else float(margin > 0) for margin in margins]
    interval = share_interval(wins, groups, samples=samples)
    result = verdict(_shifted(interval, -TIE), lower_is_better=False)
    accuracy, margin = fmean(wins), fmean(margins)
    low, high = interval.low, interval.high
    shown = "" if low is None or high is None else f" (95% {low:.3f} to {high:.3f})"
    logger.info(
        "held-out pairs: the chosen answer is preferred in %.3f%s of %d; mean reward margin %.4f; against the "
        "reference: %s",
        accuracy,
        shown,
        len(wins),
        margin,
        result,
    )
    return {
        "pairs": len(wins),
        "groups": len(set(groups)),
        "preference_accuracy": round(accuracy, 6),
        "interval": None if low is None or high is None else [round(low, 6), round(high, 6)],
        "verdict": result,
        "ties": sum(margin == 0 for margin in margins),
        "reward_margin": round(margin, 6),
    }


def share_interval(wins: Sequence[float], groups: Sequence[str], *, samples: int) -> Interval:
    """The 95% interval of a mean of values from 0 to 1 that come in groups, within these bounds.

    Where all values are 0, or all are 1, resampling would give no width: then Wilson's, with a trial for each group.
    """
    count = len(set(groups))
    if len(set(wins)) == 1 and wins[0] in (0.0, 1.0):
        return wilson(count if wins[0] else 0, count)
    table = np.column_stack([np.ones(len(wins)), np.asarray(wins)])
    interval = bootstrap(table, groups, _mean, samples=samples, seed=SEED)
    if interval.low is None or interval.high is None:
        return interval
    return Interval(max(0.0, interval.low), min(1.0, interval.high), interval.method)


def _mean(sums: Numbers) -> Numbers:
    return sums[..., 1] / sums[..., 0]


def _shifted(interval: Interval, by: float) -> Interval:
    low, high = (None if end is None else end + by for end in (interval.low, interval.high))
    return Interval(low, high, interval.method)


def compare_answers(
    model: Any, tokenizer: Any, pairs: HeldOutPairs, start: StartWeights, *, samples: int
) -> dict[str, Any]:
    """Length and coverage of the pairs' answers, and of those that reference and adapter write to some prompts.

    A warning says where the answers got shorter by more than the pairs explain.
    """
    numbers = _drawn(model, pairs)
    prompts = [pairs.prompts[number] for number in numbers]
    limit = max(1, math.ceil(LENGTH_FACTOR * pairs.longest))

    def answers() -> list[str]:
        written = greedy(model, tokenizer, prompts, max_new_tokens=limit)
        return [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in written]

    result: dict[str, Any] = {
        "chosen": _described(pairs.chosen, pairs.asked),
        "rejected": _described(pairs.rejected, pairs.asked),
        "log_length_ratio": round(fmean(log_ratios(pairs.chosen, pairs.rejected)), 4),
    }
    if not prompts:
        logger.warning("answers: none are compared in length, as no prompt with an answer fits into the base's context")
        return {"lengths": result}
    after = answers()
    with start.in_place():
        before = answers()
    asked = [pairs.asked[number] for number in numbers]
    shorter = shortened(
        log_ratios(after, before),
        [pairs.groups[number] for number in numbers],
        against_chosen=log_ratios(after, [pairs.chosen[number] for number in numbers]),
        explained=log_ratios(pairs.chosen, pairs.rejected),
        samples=samples,
    )
    result |= {"answers": len(prompts), "before": _described(before, asked), "after": _described(after, asked)}
    result |= shorter
    _log_lengths(result)
    return {"lengths": result}


def _drawn(model: Any, pairs: HeldOutPairs) -> list[int]:
    """The numbers of pairs with different prompts to answer, at most MOST_ANSWERS, that fit into the base's context."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    first = {prompt: number for number, prompt in reversed(list(enumerate(pairs.prompts)))}
    fitting = [
        number
        for prompt, number in sorted(first.items(), key=lambda item: item[1])
        if context is None or len(prompt) + math.ceil(LENGTH_FACTOR * pairs.longest) <= context
    ]
    if len(fitting) <= MOST_ANSWERS:
        return fitting
    return sorted(random.Random(SEED).sample(fitting, MOST_ANSWERS))


def log_ratios(first: Sequence[str], second: Sequence[str]) -> list[float]:
    """The logarithm of how many times as many words the first of two texts has; one word is added to both."""
    return [math.log((len(a.split()) + 1) / (len(b.split()) + 1)) for a, b in zip(first, second, strict=True)]


def shortened(
    changes: Sequence[float],
    groups: Sequence[str],
    *,
    against_chosen: Sequence[float],
    explained: Sequence[float],
    samples: int,
) -> dict[str, Any]:
    """The mean change of the answers' length (logarithm) with its 95% interval, and whether the pairs explain it.

    The pairs explain two things: answers shorter by as much as the chosen ones are shorter than the rejected ones, on
    average; and answers as long as the chosen ones, since a reference may write on without an end. A change is
    unexplained if its complete interval is below the first, and the answers are clearly shorter than the chosen ones.

    Args:
        against_chosen: the length of each answer against that of the chosen answer to its prompt (logarithm).
        explained: the lengths of the chosen answers against the rejected ones (logarithm), of all pairs.
    """
    interval, to_chosen = (
        bootstrap(np.column_stack([np.ones(len(each)), np.asarray(each)]), groups, _mean, samples=samples, seed=SEED)
        for each in (changes, against_chosen)
    )
    limit = min(0.0, fmean(explained))
    ends = [end for end in (interval.low, interval.high) if end is not None]
    is_below = interval.high is not None and interval.high < limit
    return {
        "change": round(fmean(changes), 4),
        "change_interval": [round(end, 4) for end in ends] or None,
        "against_chosen": round(fmean(against_chosen), 4),
        "explained": round(limit, 4),
        "shorter_than_explained": is_below and to_chosen.high is not None and to_chosen.high < 0,
    }


def _described(texts: Sequence[str], asked: Sequence[str]) -> dict[str, float]:
    """Mean words of texts, and the mean share of their prompts' content words that they contain."""
    covered = [coverage(prompt, text) for prompt, text in zip(asked, texts, strict=True)]
    return {"words": round(fmean(len(text.split()) for text in texts), 2), "coverage": round(fmean(covered), 4)}


def coverage(source: str, text: str) -> float:
    """The share of the source's different content words that the text contains; 1 where it has none."""
    wanted = set(content_words(source))
    return len(wanted & set(content_words(text))) / len(wanted) if wanted else 1.0


def _log_lengths(result: dict[str, Any]) -> None:
    before, after, chosen, rejected = (result[name] for name in ("before", "after", "chosen", "rejected"))
    logger.info(
        "answers to %d held-out prompts: %.1f words by the reference, %.1f by the adapter; coverage of the prompt %.3f "
        "and %.3f; in the pairs the chosen answers have %.1f words, the rejected ones %.1f",
        result["answers"],
        before["words"],
        after["words"],
        before["coverage"],
        after["coverage"],
        chosen["words"],
        rejected["words"],
    )
    if result["shorter_than_explained"]:
        logger.warning(
            "the adapter's answers got shorter (%+.0f%%) by more than the pairs explain (%+.0f%%): it may win by "
            "saying less; read its answers before you use it",
            100 * math.expm1(result["change"]),
            100 * math.expm1(result["explained"]),
        )

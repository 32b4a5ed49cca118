"""Drawing a sealed plan: items by stratum, sides balanced for each rater, hidden repeats, items rated twice."""

from __future__ import annotations

import json
import math
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_med.append_log import append_line
from lora_med.errors import DataError, NotPermittedError, SettingsError
from lora_med.evaluation.results import BASE
from lora_med.files import sha256_file, write_atomic, write_json
from lora_med.folders import fresh_folder
from lora_med.review.blind.shown_text import differ_much, shown_text, words
from lora_med.review.blind.study import (
    EVENTS,
    PLAN,
    RATERS,
    SCHEMA,
    SEALED,
    TEXTS,
    Assignment,
    Side,
    Study,
    StudyItem,
    open_study,
)
from lora_med.review.item_texts import ItemText
from lora_med.review.report_folder import ReportEvaluation, ReportFolder, written_by
from lora_med.review.verdict.detectable_wins import detectable_share

REPEATED, TWICE = 0.05, 0.10
FEWEST_ITEMS = 6  # five wins of five are no verdict: the exact test needs six
MOST_LETTERS = 100_000  # of prompt and answers together, on one page
STRATA = ("short", "middle", "long")


@dataclass(frozen=True)
class Candidates:
    """The items of a report that can be rated, and how many cannot, by reason."""

    items: tuple[StudyItem, ...]
    left_out: Mapping[str, int]


def candidates(evaluation: ReportEvaluation, adapter: str, against: str, texts: Mapping[str, ItemText]) -> Candidates:
    """The items whose two answers differ and whose prompt is known, each with its stratum.

    The stratum is the item's answer where labels are closed, else the third of the answers' lengths it falls into.

    Raises:
        NotPermittedError: the items are credentialed, so their report holds no text.
        DataError: the report holds no written answers.
    """
    if evaluation.access not in ("open", "registered"):
        raise NotPermittedError(
            f"the items are {evaluation.access}: their report holds no texts, so there is nothing to rate",
            where=str(evaluation.items_path),
            fix="rate items of a source whose access class is open or registered",
        )
    left_out: Counter[str] = Counter()
    found: list[tuple[Mapping[str, Any], StudyItem]] = []
    for item in evaluation.items:
        answers = written_by(item, adapter), written_by(item, against)
        if answers[0] is None or answers[1] is None:
            left_out["without a written answer"] += 1
            continue
        first, second = shown_text(answers[0]), shown_text(answers[1])
        prompt = texts.get(item["uid"])
        reason = _reason(prompt, first, second)
        if prompt is None or reason:
            left_out[reason] += 1
            continue
        found.append((item, StudyItem(item["uid"], str(item["group"]), "", prompt.prompt, first, second)))
    if not found:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(left_out.items()))
        raise DataError(
            f"no item of the report can be rated: {reasons or 'it has none'}",
            where=str(evaluation.items_path),
            fix="rate a report of answers in writing, and name the evaluated files with --data",
        )
    return Candidates(tuple(_with_strata(found)), dict(left_out))


def _reason(prompt: ItemText | None, first: str, second: str) -> str:
    """Why an item cannot be rated; empty if it can."""
    if prompt is None:
        return "not in the files of --data"
    if first == second:
        return "with equal answers"
    if len(prompt.prompt) + len(first) + len(second) > MOST_LETTERS:
        return f"longer than {MOST_LETTERS:,} characters"
    return ""


def _with_strata(found: Sequence[tuple[Mapping[str, Any], StudyItem]]) -> Iterator[StudyItem]:
    by_length = sorted(found, key=lambda pair: (words(pair[1].adapter_text) + words(pair[1].other_text), pair[1].uid))
    for rank, (item, each) in enumerate(by_length):
        label = item["answer"] if item.get("labels") and item.get("answer") else STRATA[3 * rank // len(found)]
        yield replace(each, stratum=str(label))


def choose_items(items: Sequence[StudyItem], count: int, draw: random.Random) -> list[StudyItem]:
    """`count` items, of each stratum its share of all (largest remainders), in a random order."""
    strata: dict[str, list[StudyItem]] = defaultdict(list)
    for item in items:
        strata[item.stratum].append(item)
    exact = {name: count * len(members) / len(items) for name, members in strata.items()}
    shares = {name: math.floor(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: count - sum(shares.values())]:
        shares[name] += 1
    chosen = [item for name in sorted(strata) for item in draw.sample(strata[name], shares[name])]
    draw.shuffle(chosen)
    return chosen


def draw_assignments(items: int, raters: Sequence[str], draw: random.Random) -> tuple[Assignment, ...]:
    """Who rates which item, in which order, and on which side the adapter is.

    Each item has one first rating, spread evenly over the raters. 10% have a second one by another rater. Each rater
    meets 5% of their items again in the second half, sides exchanged.
    """
    order = draw.sample(range(items), items)
    work: dict[str, list[tuple[int, str]]] = {rater: [] for rater in raters}
    first = {item: raters[number % len(raters)] for number, item in enumerate(order)}
    for item, rater in first.items():
        work[rater].append((item, "first"))
    if len(raters) > 1:
        for item in draw.sample(order, math.ceil(TWICE * items)):
            others = [rater for rater in raters if rater != first[item]]
            fewest = min(len(work[rater]) for rater in others)
            rater = draw.choice([rater for rater in others if len(work[rater]) == fewest])
            work[rater].append((item, "second"))
    return tuple(each for rater in raters for each in _of_rater(rater, work[rater], draw))


def _of_rater(rater: str, work: list[tuple[int, str]], draw: random.Random) -> Iterator[Assignment]:
    """One rater's assignments: half of the items with the adapter on side A, then the repeats put in."""
    draw.shuffle(work)
    sides = _balanced(len(work), draw)
    pages: list[tuple[int, str, Side]] = [(*each, side) for each, side in zip(work, sides, strict=True)]
    half = len(pages) // 2
    count = math.ceil(REPEATED * len(pages)) if half else 0
    for item, _, side in draw.sample(pages[:half], count) if count <= half else ():
        swapped: Side = "b" if side == "a" else "a"
        least = max(half, next(index for index, page in enumerate(pages) if page[0] == item) + 2)
        pages.insert(draw.randint(min(least, len(pages)), len(pages)), (item, "repeat", swapped))
    for position, (item, kind, side) in enumerate(pages, 1):
        yield Assignment(f"{rater}-{position:04d}", rater, position, item, side, kind)  # type: ignore[arg-type]


def _balanced(count: int, draw: random.Random) -> list[Side]:
    """As many of A as of B; of an odd count the last one by chance."""
    sides: list[Side] = ["a", "b"] * (count // 2)
    if count % 2:
        sides.append(draw.choice(("a", "b")))
    draw.shuffle(sides)
    return sides


def draw_study(
    report: ReportFolder,
    evaluation: ReportEvaluation,
    texts: Mapping[str, ItemText],
    out: Path,
    *,
    adapter: str,
    items: int,
    raters: int,
    against: str = BASE,
) -> Study:
    """Draw a plan by a secret seed, write it into the new folder `out`, and open it.

    Raises:
        SettingsError: too few items, or fewer than asked for can be rated.
        NotPermittedError, DataError: as `candidates`.
        OutputError, DiskError: the folder is not empty or cannot be written.
    """
    if adapter == against:
        raise SettingsError(f"{adapter!r} cannot be rated against itself", where="--against", fix="name another")
    possible = candidates(evaluation, adapter, against, texts)
    if not FEWEST_ITEMS <= items <= len(possible.items):
        raise SettingsError(
            f"{items:,} items cannot be rated: the report has {len(possible.items):,} that can, and a verdict needs "
            f"{FEWEST_ITEMS}",
            where="--items",
            fix=f"a number from {FEWEST_ITEMS} to {len(possible.items):,}",
        )
    if not 1 <= raters <= items:
        raise SettingsError(f"{raters:,} raters cannot share {items:,} items", where="--raters", fix=f"1 to {items:,}")
    seed = secrets.randbits(128)
    draw = random.Random(seed)
    chosen = choose_items(possible.items, items, draw)
    pseudonyms = [f"R{number}" for number in range(1, raters + 1)]
    assignments = draw_assignments(len(chosen), pseudonyms, draw)
    about = {
        "report": str(report.folder),
        "report_sha256": report.sha256,
        "items_sha256": evaluation.sha256,
        **{key: evaluation.entry[key] for key in ("source", "split", "template", "access")},
        "adapter": adapter,
        "against": against,
        "left_out": dict(possible.left_out),
        "report_p_values": list(report.p_values),
    }
    with fresh_folder(out) as folder:
        _write(folder, about, chosen, assignments, seed)
    return open_study(out)


def _write(
    folder: Path, about: Mapping[str, Any], items: Sequence[StudyItem], assignments: Sequence[Assignment], seed: int
) -> None:
    raters = list(dict.fromkeys(each.rater for each in assignments))
    lines = "".join(json.dumps(item.as_json(), ensure_ascii=False) + "\n" for item in items)
    write_atomic(folder / TEXTS, lines, private=True)
    sealed = {"seed": f"{seed:032x}", "assignments": [asdict(each) for each in assignments]}
    write_json(folder / SEALED, sealed, private=True)
    write_json(folder / RATERS, {rater: secrets.token_urlsafe(24) for rater in raters}, private=True)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kinds = Counter(each.kind for each in assignments)
    plan = {
        "schema": SCHEMA,
        "created": created,
        **about,
        "items": len(items),
        "raters": raters,
        "ratings": len(assignments),
        "rated_twice": kinds["second"],
        "repeats": kinds["repeat"],
        "strata": dict(sorted(Counter(item.stratum for item in items).items())),
        "lengths_differ_much": sum(differ_much(item.adapter_text, item.other_text) for item in items),
        "detectable_share": detectable_share(len(items)),
        "sha256": {name: sha256_file(folder / name) for name in (SEALED, TEXTS)},
    }
    append_line(folder / EVENTS, {"event": "planned", "at": created, "sha256": plan["sha256"]})
    write_json(folder / PLAN, plan)

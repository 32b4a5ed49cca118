"""Rows as the model will see them, trained tokens marked, and one page with them and all that `data check` found."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from lora_med.audit.data_check import Check, Lengths, SourceCheck
from lora_med.prompts.tokens import Tokens

TEMPLATE = Path(__file__).parent.parent / "assets" / "report" / "preview.html.j2"
STYLE = TEMPLATE.with_name("style.css")
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 150, 44, 22  # of a histogram, in pixels
MOST_LABELS = 12


@dataclass(frozen=True)
class Shown:
    """A row to be shown: its size, and its text in stretches of `(text, trained)`."""

    uid: str
    tokens: int
    trained: int
    parts: tuple[tuple[str, bool], ...]


def spell(document: Tokens, tokenizer: Any) -> Shown:
    """The row's text; neighbors that are trained alike are decoded together, so that no character is torn."""
    pairs = zip(document.input_ids, document.trained, strict=True)
    parts = tuple(
        (tokenizer.decode([token for token, _ in group]), trained)
        for trained, group in itertools.groupby(pairs, lambda pair: pair[1])
    )
    return Shown(document.uid, len(document.input_ids), sum(document.trained), parts)


def page(check: Check, rows: Sequence[Shown], *, base: str) -> str:
    """One HTML file, styles and drawings inside, nothing fetched from anywhere."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    names = " + ".join(source.source for source in check.sources)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"What a run on {names} would learn from",
        sources=" ".join(source.source for source in check.sources),
        made=f"{time.strftime('%Y-%m-%d')}, tokenizer of {base}, no model loaded",
        lead=[_lead(source) for source in check.sources],
        check=check,
        rows=rows,
        notes=[notes(source) for source in check.sources],
        drawings=[
            {part: histogram(lengths, check.max_length) for part, lengths in source.lengths.items() if part == "train"}
            for source in check.sources
        ],
        label_names=[
            list(dict.fromkeys(name for counts in source.labels.values() for name in counts))[:MOST_LABELS]
            for source in check.sources
        ],
        style=STYLE.read_text(encoding="utf-8"),
    )


def _lead(source: SourceCheck) -> str:
    sizes = ", ".join(f"{size:,} for {part}" for part, size in source.sizes.items())
    return f"{source.source}: {source.tally}. That is {sizes}."


def notes(source: SourceCheck) -> list[str]:
    """What was done to keep the parts apart, and what may name a person, in sentences."""
    found = source.separation
    removed = ", ".join(f"{count:,} {reason}" for reason, count in found["removed"].items()) or "nothing"
    lists = ", ".join(item["name"] for item in found["block_lists"]) or "none"
    lines = [
        f"No group and no content stands in two parts. Taken out: {removed}. Block-lists: {lists}. "
        f"Near-duplicates: {found['near_duplicate_clusters']:,} clusters, {found['groups_moved']:,} groups moved to "
        "stand together."
    ]
    for item in found["test_files"]:
        lines.append(
            f"Compared with {item['name']}: {item['texts']:,} texts, {item['too_short']:,} too short to compare."
        )
    if source.identifiers:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in source.identifiers.items())
        lines.append(
            f"In {source.records_with_identifiers:,} records something has the shape of an identifier: {kinds}. "
            "Patterns find shapes, not persons: much of this is harmless in published text, and names without a title "
            "are not found."
        )
    else:
        lines.append("Nothing has the shape of an identifier.")
    return lines


def histogram(lengths: Lengths, max_length: int) -> str:
    """Rows by length as an SVG element; a line marks `max_length` if a row is longer."""
    bins = lengths.histogram
    if not bins:
        return ""
    most, longest = max(count for _, count in bins), bins[-1][0]
    wide, high = (WIDTH - LEFT) / len(bins), HEIGHT - BOTTOM - 8
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg">']
    for place, (_, count) in enumerate(bins):
        top = high * count / most
        parts.append(
            f'<rect x="{LEFT + place * wide + 1:.1f}" y="{8 + high - top:.1f}" width="{wide - 2:.1f}" '
            f'height="{top:.1f}" fill="#14606e"/>'
        )
    base = 8 + high
    parts.append(f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}" stroke="#5b6675" stroke-width="0.8"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        anchor = "end" if share == 1 else "middle"
        place = LEFT + share * (WIDTH - LEFT)
        parts.append(f'<text x="{place:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{round(share * longest):,}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="16" text-anchor="end">{most:,}</text>')
    parts.append(f'<text x="{LEFT - 6}" y="{base:.0f}" text-anchor="end">0</text>')
    if lengths.too_long:
        place = LEFT + (WIDTH - LEFT) * max_length / longest
        parts.append(
            f'<line x1="{place:.1f}" y1="4" x2="{place:.1f}" y2="{base}" stroke="#c2571a" stroke-width="1.5"/>'
        )
    return "".join([*parts, "</svg>"])

"""Rows as the model sees them, trained tokens marked, on one page with all the results of `data check`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from lora_med.audit.data_check import Check, Lengths, SourceCheck
from lora_med.data.shapes.columns.accounting import OWN_GROUP, columns_lines
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.visible import visible_value

TEMPLATE = Path(__file__).parent.parent / "assets" / "report" / "preview.html.j2"
STYLE = TEMPLATE.with_name("style.css")
WIDTH, HEIGHT, LEFT, BOTTOM = 480, 150, 44, 22  # of a histogram, in pixels
MOST_LABELS = 12
SOURCE_GROUP = "the group is the source's own, which each record carries"


@dataclass(frozen=True)
class Shown:
    """A row to be shown: its size, and its text in segments of `(text, trained)`."""

    uid: str
    tokens: int
    trained: int
    segments: tuple[tuple[str, bool], ...]


def spell(document: Tokens, tokenizer: Any) -> Shown:
    """The row's text; tokens of a segment are decoded together, so that no character is cut."""
    pairs = zip(document.input_ids, document.trained, strict=True)
    segments = tuple(
        (tokenizer.decode([token for token, _ in group]), trained)
        for trained, group in itertools.groupby(pairs, lambda pair: pair[1])
    )
    return Shown(document.uid, len(document.input_ids), sum(document.trained), segments)


def page(check: Check, rows: Sequence[Shown], *, base: str) -> str:
    """One HTML file that contains its styles and charts and fetches nothing."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined, finalize=visible_value
    )
    names = " + ".join(source.source for source in check.sources)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"Training data of a run on {names}",
        sources=" ".join(source.source for source in check.sources),
        made=f"{time.strftime('%Y-%m-%d')}, tokenizer of {base}; no model was loaded",
        lead=[_lead(source) for source in check.sources],
        check=check,
        rows=rows,
        notes=[
            [*_column_sentences(source), *separation_notes(source), identifiers_note(source)]
            for source in check.sources
        ],
        charts=[
            {split: histogram(sizes, check.max_length) for split, sizes in source.lengths.items() if split == "train"}
            for source in check.sources
        ],
        label_names=[
            list(dict.fromkeys(name for counts in source.labels.values() for name in counts))[:MOST_LABELS]
            for source in check.sources
        ],
        style=STYLE.read_text(encoding="utf-8"),
    )


def _lead(source: SourceCheck) -> str:
    sizes = ", ".join(f"{size:,} for {split}" for split, size in source.sizes.items())
    return f"{source.source}: {source.tally}. The splits have {sizes}."


def separation_notes(source: SourceCheck) -> list[str]:
    """How the splits were separated, in sentences."""
    separation = source.separation
    removed = ", ".join(f"{count:,} {reason}" for reason, count in separation["removed"].items()) or "nothing"
    lists = ", ".join(item["name"] for item in separation["block_lists"]) or "none"
    lines = [
        f"{_separated(source.columns['group'])} Removed: {removed}. Block-lists: {lists}. Near-duplicates: "
        f"{separation['near_duplicate_clusters']:,} clusters; {separation['groups_moved']:,} groups were moved so that "
        "each cluster is in one split."
    ]
    for item in separation["test_files"]:
        lines.append(
            f"Compared with {item['name']}: {item['texts']:,} texts, {item['too_short']:,} too short to compare."
        )
    return lines


def identifiers_note(source: SourceCheck) -> str:
    """What has the shape of an identifier, in sentences: counts and types, never a text."""
    if not source.identifiers:
        return "Nothing has the shape of an identifier."
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in source.identifiers.items())
    return (
        f"{source.records_with_identifiers:,} records contain something with the shape of an identifier: {kinds}. "
        "Patterns find shapes, not persons. In published text many of these are harmless. "
        "Names without a title are not found."
    )


def _separated(group: str) -> str:
    """What the splits do not share. A text that is its own group keeps no patient in one split."""
    if group.startswith(OWN_GROUP):
        sentence = f"{group[0].upper()}{group[1:]}"
        return f"No content is in two splits. {sentence}: texts of one patient may be in several splits."
    return f"No group and no content is in two splits; {group or SOURCE_GROUP}."


def _column_sentences(source: SourceCheck) -> list[str]:
    return [f"{line[0].upper()}{line[1:]}." for line in columns_lines(source.columns)]


def histogram(lengths: Lengths, max_length: int) -> str:
    """Rows by length as an SVG element, with a line at `max_length` if a row is longer; its colors are the page's."""
    bins = lengths.histogram
    if not bins:
        return ""
    most, longest = max(count for _, count in bins), bins[-1][0]
    wide, high = (WIDTH - LEFT) / len(bins), HEIGHT - BOTTOM - 8
    elements = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" xmlns="http://www.w3.org/2000/svg">']
    for index, (_, count) in enumerate(bins):
        top = high * count / most
        elements.append(
            f'<rect x="{LEFT + index * wide + 1:.1f}" y="{8 + high - top:.1f}" width="{wide - 2:.1f}" '
            f'height="{top:.1f}" class="bar"/>'
        )
    base = 8 + high
    elements.append(f'<line x1="{LEFT}" y1="{base}" x2="{WIDTH}" y2="{base}" class="axis"/>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        anchor = "end" if share == 1 else "middle"
        x = LEFT + share * (WIDTH - LEFT)
        elements.append(f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{round(share * longest):,}</text>')
    elements.append(f'<text x="{LEFT - 6}" y="16" text-anchor="end">{most:,}</text>')
    elements.append(f'<text x="{LEFT - 6}" y="{base:.0f}" text-anchor="end">0</text>')
    if lengths.too_long:
        limit = LEFT + (WIDTH - LEFT) * max_length / longest
        elements.append(f'<line x1="{limit:.1f}" y1="4" x2="{limit:.1f}" y2="{base}" class="limit"/>')
    return "".join([*elements, "</svg>"])

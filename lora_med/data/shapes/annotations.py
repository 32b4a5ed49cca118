"""Rows with annotated text, as annotation tools export them: the text, and its mentions as spans.

    doccano          text, and `label`/`labels` [[start, end, type]] or `entities` [{start_offset, end_offset, label}]
    prodigy          text, `spans` [{start, end, label}], and the annotator's `answer`
    Label Studio     `data`, and `annotations`: the text of the labeled field, and the labels of its one annotator
    BigBio           `passages` and `entities`, each with text and offsets in lists
    text and spans   text, and `spans` [{start, end, type, text}], as `lora-med data read` writes them
    tokens and tags  `tokens` and `ner_tags`, names or class numbers; the text is the tokens, joined by one blank

A mention that does not fit its text is left out and counted. So is one in several pieces: it is not one span.
Relations, events, and a model's predictions are not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lora_med.data.formats.entities.mentions import Mention, laid_out, place_mentions
from lora_med.data.formats.entities.token_tags import UnknownTag, tagged_text
from lora_med.data.formats.tables import is_encodable
from lora_med.data.outcome import PartDrop
from lora_med.data.record import Span
from lora_med.data.shapes.columns.cells import parsed
from lora_med.data.shapes.label_studio import in_label_studio, label_studio_mentions, other_results
from lora_med.data.shapes.row_error import Rejected, RowError
from lora_med.data.shapes.span_cells import as_list, as_mention, is_list_of_mentions

TOKENS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels", "ner", "bio_tags", "iob_tags", "label")
LISTS = ("entities", "labels", "label", "spans", "annotations")
TEXTS = ("text", "data")
ACCEPTED = "accept"
CLASS_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
LONGEST_GAP = 1 << 16  # characters between two passages

Annotation = tuple[str, tuple[Span, ...], list[PartDrop]]


def annotated_shape(values: Mapping[str, Any]) -> str | None:
    """The shape of an annotated row, by its columns; None for a row of another kind.

    A row of doccano without any label is None too: it does not show whether its labels are mentions or classes.
    """
    return next((shape for shape, (recognizes, _) in _SHAPES.items() if recognizes(values)), None)


def annotated_columns(shape: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of a row that its shape uses, in the row's order."""
    if shape == "Label Studio":
        used: Sequence[str | None] = ("data", "annotations", "completions")
    elif shape == "BigBio":
        used = ("passages", "entities")
    elif shape == "tokens and tags":
        used = _token_columns(values) or ()
    elif shape == "doccano":
        used = (_text_column(values), _list_column(values))
    else:
        used = ("text", "spans", "answer") if shape == "prodigy" else ("text", "spans")
    return tuple(column for column in values if column in used)


def read_annotated(shape: str, values: Mapping[str, Any], where: str, labels: Sequence[str] = ()) -> Annotation:
    """The text of a row, its spans, and the mentions that were left out, each as a PartDrop at `where`.

    `labels` names the classes of tags that are numbers, in order.

    Raises:
        RowError: the row does not have the shape.
        Rejected: the annotator rejected or skipped the row, or did not finish it.
    """
    if shape == "tokens and tags":
        text, spans = _tokens_and_tags(values, labels)
        return text, spans, []
    text, mentions = _SHAPES[shape][1](values)
    _refuse_unclear(values, mentions)
    placement = place_mentions(text, mentions)
    if len(mentions) > 1 and len(placement.unfit) == len(mentions):
        what = f"none of the {len(mentions)} mentions fits the text: the offsets are those of another text"
        raise RowError("bad_offsets", what)
    parts = placement.part_drops(where)
    if shape == "Label Studio":
        unread = other_results(values)
        parts += [PartDrop("other_result", where, f"a result of the type {name!r} is not read") for name in unread]
    return placement.text, placement.spans, parts


def _refuse_unclear(values: Mapping[str, Any], mentions: Sequence[Mention]) -> None:
    """Refuse offsets that may count tokens: beside a list of tokens, small enough, and without texts as a proof."""
    column = next((name for name in TOKENS if _is_list_of(values.get(name), str)), None)
    if column is None or not mentions or any(mention.text is not None for mention in mentions):
        return
    count = len(as_list(values, column))
    if all(end <= count for mention in mentions for _, end in mention.pieces):
        what = f"the offsets may count characters or the {count} tokens of column {column!r}"
        raise RowError("unclear_offsets", f"{what}: if characters, set data.ignore_columns={column}")


def _text(values: Mapping[str, Any], column: str | None) -> str:
    name = f"column {column!r}"
    if column is None or column not in values:
        raise RowError("missing_column", f"no column 'text' among the {len(values)} columns")
    return _checked(values[column], name)


def _checked(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RowError("bad_type", f"{name}: expected a text, got {type(value).__name__}")
    if not is_encodable(value):
        raise RowError("bad_utf8", f"{name}: half a surrogate pair is not a character")
    if not value.strip():
        raise RowError("empty_text", f"{name}: expected a text, it is empty")
    return value


def _text_column(values: Mapping[str, Any]) -> str | None:
    return next((column for column in TEXTS if isinstance(values.get(column), str)), None)


def _list_column(values: Mapping[str, Any]) -> str | None:
    """The column with the mentions: the first that holds some, else the first that holds an empty list."""
    columns = [column for column in LISTS if isinstance(parsed(values.get(column)), list)]
    return next((column for column in columns if is_list_of_mentions(values[column])), next(iter(columns), None))


def _in_doccano(values: Mapping[str, Any]) -> bool:
    column = _list_column(values) if _text_column(values) else None
    if column is None or column == "spans":
        return False
    return is_list_of_mentions(values[column]) or (column == "entities" and not parsed(values[column]))


def _in_spans(values: Mapping[str, Any]) -> bool:
    spans = parsed(values.get("spans"))
    return isinstance(values.get("text"), str) and isinstance(spans, list) and (not spans or is_list_of_mentions(spans))


def _in_prodigy(values: Mapping[str, Any]) -> bool:
    return "answer" in values and (_in_spans(values) or _is_prodigy_task(values))


def _is_prodigy_task(values: Mapping[str, Any]) -> bool:
    """Whether a row without spans is one of prodigy's for mentions: none was marked, or the row was skipped."""
    return (
        isinstance(values.get("text"), str)
        and values.get("spans") is None
        and "_task_hash" in values
        and _is_list_of(values.get("tokens"), dict)
        and not {"label", "options", "accept"} & values.keys()
    )


def _in_bigbio(values: Mapping[str, Any]) -> bool:
    passages, entities = parsed(values.get("passages")), parsed(values.get("entities"))
    return (
        isinstance(entities, list)
        and isinstance(passages, list)
        and bool(passages)
        and all(isinstance(passage, dict) and {"text", "offsets"} <= set(passage) for passage in passages)
    )


def _in_tokens(values: Mapping[str, Any]) -> bool:
    return _token_columns(values) is not None


def _token_columns(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The columns of the tokens and of their tags."""
    tokens = next((column for column in TOKENS if _is_list_of(values.get(column), str)), None)
    tags = next((column for column in TAGS if _is_list_of(values.get(column), str | int)), None)
    return (tokens, tags) if tokens and tags else None


def _is_list_of(value: object, kind: Any) -> bool:
    items = parsed(value)
    return isinstance(items, list) and bool(items) and all(isinstance(item, kind) for item in items)


def _doccano(values: Mapping[str, Any]) -> tuple[str, list[Mention]]:
    text, column = _text(values, _text_column(values)), _list_column(values)
    if column is None:
        raise RowError("missing_column", "expected a list of labels, each with its start, end and type")
    return text, [as_mention(item, column, number) for number, item in enumerate(as_list(values, column), 1)]


def _prodigy(values: Mapping[str, Any]) -> tuple[str, list[Mention]]:
    if values.get("answer") != ACCEPTED:
        raise Rejected("not_accepted")
    if values.get("_is_binary") is True:
        what = "a yes-or-no task marks one mention of a text, not all: merge them first (prodigy's silver-to-gold)"
        raise RowError("unfinished", what)
    return _spans(values) if values.get("spans") is not None else (_text(values, "text"), [])


def _spans(values: Mapping[str, Any]) -> tuple[str, list[Mention]]:
    items = enumerate(as_list(values, "spans"), 1)
    return _text(values, "text"), [as_mention(item, "spans", number) for number, item in items]


def _bigbio(values: Mapping[str, Any]) -> tuple[str, list[Mention]]:
    parts: list[tuple[int, str]] = []
    for number, passage in enumerate(as_list(values, "passages"), 1):
        name = f"column 'passages', item {number}"
        if not isinstance(passage, dict):
            raise RowError("bad_type", f"{name}: expected an object with text and offsets")
        texts, offsets = passage.get("text"), passage.get("offsets")
        if isinstance(texts, str):
            texts = [texts]
        if not isinstance(texts, list) or not isinstance(offsets, list) or len(texts) != len(offsets):
            raise RowError("bad_type", f"{name}: expected as many texts as offsets")
        for text, start_and_end in zip(texts, offsets, strict=True):
            start = start_and_end[0] if isinstance(start_and_end, list) and start_and_end else None
            if not isinstance(text, str) or not is_encodable(text) or not isinstance(start, int) or start < 0:
                raise RowError("bad_type", f"{name}: expected texts, each with its start and end")
            parts.append((start, text))
    text = laid_out(parts, LONGEST_GAP)
    if text is None:
        raise RowError("bad_offsets", "the passages overlap, or are far from each other")
    mentions = [as_mention(item, "entities", number) for number, item in enumerate(as_list(values, "entities"), 1)]
    return _checked(text, "column 'passages'"), mentions


def _tokens_and_tags(values: Mapping[str, Any], labels: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    columns = _token_columns(values)
    if columns is None:
        raise RowError("bad_type", "expected tokens and their tags, two lists of equal length")
    tokens, tags = as_list(values, columns[0]), as_list(values, columns[1])
    if len(tokens) != len(tags):
        what = f"columns {columns[0]!r} and {columns[1]!r}: {len(tokens)} tokens, and {len(tags)} tags"
        raise RowError("bad_type", what)
    if not all(map(is_encodable, tokens)):
        raise RowError("bad_utf8", f"column {columns[0]!r}: half a surrogate pair is not a character")
    names = [_tag_name(tag, columns[1], labels) for tag in tags]
    filled = [index for index, token in enumerate(tokens) if token.strip()]  # a blank joins the others anyway
    if not filled:
        raise RowError("empty_text", f"column {columns[0]!r}: expected tokens, all are blank")
    try:
        return tagged_text([tokens[index] for index in filled], [names[index] for index in filled])
    except UnknownTag as unknown:
        what = f"column {columns[1]!r}, item {filled[unknown.index] + 1}: expected O or a tag such as B-Disease"
        raise RowError("bad_type", what) from None


def _tag_name(tag: object, column: str, labels: Sequence[str]) -> str:
    """The name of a tag: itself, or that of its class number."""
    if isinstance(tag, str) and not CLASS_NUMBER.fullmatch(tag.strip()):
        return tag.strip() if is_encodable(tag) else ""
    number = tag if isinstance(tag, int) else int(str(tag))
    if not labels:
        what = f"column {column!r} holds class numbers: name the classes in order in data.labels ([O, B-Disease, ...])"
        raise RowError("missing_labels", what)
    if not 0 <= number < len(labels):
        raise RowError("bad_type", f"column {column!r}: expected class numbers from 0 to {len(labels) - 1}")
    return labels[number]


_Reads = Callable[[Mapping[str, Any]], tuple[str, list[Mention]]]
_SHAPES: dict[str, tuple[Callable[[Mapping[str, Any]], bool], _Reads]] = {
    "Label Studio": (in_label_studio, label_studio_mentions),
    "BigBio": (_in_bigbio, _bigbio),
    "prodigy": (_in_prodigy, _prodigy),
    "text and spans": (_in_spans, _spans),
    "tokens and tags": (_in_tokens, lambda values: ("", [])),
    "doccano": (_in_doccano, _doccano),
}

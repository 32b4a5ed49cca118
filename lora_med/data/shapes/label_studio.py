"""Rows of Label Studio: a task with `data` and `annotations`, the export that it calls JSON.

Of several annotators the one that is marked as ground truth is used, or any if all agree; else the row is refused.
Cancelled annotations, predictions and drafts are never used. Offsets are JavaScript's (UTF-16 units) in some versions;
the mentions' own texts prove in which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lora_med.data.formats.entities.mentions import Mention
from lora_med.data.formats.tables import is_encodable
from lora_med.data.shapes.columns.cells import parsed
from lora_med.data.shapes.row_error import Rejected, RowError
from lora_med.data.shapes.span_cells import as_list, is_number

LABELED = ("labels", "hypertextlabels")
HTML_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
ELSEWHERE = ("paragraphlabels", "timeserieslabels", "rectanglelabels", "polygonlabels")


def in_label_studio(values: Mapping[str, Any]) -> bool:
    """Whether a row is a task of Label Studio for text."""
    return isinstance(parsed(values.get("data")), dict) and _annotations_column(values) is not None


def label_studio_mentions(values: Mapping[str, Any]) -> tuple[str, list[Mention]]:
    """The text of a task and its mentions.

    Raises:
        RowError: annotators disagree, or the labels are not those of one text.
        Rejected: no annotator finished the task.
    """
    results = _agreed(values)
    labeled = [item for item in results if item.get("type") in LABELED]
    other = sorted({str(item["type"]) for item in results if item.get("type") in ELSEWHERE})
    if other:
        raise RowError("bad_type", f"column 'annotations': labels of the type {', '.join(other)} are not of one text")
    if not labeled and (unread := other_results(values)):
        what = f"column 'annotations': results of the type {', '.join(sorted(set(unread)))} are of the whole text"
        raise RowError("bad_type", f"{what}: export them as CSV, and map its columns to text and label")
    data = parsed(values.get("data"))
    if not isinstance(data, dict):
        raise RowError("bad_type", "column 'data': expected an object with a text")
    text = _text(data, {str(item.get("to_name")) for item in labeled})
    if HTML_TAG.search(text) and any(item.get("type") == "hypertextlabels" for item in labeled):
        what = "column 'data': the text is HTML, and its marks count the characters of the page: label the plain text"
        raise RowError("bad_type", what)
    return text, [mention for number, item in enumerate(labeled, 1) for mention in _mentions(item, number)]


def other_results(values: Mapping[str, Any]) -> list[str]:
    """The types of the results that are no mentions, one for each: classes, ratings, texts, relations."""
    return [str(item.get("type")) for item in _agreed(values) if item.get("type") not in (*LABELED, *ELSEWHERE)]


def _annotations_column(values: Mapping[str, Any]) -> str | None:
    return next((name for name in ("annotations", "completions") if isinstance(parsed(values.get(name)), list)), None)


def _agreed(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The results of the one annotator, of the one that is ground truth, or of annotators that agree."""
    column = _annotations_column(values) or "annotations"
    annotations = as_list(values, column)
    if not all(isinstance(item, dict) for item in annotations):
        raise RowError("bad_type", f"column {column!r}: expected a list of objects")
    finished = [item for item in annotations if not item.get("was_cancelled") and not item.get("skipped")]
    if not finished:
        raise Rejected("not_annotated" if not annotations else "skipped")
    chosen = [item for item in finished if item.get("ground_truth") is True]
    results = [_results(item, column) for item in (chosen if len(chosen) == 1 else finished)]
    if any(_content(result) != _content(results[0]) for result in results):
        what = (
            f"column {column!r}: {len(results)} annotators, who do not agree: mark one annotation as ground truth "
            "in Label Studio, or delete the others"
        )
        raise RowError("several_annotators", what)
    return results[0]


def _results(annotation: Mapping[str, Any], column: str) -> list[Mapping[str, Any]]:
    results = annotation.get("result")
    if not isinstance(results, list) or not all(isinstance(item, dict) for item in results):
        raise RowError("bad_type", f"column {column!r}: expected an annotation with a list of results")
    return results


def _content(results: list[Mapping[str, Any]]) -> list[str]:
    """What annotators agree on: places and labels, without identifiers and times."""
    values = (item.get("value") for item in results if item.get("type") in (*LABELED, *ELSEWHERE))
    return sorted(
        f"{value.get('start')} {value.get('end')} {value.get('labels') or value.get('hypertextlabels')}"
        for value in values
        if isinstance(value, dict)
    )


def _text(data: Mapping[str, Any], names: set[str]) -> str:
    """The labeled text: the field that the labels name, else `text`, else the only text there is."""
    texts = {name: value for name, value in data.items() if isinstance(value, str)}
    named = [name for name in texts if name in names]
    column = named[0] if len(named) == 1 else "text" if "text" in texts else next(iter(texts), None)
    if column is None or (column not in names and column != "text" and len(texts) > 1):
        what = f"column 'data': expected one text; the texts are {', '.join(sorted(texts)) or 'none'}"
        raise RowError("bad_type", what)
    text = texts[column]
    if not is_encodable(text):
        raise RowError("bad_utf8", f"column 'data', {column!r}: half a surrogate pair is not a character")
    if not text.strip():
        raise RowError("empty_text", f"column 'data', {column!r}: expected a text, it is empty")
    return text


def _mentions(item: Mapping[str, Any], number: int) -> list[Mention]:
    """One mention for each label of a result."""
    name = f"column 'annotations', result {number}"
    value = item.get("value")
    if not isinstance(value, dict):
        raise RowError("bad_type", f"{name}: expected a value with start, end and labels")
    in_page = value.get("globalOffsets")
    offsets: Mapping[str, Any] = in_page if isinstance(in_page, dict) else value
    labels = value.get("labels") or value.get("hypertextlabels") or [""]
    start, end, text = offsets.get("start"), offsets.get("end"), value.get("text")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RowError("bad_type", f"{name}: expected labels, a list of texts")
    if not is_number(start) or not is_number(end):
        raise RowError("bad_type", f"{name}: expected the start and the end as whole numbers")
    return [Mention(label, ((start, end),), text if isinstance(text, str) else None) for label in labels]

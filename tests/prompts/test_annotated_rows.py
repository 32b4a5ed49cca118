"""What is trained of each shape of annotated data: the written entities, decoded, and the tags of the tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.catalog import find_source
from lora_med.data.formats.find_inputs import find_inputs
from lora_med.data.outcome import ReadOptions
from lora_med.data.reading import read_records
from lora_med.data.record import Annotated
from lora_med.data.shapes.annotations import annotated_shape, read_annotated
from lora_med.prompts.entity_tags import cut_pieces, read_tags, tag_labels, write_tags
from lora_med.prompts.render import render
from lora_med.prompts.tokens_and_labels import tokenize

MICRO = Path(__file__).parents[2] / "lora_med" / "assets" / "micro"
TEXT, SPACED = "Fever after aspirin.", "Fever after aspirin ."
ANSWER = ' [{"type": "Disease", "text": "Fever"}, {"type": "Chemical", "text": "aspirin"}]'
MENTIONS = [(0, 5, "Disease"), (12, 19, "Chemical")]
RESULTS = [
    {"type": "labels", "to_name": "text", "value": {"start": a, "end": b, "labels": [c]}} for a, b, c in MENTIONS
]
ROWS: dict[str, dict[str, Any]] = {
    "doccano": {"text": TEXT, "label": [list(mention) for mention in MENTIONS]},
    "prodigy": {
        "text": TEXT,
        "spans": [{"start": a, "end": b, "label": c} for a, b, c in MENTIONS],
        "answer": "accept",
    },
    "Label Studio": {"data": {"text": TEXT}, "annotations": [{"result": RESULTS}]},
    "BigBio": {
        "passages": [{"text": [TEXT], "offsets": [[0, 20]]}],
        "entities": [{"type": c, "text": [TEXT[a:b]], "offsets": [[a, b]]} for a, b, c in MENTIONS],
    },
    "tokens and tags": {"tokens": SPACED.split(), "ner_tags": ["B-Disease", "O", "B-Chemical", "O"]},
    "text and spans": {
        "text": TEXT,
        "spans": [{"start": a, "end": b, "type": c, "text": TEXT[a:b]} for a, b, c in MENTIONS],
    },
}
BIOC = {
    "id": "1",
    "passages": [
        {
            "offset": 0,
            "text": TEXT,
            "annotations": [
                {"infons": {"type": c}, "text": TEXT[a:b], "locations": [{"offset": a, "length": b - a}]}
                for a, b, c in MENTIONS
            ],
        }
    ],
}
TAGS = "".join(f'<X id="P" start="{a}" end="{b}" text="{TEXT[a:b]}" TYPE="{c}" />' for a, b, c in MENTIONS)
FILES: dict[str, dict[str, str]] = {
    "brat": {"a.txt": TEXT, "a.ann": "".join(f"T1\t{c} {a} {b}\t{TEXT[a:b]}\n" for a, b, c in MENTIONS)},
    "n2c2": {"110-01.xml": f"<deIdi2b2><TEXT><![CDATA[{TEXT}]]></TEXT><TAGS>{TAGS}</TAGS></deIdi2b2>"},
    "conll": {"a.tsv": "token\ttag\nFever\tB-Disease\nafter\tO\naspirin\tB-Chemical\n.\tO\n"},
    "bioc": {"a.json": json.dumps({"PubTator3": [BIOC]})},
    "bc5cdr": {"a.txt": f"1|t|{TEXT}\n1|a|\n" + "".join(f"1\t{a}\t{b}\t{TEXT[a:b]}\t{c}\n" for a, b, c in MENTIONS)},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MICRO)


def of_row(shape: str) -> Annotated:
    assert annotated_shape(ROWS[shape]) == shape
    text, spans, drops = read_annotated(shape, ROWS[shape], "a.jsonl:1")
    assert not drops
    return Annotated("a.jsonl:1", "g", "custom", text, spans)


def of_files(source: str, folder: Path) -> Annotated:
    for name, content in FILES[source].items():
        (folder / name).write_text(content, encoding="utf-8")
    found = find_source(source)
    (record,) = read_records(found, find_inputs(found, [str(folder)]), ReadOptions())
    assert isinstance(record, Annotated)
    return record


@pytest.mark.parametrize("name", [*ROWS, *FILES])
def test_the_mentions_are_what_is_trained(name: str, tokenizer: Any, tmp_path: Path) -> None:
    record = of_row(name) if name in ROWS else of_files(name, tmp_path)
    (row,) = render([record], "entities")
    tokens = tokenize(row, tokenizer)
    trained = [token for token, yes in zip(tokens.input_ids, tokens.trained, strict=True) if yes]
    assert tokenizer.decode(trained, skip_special_tokens=True) == ANSWER
    whole = tokenizer.decode(tokens.input_ids, skip_special_tokens=True)
    assert whole == f"Text: {record.text}\nEntities:{ANSWER}"
    assert record.text.rstrip() in (TEXT, SPACED)


@pytest.mark.parametrize("name", [*ROWS, *FILES])
def test_the_tags_of_its_tokens_give_the_mentions_back(name: str, tokenizer: Any, tmp_path: Path) -> None:
    record = of_row(name) if name in ROWS else of_files(name, tmp_path)
    labels = tag_labels([record])
    assert labels == ("O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease")
    (piece,) = cut_pieces(record, tokenizer, 64)
    found = read_tags(piece, write_tags(piece, record.spans, labels), labels, record.text)
    assert [(span.start, span.end, span.type) for span in found] == MENTIONS

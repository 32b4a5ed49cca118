"""The `system_fingerprint` of an answer: a short hash of the base, the adapter and the template that gave it.

It depends on content alone: the SHA-256 of the base's weights, tokenizer and template with the format they were loaded
in, and of the adapter's weights, settings and template. An adapter's name is no part of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.store import CHAT_TEMPLATE, CONFIG, WEIGHTS
from lora_med.errors import DataError, IntegrityError
from lora_med.models.fingerprint import Fingerprint
from lora_med.models.precision import DTYPES
from lora_med.serving.decoding.identity import digest

PREFIX, LETTERS = "fp_", 24
QUANTIZATIONS = ("4bit", "8bit", "none")


@dataclass(frozen=True)
class Source:
    """What could have given an answer: an adapter, or None for the bare base, and how the base was loaded."""

    adapter: str | None
    adapter_sha256: str | None
    base: str
    quantization: str
    dtype: str


def system_fingerprint(base: Fingerprint, quantization: str, dtype: str, card: Card | None) -> str:
    """The fingerprint of answers by an adapter, or by the bare base (None), as `fp_` and 24 hexadecimal digits."""
    files = {} if card is None else card.files
    content = digest(
        "answer",
        base_weights=base.weights,
        base_tokenizer=base.tokenizer,
        base_template=base.template,
        quantization=quantization,
        dtype=dtype,
        adapter_weights=files.get(WEIGHTS),
        adapter_settings=files.get(CONFIG),
        adapter_chat_template=files.get(CHAT_TEMPLATE),
        template=None if card is None else card.template,
        tokens=None if card is None else json.dumps(card.tokens, sort_keys=True),
    )
    return PREFIX + content[:LETTERS]


def sources_of(fingerprint: str, cards: Sequence[Card], bases: Sequence[tuple[str, Fingerprint]]) -> list[Source]:
    """Which of these adapters, and which of the bare bases, give answers of this fingerprint."""
    return [source for source, given in _all_sources(cards, bases) if given == fingerprint]


def _all_sources(cards: Sequence[Card], bases: Sequence[tuple[str, Fingerprint]]) -> Iterator[tuple[Source, str]]:
    known: list[tuple[Card | None, str, Fingerprint]] = [
        (card, card.base.name, card.base.fingerprint) for card in cards
    ]
    known += [(None, name, base) for name, base in bases]
    for card, name, base in known:
        weights = None if card is None else card.files[WEIGHTS]
        for quantization, dtype in itertools.product(QUANTIZATIONS, DTYPES):
            source = Source(None if card is None else card.name, weights, name, quantization, dtype)
            yield source, system_fingerprint(base, quantization, dtype, card)


@dataclass(frozen=True)
class Response:
    """What a saved answer says of its origin."""

    id: str
    model: str
    fingerprint: str


def read_response(content: bytes, where: str) -> Response:
    """The origin in a saved answer: one JSON object, or the `data:` lines of a stream.

    Raises:
        DataError: it is neither, or names no fingerprint.
        IntegrityError: the chunks of a stream name different ones.
    """
    found = {_origin(chunk, where) for chunk in _objects(content, where)}
    if not found:
        raise DataError("the file holds no answer", where=where, fix="save the body of the answer as it came")
    if len(found) > 1:
        raise IntegrityError(
            f"the chunks of the stream come from {len(found)} answers", where=where, fix="save one answer in a file"
        )
    return found.pop()


def _objects(content: bytes, where: str) -> list[object]:
    try:
        text = content.decode("utf-8").strip()
        lines = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
        return [json.loads(line) for line in lines if line != "[DONE]"] if lines else [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise DataError(
            "neither a JSON object nor a stream of `data:` lines", where=where, fix="save the body of the answer"
        ) from error


def _origin(chunk: object, where: str) -> Response:
    values = [chunk.get(key) if isinstance(chunk, dict) else None for key in ("id", "model", "system_fingerprint")]
    if not all(isinstance(value, str) and value for value in values):
        raise DataError(
            "the answer has no id, no model or no system_fingerprint: it is not one of `lora-med serve`",
            where=where,
            fix="save the whole body of the answer",
        )
    return Response(*map(str, values))

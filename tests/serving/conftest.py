"""Tiny bases with adapters whose answers differ, an engine on them, and the answers that transformers gives alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.runtime.swap import generate_rows, load_many
from lora_med.adapters.store.published import AdapterFiles, open_files
from lora_med.models.base import Base, load_base
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Ask, Done, Limits, Piece, Running, Sampling
from tests.adapters.conftest import put, train
from tests.tiny import make_tiny

NAMES = ("a", "b", "c", "d")
Answers = Callable[[str | None, Sequence[int], int], list[int]]


@dataclass(frozen=True)
class Place:
    """A tiny base on disk, with a store of the adapters in `NAMES`."""

    folder: Path
    store: Path

    def base(self) -> Base:
        return load_base(str(self.folder), quantization="none")

    def files(self, name: str) -> AdapterFiles:
        return open_files(self.store / name)

    def engine(self, names: Sequence[str] = NAMES, **limits: Any) -> Engine:
        engine = Engine(self.base(), replace(Limits(kv_memory=16 * 1024**2), **limits))
        for name in names:
            engine.load(name, self.files(name))
        return engine


def make_place(family: str, folder: Path, names: Sequence[str] = NAMES, **options: Any) -> Place:
    place = Place(make_tiny(family, folder / "base", **options), folder / "store")
    for seed, name in enumerate(names):
        base = place.base()
        put(train(base, store=place.store, seed=seed, steps=3 + 2 * seed), base, name, place.store)
    return place


@pytest.fixture(scope="session")
def llama_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place("gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def engine(llama_place: Place) -> Iterator[Engine]:
    with llama_place.engine() as made:
        yield made


def alone(place: Place, names: Sequence[str] = NAMES) -> Answers:
    """A function that gives the tokens of transformers' own greedy generation for one prompt alone."""
    base = place.base()
    pool = load_many(base, list(names), place.store)
    known: dict[tuple[str | None, tuple[int, ...], int], list[int]] = {}

    def answer(name: str | None, tokens: Sequence[int], most: int) -> list[int]:
        key = (name, tuple(tokens), most)
        if key not in known:
            known[key] = generate_rows(pool, base.tokenizer, [tokens], [name], max_new_tokens=most)[0]
        return known[key]

    return answer


@pytest.fixture(scope="session")
def llama_alone(llama_place: Place) -> Answers:
    return alone(llama_place)


def ask(adapter: str | None, tokens: Sequence[int], most: int = 12, id: str = "1", **options: Any) -> Ask:
    fields = {name: options.pop(name) for name in ("key", "echo_logprobs", "identity") if name in options}
    return Ask(id, adapter, tuple(tokens), Sampling(most, **options), **fields)


def finish(running: Running) -> tuple[list[int], str, Done]:
    """The answer's tokens, its text, and the last event."""
    tokens, text, done = [], "", None
    for event in running:
        if isinstance(event, Piece):
            tokens.append(event.token)
            text += event.text
        elif isinstance(event, Done):
            text += event.text
            done = event
    assert done is not None
    return tokens, text, done

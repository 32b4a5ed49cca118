"""Adapters of every kind share the engine: DoRA, other ranks and layers, experts, trained tokens, 4-bit bases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.runtime.swap import generate_rows, load_many
from lora_med.adapters.store.published import open_files
from lora_med.errors import SettingsError
from lora_med.models.base import Base, load_base
from lora_med.serving.engine import Engine
from tests.adapters.conftest import put, train
from tests.serving.conftest import ask, finish
from tests.tiny import make_tiny
from tests.tiny_families import make_family

PROMPT = [1, 50, 60, 70]
NOTE = 261  # the id that the tiny tokenizer of 261 words gives the first new token


def fill(folder: Path, store: Path, kinds: dict[str, dict[str, Any]]) -> None:
    for seed, (name, lora) in enumerate(kinds.items()):
        base = load(folder)
        put(train(base, store=store, seed=seed, steps=4, **lora), base, name, store)


def load(folder: Path, quantization: str = "none") -> Base:
    return load_base(str(folder), quantization=quantization, dtype="float32")


def compare(folder: Path, store: Path, names: list[str], *, quantization: str = "none", most: int = 16) -> Engine:
    """Answers of one shared batch are those of each request alone."""
    base = load(folder, quantization)
    expected = {}
    with load_many(base, names, store) as pool:
        for name in (*names, None):
            expected[name] = generate_rows(pool, base.tokenizer, [PROMPT], [name], max_new_tokens=most)[0]
    with Engine(load(folder, quantization)) as engine:
        for name in names:
            engine.load(name, open_files(store / name))
        asks = [ask(name, PROMPT, most, id=str(number)) for number, name in enumerate((*names, None, *names))]
        for one, handle in zip(asks, [engine.submit(one) for one in asks], strict=True):
            assert finish(handle)[0] == expected[one.adapter], one.adapter
    assert len(set(map(tuple, expected.values()))) == len(expected)
    return engine


def test_dora_other_ranks_and_other_layers_share_a_batch(tmp_path: Path) -> None:
    folder, store = make_tiny("llama", tmp_path / "base"), tmp_path / "store"
    kinds = {
        "plain": {},
        "dora": {"use_dora": True},
        "small": {"r": 2},
        "upper": {"layers_to_transform": [1]},
        "attention": {"target_modules": ["q_proj", "v_proj"], "r": 8},
    }
    fill(folder, store, kinds)
    compare(folder, store, list(kinds))


def test_adapters_of_routed_experts_run_beside_others(tmp_path: Path) -> None:
    folder, store = make_family("qwen3_moe", tmp_path / "base"), tmp_path / "store"
    fill(folder, store, {"experts": {"target_experts": True}, "more": {"target_experts": True, "r": 2}, "layers": {}})
    engine = compare(folder, store, ["experts", "more", "layers"])
    assert engine.statistics().failed == 0


def test_a_base_in_four_bits_answers_as_it_does_alone(tmp_path: Path) -> None:
    folder, store = make_tiny("llama", tmp_path / "base"), tmp_path / "store"
    fill(folder, store, {"a": {}, "b": {"r": 2}})
    compare(folder, store, ["a", "b"], quantization="4bit")


@pytest.fixture(scope="module")
def with_tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a store with `tokens`, which trained a new token, `other`, which trained another, and `plain`."""
    root = tmp_path_factory.mktemp("tokens")
    folder, store = make_tiny("llama", root / "base"), root / "store"
    kinds = {
        "tokens": {"trainable_tokens": ["<note>"]},
        "other": {"trainable_tokens": ["<drug>", "<dose>"]},
        "plain": {},
    }
    fill(folder, store, kinds)
    return folder, store


def test_trained_tokens_are_read_under_their_adapter_alone(with_tokens: tuple[Path, Path]) -> None:
    folder, store = with_tokens
    base = load(folder)
    bare_tokens = base.tokenizer("<note> x")["input_ids"]
    with Engine(base) as engine:
        alone = finish(engine.submit(ask(None, PROMPT, 16)))[0]
        engine.load("plain", open_files(store / "plain"))
        plain = finish(engine.submit(ask("plain", PROMPT, 16)))[0]
        running = [engine.submit(ask(name, PROMPT, 200)) for name in (None, "plain")]
        engine.load("tokens", open_files(store / "tokens"))
        assert NOTE in engine.encode_text("tokens", "<note> x")
        assert NOTE not in engine.encode_text("plain", "<note> x")
        assert list(engine.encode_text(None, "<note> x")) == bare_tokens
        assert finish(running[0])[0][:16] == alone
        assert finish(running[1])[0][:16] == plain
        assert finish(engine.submit(ask(None, PROMPT, 16)))[0] == alone
        given = finish(engine.submit(ask("tokens", engine.encode_text("tokens", "<note> x"), 16)))[0]
        prompt = list(engine.encode_text("tokens", "<note> x"))
    with load_many(load(folder), ["tokens"], store) as pool:
        assert given == generate_rows(pool, pool.base.tokenizer, [prompt], ["tokens"], max_new_tokens=16)[0]


def test_tokens_that_cannot_be_together_are_refused_and_nothing_changes(with_tokens: tuple[Path, Path]) -> None:
    folder, store = with_tokens
    with Engine(load(folder)) as engine:
        engine.load("tokens", open_files(store / "tokens"))
        before = finish(engine.submit(ask("tokens", PROMPT, 16)))[0]
        with pytest.raises(SettingsError):
            engine.load("other", open_files(store / "other"))
        assert [loaded.name for loaded in engine.loaded()] == ["tokens"]
        assert finish(engine.submit(ask("tokens", PROMPT, 16)))[0] == before

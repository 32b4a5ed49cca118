"""The engine: many requests in one batch, each answered as it is alone, by the adapter that it names."""

from __future__ import annotations

from typing import Any

import pytest

from lora_med.serving.requests import Ask
from tests.serving.conftest import NAMES, Place, alone, ask, finish

PROMPTS = ([1, 50, 60, 70], [1, 90, 80], [1, *range(20, 200, 3)], [7, 8, 9, 10, 11, 12, 13])


@pytest.mark.parametrize("family", ["llama_place", "gpt2_place"])
def test_answers_of_a_shared_batch_are_those_of_each_request_alone(family: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(family)
    truth = alone(place)
    asks: list[Ask] = []
    for number, prompt in enumerate(PROMPTS):
        for name in ("a", "b", None):
            asks.append(ask(name, prompt, 8 + 5 * number, id=str(len(asks))))
    with place.engine() as engine:
        assert engine.shares_passes
        running = [engine.submit(one) for one in asks]
        for one, handle in zip(asks, running, strict=True):
            tokens, _, done = finish(handle)
            assert tokens == truth(one.adapter, one.tokens, one.sampling.max_tokens), one
            loaded = {entry.name: entry.sha256 for entry in engine.loaded()}
            assert done.adapter_sha256 == (None if one.adapter is None else loaded[one.adapter])
        assert engine.statistics().steps < sum(one.sampling.max_tokens for one in asks)
        assert engine.statistics().split_passes == 0
    assert len({tuple(truth(name, PROMPTS[0], 12)) for name in (*NAMES, None)}) == 5


@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d"), ("a", None), ("a", "a", "b")])
def test_several_requests_for_each_of_several_adapters_share_their_passes(
    names: tuple[str | None, ...], llama_place: Place
) -> None:
    """Rows that lie in the order of their adapters, as many of each, once failed together and were computed alone."""
    truth = alone(llama_place)
    asks = [
        ask(name, [1, 50, 60, 70 + copy], 16, id=f"{name}-{copy}-{place}")
        for place, name in enumerate(names)
        for copy in range(3)
    ]
    with llama_place.engine() as engine:
        running = [engine.submit(one) for one in asks]
        for one, handle in zip(asks, running, strict=True):
            assert finish(handle)[0] == truth(one.adapter, one.tokens, 16), one
        statistics = engine.statistics()
    assert statistics.split_passes == 0
    assert statistics.steps < 3 * 16


def test_a_pass_that_fails_for_several_requests_is_counted_and_each_is_computed_alone(
    llama_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(model: Any, inputs: Any, named: Any) -> None:
        if len(named["input_ids"]) > 1:
            raise RuntimeError("too many rows for this device")

    truth = alone(llama_place)
    asks = [ask(name, [1, 50, 60, 70], 8, id=str(name)) for name in ("a", "b")]
    with llama_place.engine() as engine:
        hook = engine.base.model.register_forward_pre_hook(fail, with_kwargs=True)
        running = [engine.submit(one) for one in asks]
        for one, handle in zip(asks, running, strict=True):
            assert finish(handle)[0] == truth(one.adapter, one.tokens, 8)
        hook.remove()
        assert engine.statistics().split_passes > 0
    assert "a pass of 2 requests failed" in caplog.text and "too many rows" not in caplog.text

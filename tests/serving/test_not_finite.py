"""An adapter whose numbers overflow: its request ends with an error, it is taken out of service, the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lora_med.serving.engine import Engine
from lora_med.serving.requests import NotFinite, NotLoaded
from tests.adapters.conftest import put, train
from tests.serving.conftest import Answers, Place, ask, finish

PROMPT = [1, 50, 60, 70]


@pytest.fixture(scope="module")
def loud(llama_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with `loud`: finite weights, whose product overflows float32 in the last layer."""
    store = tmp_path_factory.mktemp("loud")
    base = llama_place.base()
    model = train(base, store=store, target_modules=["down_proj"], layers_to_transform=[1])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.fill_(1e25)
    put(model, base, "loud", store)
    return store


@pytest.fixture
def own(llama_place: Place, loud: Path) -> Iterator[Engine]:
    from lora_med.adapters.store.published import open_files

    with llama_place.engine() as engine:
        engine.load("loud", open_files(loud / "loud"))
        yield engine


def test_numbers_that_are_not_finite_end_their_request_alone(own: Engine, llama_alone: Answers) -> None:
    others = {name: own.submit(ask(name, PROMPT, 40)) for name in ("a", "b", None)}
    bad = own.submit(ask("loud", PROMPT, 40, id="the-id"))
    with pytest.raises(NotFinite, match="the-id") as raised:
        finish(bad)
    assert raised.value.adapter == "loud"
    assert "loud" not in [loaded.name for loaded in own.loaded()]
    assert [loaded.name for loaded in own.statistics().out_of_service] == ["loud"]
    with pytest.raises(NotLoaded, match="out of service"):
        own.submit(ask("loud", PROMPT, 4))
    for name, handle in others.items():
        assert finish(handle)[0] == llama_alone(name, PROMPT, 40)
    assert finish(own.submit(ask("a", PROMPT, 9)))[0] == llama_alone("a", PROMPT, 9)


def test_requests_that_wait_for_such_an_adapter_are_told(llama_place: Place, loud: Path) -> None:
    from lora_med.adapters.store.published import open_files

    with llama_place.engine(max_batch=1) as engine:
        engine.load("loud", open_files(loud / "loud"))
        first = engine.submit(ask("a", PROMPT, 60))
        waiting = [engine.submit(ask("loud", PROMPT, 4)) for _ in range(3)]
        finish(first)
        with pytest.raises(NotFinite):
            finish(waiting[0])
        for handle in waiting[1:]:
            with pytest.raises(NotLoaded, match="NaN or infinity"):
                finish(handle)


def test_nothing_of_such_a_prompt_is_cached(own: Engine) -> None:
    with pytest.raises(NotFinite):
        finish(own.submit(ask("loud", [1] * 200, 4)))
    assert own.statistics().kv_bytes == 0


def test_a_whole_adapter_loaded_under_the_name_is_in_service_again(
    own: Engine, llama_place: Place, llama_alone: Answers
) -> None:
    with pytest.raises(NotFinite):
        finish(own.submit(ask("loud", PROMPT, 4)))
    own.load("loud", llama_place.files("b"))
    assert finish(own.submit(ask("loud", PROMPT, 9)))[0] == llama_alone("b", PROMPT, 9)
    assert own.statistics().out_of_service == ()

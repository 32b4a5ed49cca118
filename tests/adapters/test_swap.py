"""Swapping: exact, nested, after errors, between threads, and row by row."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.attach import attach, attach_new
from lora_med.adapters.swap import generate_rows, load_many, use
from lora_med.config.schema import LoraSettings
from lora_med.errors import BaseMismatchError, SettingsError
from lora_med.models.base import Base, load_base
from tests.adapters.conftest import logits

PROMPTS = [[1, 50, 60, 70], [1, 80, 81, 82], [1, 90, 91, 92], [1, 50, 60, 70]]


@pytest.fixture(params=["none", "4bit"])
def many(request: pytest.FixtureRequest, llama: Path, shelf: Path) -> tuple[Any, dict[str | None, torch.Tensor]]:
    """A model with two adapters, and the true logits: of the base before any, and of each attached alone."""
    truth: dict[str | None, torch.Tensor] = {None: logits(load_base(str(llama), quantisation=request.param).model)}
    for name in ("abstracts", "questions"):
        truth[name] = logits(attach(load_base(str(llama), quantisation=request.param), name, shelf))
    base = load_base(str(llama), quantisation=request.param)
    return load_many(base, ["abstracts", "questions"], shelf), truth


def test_swapping_there_and_back_restores_every_logit(many: tuple[Any, dict[str | None, torch.Tensor]]) -> None:
    model, truth = many
    for name in ("abstracts", "questions", "abstracts", None, "questions", None):
        with use(model, name):
            assert torch.equal(logits(model), truth[name])
        assert torch.equal(logits(model), truth["abstracts"])
    assert model.active_adapter == "abstracts"


def test_nested_use_restores_step_by_step(many: tuple[Any, dict[str | None, torch.Tensor]]) -> None:
    model, truth = many
    with use(model, None):
        with use(model, "questions"):
            with use(model, None):
                assert torch.equal(logits(model), truth[None])
            assert torch.equal(logits(model), truth["questions"])
        assert torch.equal(logits(model), truth[None])
    assert torch.equal(logits(model), truth["abstracts"])


def test_an_error_inside_restores_too(many: tuple[Any, dict[str | None, torch.Tensor]]) -> None:
    model, truth = many
    for name in ("questions", None):
        with pytest.raises(ZeroDivisionError), use(model, name):
            _ = 1 / 0
        assert torch.equal(logits(model), truth["abstracts"])


def test_threads_get_their_own_adapters_answer(many: tuple[Any, dict[str | None, torch.Tensor]]) -> None:
    model, truth = many
    wrong: list[str | None] = []

    def ask(name: str | None) -> None:
        for _ in range(8):
            with use(model, name):
                if not torch.equal(logits(model), truth[name]):
                    wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("abstracts", "questions", None) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_each_row_of_a_batch_gets_its_own_adapter(many: tuple[Any, dict[str | None, torch.Tensor]], base: Base) -> None:
    model, truth = many
    names = ["abstracts", "questions", None, "questions"]
    together = generate_rows(model, base.tokenizer, PROMPTS, names, max_new_tokens=5)
    alone = [
        generate_rows(model, base.tokenizer, [row], [name], max_new_tokens=5)[0]
        for row, name in zip(PROMPTS, names, strict=True)
    ]
    assert together == alone
    assert together[3] != generate_rows(model, base.tokenizer, [PROMPTS[3]], [None], max_new_tokens=5)[0]
    assert torch.equal(logits(model), truth["abstracts"])


def test_dora_rows_are_answered_one_adapter_at_a_time(base: Base, shelf: Path) -> None:
    model = load_many(base, ["abstracts", "dora"], shelf)
    names = ["dora", "abstracts", None, "dora"]
    together = generate_rows(model, base.tokenizer, PROMPTS, names, max_new_tokens=4)
    for row, name, answer in zip(PROMPTS, names, together, strict=True):
        assert generate_rows(model, base.tokenizer, [row], [name], max_new_tokens=4) == [answer]


def test_answers_end_before_the_stop_token(base: Base, shelf: Path) -> None:
    model = attach(base, "abstracts", shelf)
    first = generate_rows(model, base.tokenizer, PROMPTS[:1], ["abstracts"], max_new_tokens=6)[0]
    base.model.generation_config.eos_token_id = [2, first[3]]
    assert (
        generate_rows(model, base.tokenizer, PROMPTS[:1], ["abstracts"], max_new_tokens=6)[0]
        == first[: first.index(first[3])]
    )


def test_use_while_training_leaves_the_adapter_trainable(base: Base) -> None:
    model = attach_new(base, LoraSettings(r=4), seed=1)
    model.train()
    trainable = {name for name, one in model.named_parameters() if one.requires_grad}
    with use(model, None):
        pass
    with use(model, "default"):
        pass
    assert {name for name, one in model.named_parameters() if one.requires_grad} == trainable
    assert model.training


def test_use_leaves_attached_adapters_frozen(base: Base, shelf: Path) -> None:
    model = load_many(base, ["abstracts", "questions"], shelf)
    for name in ("questions", None, "abstracts"):
        with use(model, name):
            assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_adapter_that_is_not_attached_is_named(base: Base, shelf: Path) -> None:
    model = attach(base, "abstracts", shelf)
    with pytest.raises(SettingsError, match="did you mean 'abstracts'"), use(model, "abstract"):
        pass
    with pytest.raises(SettingsError, match="questions"):
        generate_rows(model, base.tokenizer, PROMPTS[:1], ["questions"])
    with pytest.raises(SettingsError, match="1 prompts but 2"):
        generate_rows(model, base.tokenizer, PROMPTS[:1], [None, None])


def test_many_on_another_base_are_refused(twin: Path, shelf: Path) -> None:
    with pytest.raises(BaseMismatchError):
        load_many(load_base(str(twin), quantisation="none"), ["abstracts", "questions"], shelf)
    with pytest.raises(SettingsError, match="no adapter"):
        load_many(load_base(str(twin), quantisation="none"), [], shelf)

"""Swapping: PEFT's logits, exactly back, nested, after errors, between threads, and row by row."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import generate_rows, load_many, use
from lora_med.errors import BaseMismatchError, InputMissingError, SettingsError
from lora_med.models.base import Base, load_base
from tests.adapters.conftest import logits, put, train
from tests.tiny import make_tiny

PROMPTS = [[1, 50, 60, 70], [1, 80, 81, 82], [1, 90, 91, 92], [1, 50, 60, 70]]
NAMES = ["abstracts", "questions", "dora"]
Truth = dict[str | None, torch.Tensor]


def truth_of(load: Callable[[], Base], names: list[str], store: Path) -> Truth:
    """The logits of the bare base, and of each adapter attached by PEFT to a base of its own."""
    found: Truth = {None: logits(load().model)}
    return found | {name: logits(attach(load(), name, store)) for name in names}


@pytest.fixture(scope="module", params=["none", "4bit"])
def truth(request: pytest.FixtureRequest, llama: Path, shelf: Path) -> tuple[str, Truth]:
    return request.param, truth_of(lambda: load_base(str(llama), quantization=request.param), NAMES, shelf)


@pytest.fixture
def many(truth: tuple[str, Truth], llama: Path, shelf: Path) -> Iterator[tuple[AdapterPool, Truth]]:
    """A pool of three adapters, one of them DoRA, and the true logits of each and of the base."""
    quantization, expected = truth
    with load_many(load_base(str(llama), quantization=quantization), NAMES, shelf) as pool:
        mine = {name: logits_with(pool, name) for name in (None, *NAMES)}
        assert torch.equal(mine[None], expected[None])
        for name in NAMES:
            assert torch.allclose(mine[name], expected[name], atol=1e-5)
            assert (mine[name] - expected[None]).abs().max() > 0.01
        yield pool, mine


def logits_with(pool: AdapterPool, name: str | None) -> torch.Tensor:
    with use(pool, name) as model:
        return logits(model)


def test_swapping_there_and_back_restores_every_logit(many: tuple[AdapterPool, Truth]) -> None:
    pool, truth = many
    for name in ("abstracts", "questions", "abstracts", "dora", None, "questions", None):
        assert torch.equal(logits_with(pool, name), truth[name])
        assert torch.equal(logits(pool.model), truth[None])


def test_lora_gives_the_bits_of_peft(llama: Path, shelf: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        base = load_base(str(llama), quantization="none", dtype=dtype)
        expected = logits(attach(load_base(str(llama), quantization="none", dtype=dtype), "abstracts", shelf))
        assert torch.equal(logits_with(load_many(base, ["abstracts"], shelf), "abstracts"), expected)


def test_nested_use_restores_step_by_step(many: tuple[AdapterPool, Truth]) -> None:
    pool, truth = many
    with use(pool, "abstracts"):
        with use(pool, None):
            with use(pool, "questions"):
                assert torch.equal(logits(pool.model), truth["questions"])
            assert torch.equal(logits(pool.model), truth[None])
        assert torch.equal(logits(pool.model), truth["abstracts"])
    assert torch.equal(logits(pool.model), truth[None])


def test_an_error_inside_restores_too(many: tuple[AdapterPool, Truth]) -> None:
    pool, truth = many
    for name in ("questions", None, ["abstracts", "dora"]):
        with use(pool, "abstracts"):
            with pytest.raises(ZeroDivisionError), use(pool, name):
                _ = 1 / 0
            assert torch.equal(logits(pool.model), truth["abstracts"])
    assert torch.equal(logits(pool.model), truth[None])


def test_threads_run_different_adapters_at_once_and_each_is_right(many: tuple[AdapterPool, Truth]) -> None:
    pool, truth = many
    names = (*NAMES, None)
    inside, wrong, answers = threading.Barrier(8), list[str | None](), list[str | None]()

    def ask(name: str | None) -> None:
        with use(pool, name):
            inside.wait(timeout=60)  # passes only if all eight are in their blocks together
        for turn in range(50):
            mine = names[(names.index(name) + turn) % 4]
            answers.append(mine)
            if not torch.equal(logits_with(pool, mine), truth[mine]):
                wrong.append(mine)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 400
    assert wrong == []
    assert not inside.broken


def test_each_row_of_a_batch_gets_its_own_adapter(many: tuple[AdapterPool, Truth]) -> None:
    pool, truth = many
    tokenizer = pool.base.tokenizer
    names = ["abstracts", "dora", None, "questions"]
    together = generate_rows(pool, tokenizer, PROMPTS, names, max_new_tokens=5)
    alone = [
        generate_rows(pool, tokenizer, [row], [name], max_new_tokens=5)[0]
        for row, name in zip(PROMPTS, names, strict=True)
    ]
    assert together == alone
    with use(pool, None), torch.inference_mode():
        bare = pool.model.generate(torch.tensor([PROMPTS[2]]), max_new_tokens=5, do_sample=False, eos_token_id=2)
    assert bare[0, 4 : 4 + len(together[2])].tolist() == together[2]
    assert together[0] != generate_rows(pool, tokenizer, [PROMPTS[0]], [None], max_new_tokens=5)[0]
    assert torch.equal(logits(pool.model), truth[None])
    assert generate_rows(pool, tokenizer, [], []) == []
    with pytest.raises(SettingsError, match="no tokens"):
        generate_rows(pool, tokenizer, [PROMPTS[0], []], names[:2])


def test_swapping_takes_less_than_a_millisecond_at_24_layers(tmp_path: Path) -> None:
    folder, store = str(make_tiny("llama", tmp_path / "base", layers=24)), tmp_path / "store"
    for name in ("one", "two"):
        base = load_base(folder, quantization="none")
        put(train(base, store=store), base, name, store)
    pool = load_many(load_base(folder, quantization="none"), ["one", "two"], store)
    taken = []
    for turn in range(200):
        begun = time.perf_counter()
        with use(pool, ("one", "two", None)[turn % 3]):
            taken.append(time.perf_counter() - begun)
    assert sorted(taken)[100] < 1e-3


def test_answers_end_before_the_stop_token(base: Base, shelf: Path) -> None:
    pool = load_many(base, ["abstracts"], shelf)
    first = generate_rows(pool, base.tokenizer, PROMPTS[:1], ["abstracts"], max_new_tokens=6)[0]
    base.model.generation_config.eos_token_id = [2, first[3]]
    assert (
        generate_rows(pool, base.tokenizer, PROMPTS[:1], ["abstracts"], max_new_tokens=6)[0]
        == first[: first.index(first[3])]
    )


def test_a_pool_adds_no_parameter_and_needs_no_gradient(base: Base, shelf: Path) -> None:
    before = [(name, id(one)) for name, one in base.model.named_parameters()]
    pool = load_many(base, NAMES, shelf)
    for name in (*NAMES, None, ["abstracts", "dora"]):
        with use(pool, name) as model:
            assert [(name, id(one)) for name, one in model.named_parameters()] == before
            assert not any(one.requires_grad for one in model.parameters())


def test_an_adapter_that_is_not_in_the_store_is_named(base: Base, shelf: Path) -> None:
    pool = load_many(base, ["abstracts"], shelf)
    with pytest.raises(InputMissingError, match="did you mean 'abstracts'"), use(pool, "abstract"):
        pass
    with pytest.raises(InputMissingError, match="strange"):
        generate_rows(pool, base.tokenizer, PROMPTS[:1], ["strange"])
    with pytest.raises(SettingsError, match="1 prompts but 2"):
        generate_rows(pool, base.tokenizer, PROMPTS[:1], [None, None])
    assert generate_rows(pool, base.tokenizer, [], []) == []


def test_a_batch_with_other_rows_than_named_is_refused(base: Base, shelf: Path) -> None:
    pool = load_many(base, NAMES, shelf)
    with use(pool, ["abstracts", "questions"]) as model, pytest.raises(SettingsError, match="named for 2 rows"):
        model(input_ids=torch.tensor(PROMPTS))
    with use(pool, ["abstracts", "questions"]) as model, pytest.raises(SettingsError, match="no beams"):
        model.generate(input_ids=torch.tensor(PROMPTS[:2]), num_beams=2, max_new_tokens=2)


def test_many_on_another_base_are_refused(twin: Path, shelf: Path) -> None:
    with pytest.raises(BaseMismatchError):
        load_many(load_base(str(twin), quantization="none"), ["abstracts", "questions"], shelf)
    with pytest.raises(SettingsError, match="no adapter"):
        load_many(load_base(str(twin), quantization="none"), [], shelf)
    with pytest.raises(SettingsError, match="twice"):
        load_many(load_base(str(twin), quantization="none"), ["abstracts", "abstracts"], shelf)

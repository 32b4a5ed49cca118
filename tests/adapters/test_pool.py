"""The adapter pool: a bounded number in memory, loaded once, held while in use, and removed without a trace."""

from __future__ import annotations

import asyncio
import gc
import itertools
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.models.base import Base, load_base
from tests.adapters.conftest import logits, put, train

ROOT = Path(__file__).parents[2]
LETTERS = ("a", "b", "c", "d", "e", "f")


@pytest.fixture(scope="module")
def letters(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six adapters, each from another seed."""
    store = tmp_path_factory.mktemp("letters")
    for seed, name in enumerate(LETTERS):
        base = load_base(str(llama), quantization="none")
        put(train(base, store=store, seed=seed, steps=1), base, name, store)
    return store


@pytest.fixture(scope="module")
def truth(llama: Path, letters: Path) -> dict[str, torch.Tensor]:
    """Each adapter's logits, from a pool that holds all of them."""
    with load_many(load_base(str(llama), quantization="none"), LETTERS, letters) as pool:
        return {name: answer(pool, name) for name in LETTERS}


@pytest.fixture
def pool(base: Base, letters: Path) -> Iterator[AdapterPool]:
    with AdapterPool(base, letters, most_resident=2) as made:
        yield made


def answer(pool: AdapterPool, name: str) -> torch.Tensor:
    with use(pool, name) as model:
        return logits(model)


def test_the_adapter_used_longest_ago_leaves(pool: AdapterPool, truth: dict[str, torch.Tensor]) -> None:
    for name, resident in (("a", "a"), ("b", "ab"), ("a", "ba"), ("c", "ac"), ("b", "cb"), ("b", "cb"), ("c", "bc")):
        assert torch.equal(answer(pool, name), truth[name])
        assert "".join(pool.names) == resident


def test_an_adapter_in_use_stays_whoever_else_comes(pool: AdapterPool, truth: dict[str, torch.Tensor]) -> None:
    with use(pool, "a") as model:
        for name in "bcdbc":
            assert torch.equal(answer(pool, name), truth[name])
            assert "a" in pool.names
            assert len(pool.names) == 2
        assert torch.equal(logits(model), truth["a"])


def test_an_evicted_adapter_is_freed_even_after_a_mixed_batch(pool: AdapterPool) -> None:
    with use(pool, ["a", "b"]) as model:
        model(input_ids=torch.tensor([[1], [1]]))
    slots, choice = pool.hold(["a"])
    pool.release(slots)
    gone = weakref.ref(next(iter(choice.adapter.updates.values())))  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    del slots, choice
    for name in "cd":
        answer(pool, name)
    gc.collect()
    assert gone() is None


def test_what_cannot_be_held_at_once_is_refused_and_leaves_no_trace(
    pool: AdapterPool, truth: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(SettingsError, match="one batch names 3 adapters, and 2"), use(pool, ["a", "b", None, "c"]):
        pass
    with use(pool, "a"), use(pool, "b"), use(pool, None), pytest.raises(SettingsError, match="no free slot for 'c'"):
        answer(pool, "c")
    assert torch.equal(answer(pool, "c"), truth["c"])
    assert torch.equal(answer(pool, "d"), truth["d"])
    assert pool.names == ("c", "d")
    with pytest.raises(SettingsError, match="most_resident is 0"):
        AdapterPool(pool.base, pool.store, most_resident=0)


def test_a_thread_waits_until_a_slot_is_free(pool: AdapterPool, truth: dict[str, torch.Tensor]) -> None:
    found: list[torch.Tensor] = []
    other = threading.Thread(target=lambda: found.append(answer(pool, "c")))
    with use(pool, ["a", "b"]):
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
        assert set(pool.names) == {"a", "b"}
    other.join(timeout=60)
    assert torch.equal(found[0], truth["c"])


def test_a_thread_that_waits_for_a_slot_gets_an_error_when_the_pool_closes(pool: AdapterPool) -> None:
    found: list[SettingsError] = []

    def ask() -> None:
        with pytest.raises(SettingsError, match="closed") as error:
            answer(pool, "c")
        found.append(error.value)

    other = threading.Thread(target=ask)
    with use(pool, ["a", "b"]):
        other.start()
        other.join(timeout=0.5)
        assert other.is_alive()
        pool.close()
        other.join(timeout=60)
    assert len(found) == 1


def test_two_threads_that_ask_for_one_adapter_load_it_once(pool: AdapterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, reads = threading.Barrier(8), list[str]()
    read_bytes = Path.read_bytes

    def counted(path: Path) -> bytes:
        if path.suffix == ".safetensors":
            reads.append(path.parent.name)
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", counted)

    def ask() -> None:
        inside.wait(timeout=60)
        answer(pool, "a")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == ["a"]


def test_many_threads_share_two_slots_and_every_answer_is_right(
    pool: AdapterPool, truth: dict[str, torch.Tensor]
) -> None:
    right: list[bool] = []
    most: list[int] = []

    def ask(start: int) -> None:
        for turn in range(25):
            names = [LETTERS[(start + turn) % 6], LETTERS[(start + 2 * turn + 1) % 6]]
            if turn % 3:
                right.append(torch.equal(answer(pool, names[0]), truth[names[0]]))
            else:
                ids = torch.tensor([[1, 50, 60, 70, 80, 90]] * 3)
                with use(pool, [names[0], None, names[1]]) as model, torch.no_grad():
                    rows = model(input_ids=ids).logits
                near = [
                    torch.allclose(rows[row], truth[name][0], atol=1e-5)
                    for row, name in zip((0, 2), names, strict=True)
                ]
                right.append(all(near))
            most.append(len(pool.names))

    threads = [threading.Thread(target=ask, args=(start,), daemon=True) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=200)
    assert right == [True] * 200
    assert max(most) <= 2


def test_one_stack_of_all_in_memory_serves_every_mixture_of_them(base: Base, letters: Path) -> None:
    pool = load_many(base, LETTERS, letters)
    ids = torch.tensor([[1], [60]])
    for names in (["a", "b"], ["c", "d"], ["f", "a"], ["a", "b"]):
        with use(pool, names) as model, torch.no_grad():
            mixed = model(input_ids=ids).logits
        for row, name in enumerate(names):
            with use(pool, name) as model, torch.no_grad():
                assert torch.allclose(mixed[row], model(input_ids=ids).logits[row], atol=1e-5)


def test_every_arrangement_of_adapters_over_rows_gives_each_row_its_own(base: Base, letters: Path) -> None:
    pool = load_many(base, "abc", letters)
    arrangements = [*itertools.product([None, *"abc"], repeat=4), [*"aabbcc"], [*"aaabbb"], [*"aaaabbbb"], [*"abcabc"]]
    for tokens in (1, 3):
        ids = torch.arange(5, 5 + tokens)[None]
        with torch.inference_mode():
            alone = {}
            for name in (None, *"abc"):
                with use(pool, name) as model:
                    alone[name] = model(input_ids=ids).logits[0]
            for names in arrangements:
                with use(pool, list(names)) as model:
                    mixed = model(input_ids=ids.expand(len(names), -1)).logits
                for row, name in enumerate(names):
                    assert torch.allclose(mixed[row], alone[name], atol=1e-5), (names, row)


def test_a_failed_load_is_reported_to_all_and_frees_its_slot(base: Base, letters: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(letters, tmp_path / "store"))
    file = store / "a" / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with AdapterPool(base, store, most_resident=1) as pool:
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                answer(pool, "a")
            except IntegrityError as error:
                errors.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert len(errors) == 4
        with pytest.raises(InputMissingError), use(pool, "nobody"):
            pass
        assert pool.names == ()
        answer(pool, "b")
        file.write_bytes(whole)
        answer(pool, "a")
        assert pool.names == ("a",)


def test_tasks_of_one_thread_do_not_see_each_others_adapter(pool: AdapterPool, truth: dict[str, torch.Tensor]) -> None:
    async def ask(name: str) -> torch.Tensor:
        with use(pool, name) as model:
            await asyncio.sleep(0.01)
            return logits(model)

    async def both() -> list[torch.Tensor]:
        return list(await asyncio.gather(ask("a"), ask("b")))

    one, two = asyncio.run(both())
    assert torch.equal(one, truth["a"])
    assert torch.equal(two, truth["b"])


def test_a_thread_started_inside_use_runs_the_bare_base(pool: AdapterPool, truth: dict[str, torch.Tensor]) -> None:
    bare, found = logits(pool.model), list[torch.Tensor]()
    with use(pool, "a"):
        other = threading.Thread(target=lambda: found.append(logits(pool.model)))
        other.start()
        other.join()
    assert torch.equal(found[0], bare)


def test_another_adapters_overflow_stays_in_its_own_rows(pool: AdapterPool, truth: dict[str, torch.Tensor]) -> None:
    ids = torch.tensor([[1], [1], [1]])
    with torch.no_grad():
        bare = pool.model(input_ids=ids).logits[1]
        with use(pool, ["a", None, "b"]) as model:
            before = model(input_ids=ids).logits
        slots, choice = pool.hold(["b"])
        for update in choice.adapter.updates.values():  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
            update.down.fill_(3e38)
        pool._mixture.stacks.clear()
        with use(pool, ["a", None, "b"]) as model:
            after = model(input_ids=ids).logits
        pool.release(slots)
    assert not torch.isfinite(after[2]).any()
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], bare)


def test_closing_takes_the_hooks_off_and_the_base_is_free_again(base: Base, letters: Path) -> None:
    before = logits(base.model)
    with load_many(base, ["a", "b"], letters) as pool:
        assert any(module._forward_hooks for module in base.model.modules())
        answer(pool, "a")
    assert not any(module._forward_hooks for module in base.model.modules())
    assert torch.equal(logits(base.model), before)
    pool.close()
    with pytest.raises(SettingsError, match="closed"), use(pool, "a"):
        pass
    assert not torch.equal(logits(attach(base, "a", letters)), before)
    with pytest.raises(SettingsError, match="already has adapters"):
        AdapterPool(base, letters)


def test_a_forgotten_pool_leaves_the_base_as_a_closed_one_does(base: Base, letters: Path) -> None:
    pool = load_many(base, ["a"], letters)
    answer(pool, "a")
    forgotten = weakref.ref(pool)
    del pool
    gc.collect()
    assert forgotten() is None
    assert not any(module._forward_hooks for module in base.model.modules())


def test_a_pool_that_cannot_be_filled_leaves_the_base_free(base: Base, letters: Path) -> None:
    with pytest.raises(InputMissingError):
        load_many(base, ["a", "nobody"], letters)
    assert not any(module._forward_hooks for module in base.model.modules())


def test_neither_peft_nor_bitsandbytes_is_needed_to_run_adapters(llama: Path, letters: Path) -> None:
    code = (
        "import sys; from lora_med import load_base, load_many, generate_rows\n"
        f"base = load_base({str(llama)!r}, quantization='none')\n"
        f"pool = load_many(base, ['a', 'b'], {str(letters)!r})\n"
        "generate_rows(pool, base.tokenizer, [[1, 50], [1, 60]], ['a', 'b'], max_new_tokens=2)\n"
        "print({'peft', 'bitsandbytes'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"

"""Adapters come, go and are replaced while requests run; each request keeps the weights that it began with."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.adapters.store.published import open_files
from lora_med.errors import BaseMismatchError, DiskError, IntegrityError, LoraMedError, SettingsError
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Done, EngineError, NotLoaded, Piece
from tests.serving.conftest import NAMES, Answers, Place, ask, finish, make_place

PROMPT = [1, 50, 60, 70]
LONG = 150
FAILING = "/proc/self/mem"  # to read its beginning is an input/output error, as of a failing disk


@pytest.fixture
def place(llama_place: Place, tmp_path: Path) -> Place:
    """A copy of the store that a test may damage."""
    return replace(llama_place, store=Path(shutil.copytree(llama_place.store, tmp_path / "store")))


@pytest.fixture
def own(place: Place) -> Iterator[Engine]:
    with place.engine(most_resident=2) as made:
        yield made


def test_a_running_request_finishes_on_the_weights_that_were_replaced(
    own: Engine, place: Place, llama_alone: Answers
) -> None:
    running = own.submit(ask("a", PROMPT, LONG))
    first = next(iter(running))
    assert isinstance(first, Piece)
    before = own.loaded()[0]
    after = own.load("a", place.files("b"))
    tokens, _, done = finish(running)
    assert [first.token, *tokens] == llama_alone("a", PROMPT, LONG)
    assert done.adapter_sha256 == before.sha256 != after.sha256
    tokens, _, done = finish(own.submit(ask("a", PROMPT, LONG)))
    assert tokens == llama_alone("b", PROMPT, LONG)
    assert done.adapter_sha256 == after.sha256


def test_a_running_request_finishes_on_weights_that_were_unloaded(own: Engine, llama_alone: Answers) -> None:
    running = own.submit(ask("a", PROMPT, LONG))
    first = next(iter(running))
    assert isinstance(first, Piece)
    own.unload("a")
    assert [loaded.name for loaded in own.loaded()] == ["b", "c", "d"]
    with pytest.raises(NotLoaded, match="no adapter 'a' is loaded"):
        own.submit(ask("a", PROMPT))
    assert [first.token, *finish(running)[0]] == llama_alone("a", PROMPT, LONG)
    assert "a" not in own.statistics().resident


def test_a_waiting_request_is_answered_by_what_was_loaded_when_it_came(place: Place, llama_alone: Answers) -> None:
    with place.engine(max_batch=1) as engine:
        running = engine.submit(ask("b", PROMPT, LONG))
        waiting = engine.submit(ask("a", PROMPT, 12))
        before = next(loaded for loaded in engine.loaded() if loaded.name == "a")
        engine.load("a", place.files("c"))
        finish(running)
        tokens, _, done = finish(waiting)
    assert tokens == llama_alone("a", PROMPT, 12)
    assert done.adapter_sha256 == before.sha256


def test_a_waiting_request_is_answered_although_the_same_content_came_and_went(
    place: Place, llama_alone: Answers
) -> None:
    with place.engine(max_batch=1, most_resident=1) as engine:
        running = engine.submit(ask("b", PROMPT, LONG))
        waiting = engine.submit(ask("a", PROMPT, 12))
        engine.load("a", place.files("a"))
        engine.unload("a")
        finish(running)
        assert finish(waiting)[0] == llama_alone("a", PROMPT, 12)


def test_tokens_made_for_a_replaced_adapter_are_refused(own: Engine, place: Place) -> None:
    before = own.loaded()[0]
    own.load("a", place.files("b"))
    with pytest.raises(NotLoaded, match="was replaced"):
        own.submit(ask("a", PROMPT, identity=before.identity))
    finish(own.submit(ask("a", PROMPT, identity=own.loaded()[0].identity)))


def test_more_adapters_than_fit_take_turns_and_the_least_used_leaves(own: Engine, llama_alone: Answers) -> None:
    for round_ in range(2):
        running = {name: own.submit(ask(name, PROMPT, 20 + round_)) for name in NAMES}
        for name, handle in running.items():
            assert finish(handle)[0] == llama_alone(name, PROMPT, 20 + round_)
    assert len(own.statistics().resident) == 2
    assert own.statistics().swaps_from_disk >= 4


def test_an_adapter_in_use_never_leaves(own: Engine, llama_alone: Answers) -> None:
    running = own.submit(ask("a", PROMPT, LONG))
    next(iter(running))
    for name in ("b", "c", "d", "b"):
        assert finish(own.submit(ask(name, PROMPT, 2)))[0] == llama_alone(name, PROMPT, 2)
        if not _has_ended(running):
            assert "a" in own.statistics().resident
    assert finish(running)[2].reason in ("length", "stop")


def _has_ended(running: object) -> bool:
    return bool(running._has_ended)  # type: ignore[attr-defined]


DAMAGES = {
    "torn": lambda folder: (folder / "adapter_model.safetensors").write_bytes(
        (folder / "adapter_model.safetensors").read_bytes()[:-100]
    ),
    "other": lambda folder: shutil.copy(folder.parent / "b" / "adapter_model.safetensors", folder),
    "gone": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "a folder": lambda folder: (
        (folder / "adapter_model.safetensors").unlink(),
        (folder / "adapter_model.safetensors").mkdir(),
    ),
    "failing": lambda folder: (
        (folder / "adapter_model.safetensors").unlink(),
        (folder / "adapter_model.safetensors").symlink_to(FAILING),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_damaged_after_loading_fail_their_own_requests_only(
    damage: str, own: Engine, place: Place, llama_alone: Answers
) -> None:
    for name in ("c", "d"):
        finish(own.submit(ask(name, PROMPT, 2)))  # now a is on disk alone
    DAMAGES[damage](place.store / "a")
    running = {name: own.submit(ask(name, PROMPT, 9)) for name in ("c", "a", "d", "a")}
    for name, handle in running.items():
        if name == "a":
            with pytest.raises(NotLoaded):
                finish(handle)
        else:
            assert finish(handle)[0] == llama_alone(name, PROMPT, 9)
    assert finish(own.submit(ask("b", PROMPT, 9)))[0] == llama_alone("b", PROMPT, 9)


def test_files_replaced_on_disk_by_a_whole_other_adapter_are_not_taken_for_the_first(
    own: Engine, place: Place, llama_alone: Answers
) -> None:
    for name in ("c", "d"):
        finish(own.submit(ask(name, PROMPT, 2)))
    shutil.rmtree(place.store / "a")
    shutil.copytree(place.store / "b", place.store / "a")
    with pytest.raises(NotLoaded, match="not those that were loaded"):
        finish(own.submit(ask("a", PROMPT, 9)))
    own.load("a", place.files("a"))
    assert finish(own.submit(ask("a", PROMPT, 9)))[0] == llama_alone("b", PROMPT, 9)


def test_a_load_that_fails_changes_nothing(own: Engine, place: Place, llama_alone: Answers, tmp_path: Path) -> None:
    before, resident = own.loaded(), own.statistics().resident
    other = make_place("llama", tmp_path / "other", ("x",), seed=9)
    with pytest.raises(BaseMismatchError):
        own.load("a", other.files("x"))
    with pytest.raises(SettingsError):
        own.load("../a", place.files("b"))
    DAMAGES["torn"](place.store / "b")
    with pytest.raises(IntegrityError):
        own.load("a", open_files(place.store / "b"))
    DAMAGES["failing"](place.store / "c")
    with pytest.raises(DiskError):
        own.load("a", open_files(place.store / "c"))
    assert own.loaded() == before
    assert own.statistics().resident == resident
    assert finish(own.submit(ask("a", PROMPT, 9)))[0] == llama_alone("a", PROMPT, 9)


def test_an_adapter_that_was_loaded_with_other_settings_is_another_adapter(own: Engine, place: Place) -> None:
    """Equal weights with another alpha answer otherwise, so their identities differ."""
    import hashlib
    import json

    folder = Path(shutil.copytree(place.store / "a", place.store / "louder"))
    config = json.loads((folder / "adapter_config.json").read_text())
    config["lora_alpha"] *= 4
    (folder / "adapter_config.json").write_text(json.dumps(config))
    card = json.loads((folder / "card.json").read_text())
    card["files"]["adapter_config.json"] = hashlib.sha256((folder / "adapter_config.json").read_bytes()).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    quiet, loud = own.loaded()[0], own.load("louder", open_files(folder))
    assert quiet.sha256 == loud.sha256
    assert quiet.identity != loud.identity
    assert finish(own.submit(ask("a", PROMPT, 30)))[0] != finish(own.submit(ask("louder", PROMPT, 30)))[0]


def test_no_caller_waits_for_an_answer_of_another(own: Engine, place: Place) -> None:
    running = [own.submit(ask(name, PROMPT, 240, id=name)) for name in ("a", "b")]
    begun = time.perf_counter()
    own.load("e", place.files("c"))
    own.unload("e")
    own.load("a", place.files("d"))
    own.submit(ask("c", PROMPT, 5)).cancel()
    took = time.perf_counter() - begun
    assert not any(_has_ended(handle) for handle in running), f"the answers ended within {took:.2f} s: make them longer"
    assert all(isinstance(finish(handle)[2], Done) for handle in running)


def test_loads_from_many_threads_leave_what_came_last(own: Engine, place: Place, llama_alone: Answers) -> None:
    errors: list[LoraMedError] = []

    def work(seed: int) -> None:
        try:
            for number in range(6):
                own.load("a", place.files(NAMES[(seed + number) % 4]))
                finish(own.submit(ask("a", PROMPT, 3)))
        except EngineError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    own.load("a", place.files("c"))
    assert finish(own.submit(ask("a", PROMPT, 9)))[0] == llama_alone("c", PROMPT, 9)

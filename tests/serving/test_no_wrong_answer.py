"""No answer is another adapter's: the faults on record of other engines, and a storm of requests, loads and threads."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import torch

from lora_med.adapters.runtime.swap import load_many, use
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Done, NotLoaded, Piece, Stopped
from tests.serving.conftest import NAMES, Answers, Place, alone, ask, finish, make_place

PROMPT = [1, 50, 60, 70]
LONG = [1, *(20 + number * 7 % 200 for number in range(150))]
CONTENTS = tuple(f"content-{number}" for number in range(12))
SERVED = tuple(f"name-{number}" for number in range(8))
TIE = 1e-4  # two logits this near may change places by rounding, as another batch shape rounds differently
MOST = 24


def test_an_adapter_loaded_while_others_answer_does_not_answer_for_them(
    engine: Engine, llama_place: Place, llama_alone: Answers
) -> None:
    """vLLM 47724: after a load at run time, requests in flight were answered by another user's adapter."""
    running = {name: engine.submit(ask(name, PROMPT, 120)) for name in ("a", "b", None)}
    for handle in running.values():
        next(iter(handle))
    for name in ("x", "y", "z"):
        engine.load(name, llama_place.files("d"))
    for name, handle in running.items():
        assert finish(handle)[0] == llama_alone(name, PROMPT, 120)[1:]


def test_keys_cached_under_a_name_are_not_those_of_what_is_loaded_under_it_later(
    engine: Engine, llama_place: Place, llama_alone: Answers
) -> None:
    """vLLM 30931 and 42125: after a reload under one name, the blocks of the adapter before were used."""
    for content in ("a", "b", "a", "c"):
        engine.load("user", llama_place.files(content))
        assert finish(engine.submit(ask("user", LONG, 20)))[0] == llama_alone(content, LONG, 20)
        engine.unload("user")


def test_a_cached_prompt_is_not_reused_by_another_adapter_or_the_base(engine: Engine, llama_alone: Answers) -> None:
    """llama.cpp 26207: a prompt's cache was reused after the adapters of the slot had changed."""
    for name in ("a", "b", None, "a", "c", None, "b"):
        assert finish(engine.submit(ask(name, LONG, 20)))[0] == llama_alone(name, LONG, 20)
    assert engine.statistics().cached_prompt_tokens == 3 * 128  # a, the base and b, the second time


def test_threads_that_ask_different_adapters_get_their_own(engine: Engine, llama_alone: Answers) -> None:
    """PEFT's set_adapter is global: under threads, 115 of 600 answers came from another adapter."""
    names = [*NAMES, None]
    truth = {name: llama_alone(name, PROMPT, 12) for name in names}

    def work(seed: int) -> int:
        draw = random.Random(seed)
        chosen = [draw.choice(names) for _ in range(75)]
        return sum(finish(engine.submit(ask(name, PROMPT, 12)))[0] != truth[name] for name in chosen)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 0


@pytest.mark.parametrize("name", ["nobody", "", "A", "a ", "../a", "content", "base", "gpt-4"])
def test_an_unknown_name_is_answered_by_nothing(name: str, engine: Engine) -> None:
    """Many servers answer an unknown model's name by whatever is loaded."""
    with pytest.raises(NotLoaded):
        engine.submit(ask(name, PROMPT))
    with pytest.raises(NotLoaded):
        engine.encode_text(name, "x")


@dataclass
class Result:
    """What one request of the storm got: the hash that it names, its tokens, and whether that is all of them."""

    sha256: str | None
    prompt: tuple[int, ...]
    tokens: list[int]
    is_whole: bool


@dataclass
class Storm:
    """Requests from many threads while adapters are loaded, unloaded and replaced."""

    engine: Engine
    place: Place
    requests: int
    changes: int
    results: list[Result] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        pace = threading.Semaphore(0)  # the changes are spread over the requests
        share = max(1, self.requests // (self.changes + 1))

        def change() -> None:
            draw = random.Random(1)
            for _ in range(self.changes):
                pace.acquire()
                name = draw.choice(SERVED)
                if draw.random() < 0.3:
                    self.counts["unloaded"] += 1
                    self.engine.unload(name)
                self.engine.load(name, self.place.files(draw.choice(CONTENTS)))
                self.counts["loaded"] += 1

        changer = threading.Thread(target=change)
        changer.start()

        def work(number: int) -> None:
            if number % share == share - 1:
                pace.release()
            self._ask(number)

        with ThreadPoolExecutor(32) as threads:
            list(threads.map(work, range(self.requests)))
        for _ in range(self.changes):
            pace.release()
        changer.join()

    def _ask(self, number: int) -> None:
        draw = random.Random(number)
        name = draw.choice((*SERVED, None))
        prompt = tuple(draw.choice(PROMPTS))
        breaks_off = number % 10 == 0
        try:
            running = self.engine.submit(ask(name, prompt, MOST, id=str(number), key=draw.choice(("", "k1", "k2"))))
        except NotLoaded:
            self.counts["not loaded"] += 1
            return
        tokens: list[int] = []
        is_whole = False
        try:
            for event in running:
                if isinstance(event, Piece):
                    tokens.append(event.token)
                elif isinstance(event, Done):
                    is_whole = True
                    assert event.adapter_sha256 == running.adapter_sha256
                if breaks_off and len(tokens) == 3:
                    running.cancel()
        except Stopped:
            self.counts["broken off"] += 1
        self.results.append(Result(running.adapter_sha256, prompt, tokens, is_whole))


PROMPTS = (PROMPT, [1, 90, 80], [7, 8, 9, 10, 11, 12], [1, *range(20, 60)], LONG, [*LONG, 9, 9, 9], [1, 5, 6, *LONG])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place("llama", tmp_path_factory.mktemp("many"), CONTENTS)


@pytest.fixture
def served(many: Place) -> Iterator[Engine]:
    """Eight names on twelve adapters; five of them in memory at once."""
    with many.engine((), most_resident=5, max_batch=24, kv_memory=512 * 3000, max_queue=64) as engine:
        for name, content in zip(SERVED, CONTENTS, strict=False):
            engine.load(name, many.files(content))
        yield engine


class Judge:
    """Compares results with transformers' answers for the adapter with the hash that each result names."""

    def __init__(self, place: Place) -> None:
        self.contents = {place.files(name).card.files["adapter_model.safetensors"]: name for name in CONTENTS}
        assert len(self.contents) == len(CONTENTS)
        self.truth = alone(place, CONTENTS)
        self.base = place.base()
        self.pool = load_many(self.base, list(CONTENTS), place.store)

    def verdict(self, result: Result) -> str:
        name = None if result.sha256 is None else self.contents[result.sha256]
        expected = self.truth(name, result.prompt, MOST)
        if result.tokens == (expected if result.is_whole else expected[: len(result.tokens)]):
            return "right"
        place = next(i for i, pair in enumerate(zip(result.tokens, expected, strict=False)) if pair[0] != pair[1])
        return "tie" if self.gap(name, [*result.prompt, *expected[:place]]) < TIE else "wrong"

    def gap(self, name: str | None, tokens: Sequence[int]) -> float:
        """How far the two best tokens are from each other in the single-request run."""
        with use(self.pool, name) as model, torch.inference_mode():
            best = model(input_ids=torch.tensor([list(tokens)])).logits[0, -1].topk(2).values
        return float(best[0] - best[1])


def run_storm(engine: Engine, place: Place, requests: int, changes: int) -> None:
    storm = Storm(engine, place, requests, changes)
    storm.run()
    judge = Judge(place)
    verdicts = Counter(judge.verdict(result) for result in storm.results)
    statistics = engine.statistics()
    print(dict(verdicts), dict(storm.counts), statistics)
    assert storm.counts["loaded"] == changes
    assert len(storm.results) + storm.counts["not loaded"] == requests
    assert len(storm.results) > 0.9 * requests
    assert storm.counts["broken off"] > 0.05 * requests
    assert statistics.swaps_from_disk > changes
    assert statistics.cached_prompt_tokens > 0
    assert verdicts["wrong"] == 0
    assert verdicts["tie"] <= 0.01 * requests
    assert statistics.running == statistics.waiting == statistics.split_passes == 0
    assert {result.sha256 for result in storm.results} >= {None}
    assert len({result.sha256 for result in storm.results}) > 8


@pytest.mark.slow  # over HTTP the same storm is in the quick tests
def test_a_storm_of_requests_and_loads_gives_no_wrong_answer(served: Engine, many: Place) -> None:
    run_storm(served, many, requests=500, changes=16)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_and_fifty_loads_give_no_wrong_answer(served: Engine, many: Place) -> None:
    run_storm(served, many, requests=10_000, changes=50)

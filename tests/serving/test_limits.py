"""Bounds of the engine: memory for keys and values, rows, the queue, each key; and requests that are broken off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from lora_med.errors import StoppedError
from lora_med.serving.engine import Engine
from lora_med.serving.requests import (
    Ask,
    BadRequest,
    Done,
    EngineError,
    NotLoaded,
    Piece,
    QueueFull,
    Sampling,
    Statistics,
    Stopped,
    TooLong,
)
from tests.serving.conftest import Answers, Place, ask, finish

PROMPT = [1, 50, 60, 70]


class Watch:
    """The largest numbers of an engine's statistics while a block runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: list[Statistics] = []
        self.thread = threading.Thread(target=self._look)
        self.is_over = False

    def _look(self) -> None:
        while not self.is_over:
            self.seen.append(self.engine.statistics())
            time.sleep(0.0005)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.is_over = True
        self.thread.join()


def test_keys_and_values_never_take_more_than_their_budget(llama_place: Place, llama_alone: Answers) -> None:
    # The tiny Llama has 2 layers, 2 key heads of 16 numbers, float32: 2 * 2 * (16 + 16) * 4 = 512 bytes a token.
    budget = 512 * 100
    with llama_place.engine(kv_memory=budget) as engine, Watch(engine) as watch:
        running = {number: engine.submit(ask("ab"[number % 2], PROMPT, 20 + number)) for number in range(12)}
        for number, handle in running.items():
            assert finish(handle)[0] == llama_alone("ab"[number % 2], PROMPT, 20 + number)
    assert max(seen.kv_bytes for seen in watch.seen) <= budget
    assert max(seen.running for seen in watch.seen) in (3, 4)


def test_a_request_alone_in_the_engine_takes_the_bytes_that_its_tokens_have(llama_place: Place) -> None:
    with llama_place.engine() as engine:
        running = engine.submit(ask("a", PROMPT, 200))
        next(iter(running))
        assert engine.statistics().kv_bytes == 512 * (4 + 200 - 1)
        running.cancel()
        with pytest.raises(Stopped):
            finish(running)
        assert engine.statistics().kv_bytes == 0


def test_rows_and_the_queue_are_bounded_and_who_comes_first_is_first(llama_place: Place) -> None:
    ended: list[str] = []
    with llama_place.engine(max_batch=2, max_queue=3) as engine:
        running = [engine.submit(ask("a", PROMPT, 100, id=str(number))) for number in range(2)]
        for handle in running:
            next(iter(handle))
        waiting = [engine.submit(ask("b", PROMPT, 5, id=str(number))) for number in range(2, 5)]
        with pytest.raises(QueueFull) as refused:
            engine.submit(ask("b", PROMPT, 5))
        assert refused.value.retry_after >= 1
        for handle in (*waiting, *running):
            handle.on_event(lambda handle=handle: ended.append(handle.id) if handle._has_ended else None)  # type: ignore[attr-defined]
        for handle in (*running, *waiting):
            finish(handle)
        assert engine.statistics().refused == 1
    order = list(dict.fromkeys(ended))
    assert [number for number in order if number > "1"] == ["2", "3", "4"]


def test_one_key_has_a_bound_and_leaves_the_others_their_place(llama_place: Place) -> None:
    with llama_place.engine(max_per_key=2) as engine:
        mine = [engine.submit(ask("a", PROMPT, 100, key="mine")) for _ in range(2)]
        with pytest.raises(QueueFull, match="this key"):
            engine.submit(ask("a", PROMPT, 5, key="mine"))
        finish(engine.submit(ask("a", PROMPT, 5, key="other")))
        for handle in mine:
            finish(handle)
        finish(engine.submit(ask("a", PROMPT, 5, key="mine")))


def test_no_token_follows_a_cancel_but_the_one_that_is_being_computed(llama_place: Place, llama_alone: Answers) -> None:
    with llama_place.engine() as engine:
        for most in (1, 5, 27):
            running = engine.submit(ask("a", PROMPT, 240))
            other = engine.submit(ask("b", PROMPT, 30))
            written: list[Piece] = []
            for _ in range(most):
                event = running.next_event()
                assert isinstance(event, Piece)
                written.append(event)
            at_most = most + len(running._events) + 1  # type: ignore[attr-defined]
            before = engine.statistics().steps
            running.cancel()
            at_most += engine.statistics().steps - before  # steps that ended between the two lines
            with pytest.raises(Stopped):
                for event in running:
                    assert isinstance(event, Piece)
                    written.append(event)
            assert len(written) <= at_most
            assert [piece.token for piece in written] == llama_alone("a", PROMPT, 240)[: len(written)]
            assert finish(other)[0] == llama_alone("b", PROMPT, 30)
        assert engine.statistics().cancelled == 3


def test_a_cancel_from_the_engine_itself_is_exact(llama_place: Place) -> None:
    """Called with the third token, before the next step begins: no fourth is computed."""
    with llama_place.engine() as engine:
        running = engine.submit(ask("a", PROMPT, 240))
        calls: list[int] = []

        def call() -> None:
            calls.append(1)
            if len(running._events) >= 3:  # type: ignore[attr-defined]
                running.cancel()

        running.on_event(call)
        pieces = []
        with pytest.raises(Stopped):
            while True:
                while not running.is_cancelled:  # type: ignore[attr-defined]
                    time.sleep(0.001)
                pieces.append(running.next_event())
        assert len(pieces) in (3, 4)  # the first call may come after more tokens than three


def test_requests_that_wait_can_be_cancelled_and_leave_the_queue(llama_place: Place) -> None:
    with llama_place.engine(max_batch=1, max_queue=1) as engine:
        running = engine.submit(ask("a", PROMPT, 240))
        next(iter(running))
        for _ in range(5):
            waiting = engine.submit(ask("b", PROMPT, 5))
            waiting.cancel()
            with pytest.raises(Stopped):
                finish(waiting)
        assert isinstance(finish(running)[2], Done)


@pytest.mark.parametrize(
    ("wrong", "error", "what"),
    [
        (Ask("1", "nobody", (1, 2), Sampling(5)), NotLoaded, "no adapter 'nobody' is loaded"),
        (Ask("1", "A", (1, 2), Sampling(5)), NotLoaded, "no adapter 'A'"),
        (Ask("1", "", (1, 2), Sampling(5)), NotLoaded, "no adapter ''"),
        (Ask("1", "a", (), Sampling(5)), BadRequest, "no tokens"),
        (Ask("1", "a", (1, 264), Sampling(5)), BadRequest, "not in the vocabulary"),
        (Ask("1", "a", (-1,), Sampling(5)), BadRequest, "not in the vocabulary"),
        (Ask("1", "a", (1,), Sampling(0)), BadRequest, "max_tokens is 0"),
        (Ask("1", "a", (1,), Sampling(5, temperature=-1.0)), BadRequest, "temperature is -1.0"),
        (Ask("1", "a", (1,), Sampling(5, temperature=float("nan"))), BadRequest, "temperature is nan"),
        (Ask("1", "a", (1,), Sampling(5, top_p=0.0)), BadRequest, "top_p is 0.0"),
        (Ask("1", "a", (1,), Sampling(5, top_p=float("nan"))), BadRequest, "top_p is nan"),
        (Ask("1", "a", (1,), Sampling(5, logprobs=-1)), BadRequest, "logprobs is -1"),
        (Ask("1", "a", (1,) * 101, Sampling(5)), TooLong, "the prompt may have 100 tokens, and would have 101"),
        (Ask("1", "a", (1,), Sampling(241)), TooLong, "max_tokens may have 240 tokens, and would have 241"),
        (Ask("1", "a", (1,) * 50, Sampling(207)), TooLong, "answer may have 256 tokens, and would have 257"),
        (Ask("1", "a", (1,) * 99, Sampling(150)), TooLong, "needs 126976 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_answered_is_refused_with_its_value(
    wrong: Ask, error: type[Exception], what: str, bounded: Engine
) -> None:
    with pytest.raises(error, match=what):
        bounded.submit(wrong)
    assert bounded.statistics().running == bounded.statistics().waiting == 0


@pytest.fixture(scope="module")
def bounded(llama_place: Place) -> Iterator[Engine]:
    with llama_place.engine(max_prompt_tokens=100, max_tokens=240, kv_memory=512 * 240) as made:
        yield made


def test_a_text_that_is_far_too_long_is_refused_before_it_is_cut_into_tokens(bounded: Engine) -> None:
    for text in ("a" * 10_000_000, " " * 10_000_000):
        begun = time.process_time()
        with pytest.raises(TooLong, match="may have 100 tokens, and has 10000000 characters"):
            bounded.encode_text("a", text)
        with pytest.raises(TooLong):
            bounded.encode_chat("a", [{"role": "user", "content": text}])
        assert time.process_time() - begun < 1
    longest = max(map(len, bounded.base.tokenizer.get_vocab()))
    assert bounded.encode_text("a", "a" * (100 * longest))


class Unreadable:
    """A tokenizer whose texts cannot be decoded."""

    def decode(self, *arguments: object, **options: object) -> str:
        raise KeyError("PATIENT Meier")


def test_a_fault_after_a_pass_ends_its_own_request_alone(
    llama_place: Place, llama_alone: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    with llama_place.engine() as engine:
        others = [engine.submit(ask(name, PROMPT, 40)) for name in ("a", "b")]
        engine._adapters.get("c").tokenizer = Unreadable()
        failing = engine.submit(ask("c", PROMPT, 40))
        with pytest.raises(EngineError, match="KeyError"):
            finish(failing)
        for name, handle in zip("ab", others, strict=True):
            assert finish(handle)[0] == llama_alone(name, PROMPT, 40)
        assert "Meier" not in caplog.text


def test_stop_with_drain_answers_what_came_and_refuses_what_comes(llama_place: Place, llama_alone: Answers) -> None:
    engine = llama_place.engine(max_batch=2)
    engine.start()
    running = [engine.submit(ask("ab"[number % 2], PROMPT, 50)) for number in range(6)]
    stopper = threading.Thread(target=engine.stop, args=(True,))
    stopper.start()
    while engine._scheduler._stop is None:
        time.sleep(0.001)
    with pytest.raises(Stopped):
        engine.submit(ask("a", PROMPT, 5))
    for number, handle in enumerate(running):
        assert finish(handle)[0] == llama_alone("ab"[number % 2], PROMPT, 50)
    stopper.join()


def test_stop_without_drain_stops_each_request_and_gives_the_base_back(llama_place: Place) -> None:
    import torch

    base = llama_place.base()
    ids = torch.tensor([PROMPT])
    before = base.model(input_ids=ids).logits
    engine = Engine(base)
    engine.load("a", llama_place.files("a"))
    engine.start()
    running = [engine.submit(ask("a", PROMPT, 200)) for _ in range(3)]
    next(iter(running[0]))
    engine.stop(drain=False)
    for handle in running:
        with pytest.raises(Stopped):
            finish(handle)
    assert torch.equal(base.model(input_ids=ids).logits, before)
    assert base.model.config._attn_implementation != "lora_med_rows"


def test_every_error_has_an_exit_code_of_its_kind() -> None:
    codes = {kind.name: kind.exit_code for kind in (NotLoaded, QueueFull, TooLong, BadRequest, Stopped)}
    assert codes == {"not-loaded": 66, "queue-full": 75, "too-long": 2, "bad-request": 2, "stopped": 75}
    assert Stopped.exit_code == StoppedError.exit_code

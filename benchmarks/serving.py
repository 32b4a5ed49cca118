"""python benchmarks/serving.py [--base micro] [--rounds 5] [--tokens 64] [--dtype auto]: the engine, without the web.

`--plain-products` switches the engine's own product of few rows off (models/structure/few_rows.py).

A store of 32 adapters of rank 16 on all linear layers, random and loud enough to change answers, is made for the base.
Four figures, each from alternating runs of two arms in one process:

- 8 streams over 8 adapters, against 8 streams on one;
- 8 streams at once, against the same one after another;
- 32 adapters of which 8 fit in memory, against 8 that all fit: the same 32 requests over 8 streams;
- the time to bring an adapter from disk into memory, all checks included.

The first three are tokens per second and CPU time per token; where other processes share the cores, only the latter
says something.

All answers have the full number of tokens: an answer that ends early leaves a smaller batch, which is slower for each
token. For each adapter, prompts are taken whose answers are that long.

Correctness check: how many answers differ from another arm's to the same request. Words that tie by rounding count as
different; tests/serving/test_no_wrong_answer.py tells them apart.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import Figure, machine, own_dtype, parser_for, save_figures, spread
from swap import fill_store

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
STREAMS, ADAPTERS = 8, 32
NAMES = tuple(f"adapter{number}" for number in range(ADAPTERS))
PROMPT_TOKENS, MOST_TRIES = 40, 1000


class Arms:
    """An engine, its requests, and what they answered."""

    def __init__(self, engine: Any, tokens: int) -> None:
        self.engine = engine
        self.tokens = tokens
        self.answers: dict[tuple[str, tuple[int, ...]], list[list[int]]] = {}

    def ask(self, number: int, name: str) -> int:
        """Ask and wait; returns the number of new tokens."""
        from lora_med.serving.requests import Ask, Piece, Sampling

        prompt = tuple(200 + (number * 37 + place * 11) % 2000 for place in range(PROMPT_TOKENS))
        # A key of its own for each request: no prompt is taken from the cache.
        key = f"{number}-{time.perf_counter_ns()}"
        running = self.engine.submit(Ask(key, name, prompt, Sampling(self.tokens), key=key))
        answer = [event.token for event in running if isinstance(event, Piece)]
        self.answers.setdefault((name, prompt), []).append(answer)
        return len(answer)

    def requests(self, names: Sequence[str]) -> list[tuple[int, str]]:
        """A prompt for each name, whose answer has the full number of tokens; no two prompts are equal."""
        found: list[tuple[int, str]] = []
        number, missing = 0, list(names)
        while missing:
            tries = list(enumerate(missing, number))
            number += len(missing)
            assert number < MOST_TRIES, f"the answers of {missing[0]} end early"
            with ThreadPoolExecutor(STREAMS) as threads:
                written = list(threads.map(lambda request: self.ask(*request), tries))
            found += [one for one, length in zip(tries, written, strict=True) if length == self.tokens]
            missing = [name for (_, name), length in zip(tries, written, strict=True) if length < self.tokens]
            print(f"{len(found)} of {len(names)} prompts have long answers", file=sys.stderr, flush=True)
        return sorted(found, key=lambda request: names.index(request[1]))

    def run(self, requests: Sequence[tuple[int, str]], streams: int) -> tuple[float, float]:
        """Tokens per second of these requests, over so many streams, and CPU milliseconds per token."""
        cpu, started = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(streams) as threads:
            tokens = sum(threads.map(lambda request: self.ask(*request), requests))
        return tokens / (time.perf_counter() - started), 1000 * (time.process_time() - cpu) / tokens

    def differing(self) -> tuple[int, int]:
        """How many answers differ from another one to the same request, and how many answers there are."""
        groups = self.answers.values()
        return sum(answer != group[0] for group in groups for answer in group), sum(map(len, groups))


Run = tuple[float, float]


def alternating(arms: Arms, first: Sequence[Any], second: Sequence[Any], rounds: int) -> Iterator[tuple[Run, Run]]:
    """What both arms take, round by round, each going first in turn; a round before them warms up."""
    for turn in range(rounds + 1):
        pair = [arms.run(*arm) for arm in ((first, second) if turn % 2 else (second, first))]
        seen = " and ".join(f"{speed:.0f}" for speed, _ in (pair if turn % 2 else reversed(pair)))
        print(f"round {turn} of {rounds}: {seen} tokens/s", file=sys.stderr, flush=True)
        if turn:
            yield (pair[0], pair[1]) if turn % 2 else (pair[1], pair[0])


def swap_seconds(engine: Any, rounds: int) -> list[float]:
    """Seconds to read, check and place an adapter that is on disk alone."""
    seconds = []
    for turn in range(rounds + 1):
        name = NAMES[turn % ADAPTERS]
        key = engine._adapters.get(name).key
        engine._pool.drop(key)
        started = time.perf_counter()
        slots, _ = engine._pool.hold([key])
        seconds.append(time.perf_counter() - started)
        engine._pool.release(slots)
    return seconds[1:]


def ratios(name: str, pairs: Sequence[tuple[Run, Run]], target: float, check: str) -> list[Figure]:
    """The figures of two arms, and a line for each on the screen."""
    for what, place, digits in (("tokens/s", 0, 0), ("ms of CPU a token", 1, 2)):
        first, second = ([run[place] for run in runs] for runs in zip(*pairs, strict=True))
        print(f"{name}: {spread(first, digits)} against {spread(second, digits)} {what}")
    speeds, cpus = (tuple(one[place] / two[place] for one, two in pairs) for place in (0, 1))
    return [
        Figure(f"{name}, tokens/s", speeds, "times", f"at least {target}", check),
        Figure(f"{name}, CPU a token", cpus, "times", f"at most {1 / target:.2f}", check),
    ]


def main() -> None:
    """Measure, print and save."""
    parser = parser_for(__doc__, data=False)
    parser.add_argument("--base", default="micro")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--plain-products", action="store_true")
    options = parser.parse_args()
    import lora_med
    import lora_med.models.structure.few_rows as few_rows
    from lora_med.adapters.store.published import open_files
    from lora_med.serving.engine import Engine
    from lora_med.serving.requests import Limits

    if options.plain_products:
        few_rows.is_amd = lambda: False
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        loaded = lora_med.load_base(options.base, quantization="none", dtype=own_dtype(options.dtype))
        fill_store(loaded, store, NAMES)
        with Engine(loaded, Limits(most_resident=STREAMS)) as engine:
            for name in NAMES:
                engine.load(name, open_files(store / name))
            arms = Arms(engine, options.tokens)
            every = arms.requests(NAMES)
            eight, one = every[:STREAMS], arms.requests([NAMES[0]] * STREAMS)
            resident = arms.requests(NAMES[:STREAMS] * (ADAPTERS // STREAMS))
            own = list(alternating(arms, (eight, STREAMS), (one, STREAMS), options.rounds))
            at_once = list(alternating(arms, (eight, STREAMS), (eight, 1), options.rounds))
            many = list(alternating(arms, (every, STREAMS), (resident, STREAMS), options.rounds))
            seconds = swap_seconds(engine, max(options.rounds, 5))
            differing, answers = arms.differing()
    check = f"{differing} of {answers} answers differ between arms"
    where = f"{Path(options.base).name}, {loaded.dtype}"
    figures = [
        *ratios(f"8 adapters against one ({where})", own, 0.85, check),
        *ratios(f"8 streams at once against one after another ({where})", at_once, 3, check),
        *ratios(f"32 adapters, 8 fit, against 8 ({where})", many, 0.33, check),
        Figure(f"swap-in from disk ({where})", tuple(1000 * one for one in seconds), "ms", "at most 150", check),
    ]
    for figure in figures:
        print(f"{figure.name}: {spread(figure.values, 2)} {figure.unit} (target: {figure.target})")
    print(f"{check}; load average {load:.1f} before; {machine()}")
    save_figures(f"serving_{Path(options.base).stem}", figures)


if __name__ == "__main__":
    main()

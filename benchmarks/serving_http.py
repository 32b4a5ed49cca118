"""python benchmarks/serving_http.py [--base micro] [--rounds 5] [--requests 40]: what the web adds to the engine.

`lora-med serve` runs as a process of its own, and an engine on the same base in this one. One after another, never at
once, both get the same prompts of token ids, greedy, over a connection that stays open:

- the time to the first token, over HTTP as a stream less that of the engine alone;
- the CPU time of a request of two tokens, the server's process less this one with the engine alone: it counts the same
  work where other processes share the cores;
- 8 streams of 64 tokens, over HTTP against the engine alone.

Correctness check: the text over HTTP is that of the engine, but for words that tie by rounding in another batch.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from measure import HERE, Figure, environment, machine, own_dtype, parser_for, save_figures, spread

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
STREAMS, TOKENS, PROMPT_TOKENS = 8, 64, 40


@contextmanager
def serving(base: str, dtype: str) -> Iterator[tuple[str, int, str, psutil.Process]]:
    """The host, the port, the model's name and the process of a server over the bare base."""
    command = [sys.executable, "-m", "lora_med", "serve", "--quiet", "--json", "--base", base, "--port", "0"]
    command += ["--quantization", "none", "--dtype", dtype, "--client-seconds", "3600"]
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(threads), cwd=HERE.parent)
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        host, port = facts["url"].removeprefix("http://").split(":")
        yield host, int(port), facts["models"][0]["id"], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


class OverHttp:
    """A client of the server; each thread has its own."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self.model = model
        self.connection = http.client.HTTPConnection(host, port)
        self.connection.connect()

    def ask(self, prompt: list[int], tokens: int) -> tuple[float, str]:
        """Seconds to the first token, and the text."""
        body = json.dumps({"model": self.model, "prompt": prompt, "max_tokens": tokens, "stream": True})
        started = time.perf_counter()
        self.connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        first = response.readline()
        seconds = time.perf_counter() - started
        lines = [first, *response.read().splitlines()]
        chunks = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
        return seconds, "".join(chunk["choices"][0]["text"] for chunk in chunks)


class Alone:
    """The engine in this process."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def ask(self, prompt: list[int], tokens: int) -> tuple[float, str]:
        """Seconds to the first token, and the text."""
        from lora_med.serving.requests import Ask, Done, Piece, Sampling

        started = time.perf_counter()
        running = iter(self.engine.submit(Ask("1", None, tuple(prompt), Sampling(tokens))))
        events = [next(running)]
        seconds = time.perf_counter() - started
        events += running
        return seconds, "".join(event.text for event in events if isinstance(event, Piece | Done))


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has computed so far."""
    times = process.cpu_times()
    return times.user + times.system


def cpu_added(http_arm: OverHttp, server: psutil.Process, alone: Alone, requests: int, first: int) -> float:
    """Milliseconds of CPU for each request: the server's, less this process's with the engine."""
    spent = []
    for process, arm in ((server, http_arm), (psutil.Process(), alone)):
        before = cpu_seconds(process)
        for number in range(requests):
            arm.ask(prompt_of(first + number), 2)
        spent.append(1000 * (cpu_seconds(process) - before) / requests)
    return spent[0] - spent[1]


def prompt_of(number: int) -> list[int]:
    """The token ids of one request; no two begin alike for a whole block, so none comes from a cache."""
    return [200 + (number * 37 + place * 11) % 2000 for place in range(PROMPT_TOKENS)]


def speed(arms: list[Any]) -> float:
    """Tokens per second over one stream for each of the arms."""
    started = time.perf_counter()
    with ThreadPoolExecutor(len(arms)) as threads:
        list(threads.map(lambda pair: pair[1].ask(prompt_of(pair[0]), TOKENS), enumerate(arms)))
    return len(arms) * TOKENS / (time.perf_counter() - started)


def main() -> None:
    """Measure, print and save."""
    parser = parser_for(__doc__, data=False)
    parser.add_argument("--base", default="micro")
    parser.add_argument("--requests", type=int, default=40)
    options = parser.parse_args()
    dtype = own_dtype(options.dtype)
    import lora_med
    from lora_med.serving.engine import Engine

    load = os.getloadavg()[0]
    added, cpus, ratios, differing, asked = [], [], [], 0, 0
    loaded = lora_med.load_base(options.base, quantization="none", dtype=dtype)
    with serving(options.base, dtype) as (host, port, model, server), Engine(loaded) as engine:
        clients = [OverHttp(host, port, model) for _ in range(STREAMS)]
        alone = Alone(engine)
        for turn in range(options.rounds + 1):
            seconds: dict[str, list[float]] = {"http": [], "engine": []}
            for number in range(options.requests):
                arms: list[tuple[str, Any]] = [("http", clients[0]), ("engine", alone)]
                texts = {}
                for name, arm in arms[:: 1 if number % 2 else -1]:
                    time_to_first, texts[name] = arm.ask(prompt_of(1000 * turn + number), 2)
                    seconds[name].append(time_to_first)
                differing += texts["http"] != texts["engine"]
                asked += 1
            cpu = cpu_added(clients[0], server, alone, options.requests, 1000 * turn + 500)
            streams: list[list[Any]] = [list(clients), [alone] * STREAMS]
            order = 1 if turn % 2 else -1
            over_http, by_engine = [speed(arms) for arms in streams[::order]][::order]
            if turn:  # the first round warms both up
                added.append(1000 * (statistics.median(seconds["http"]) - statistics.median(seconds["engine"])))
                ratios.append(over_http / by_engine)
                cpus.append(cpu)
    check = f"{differing} of {asked} answers differ"
    where = f"{Path(options.base).name}, {dtype}"
    figures = [
        Figure(f"time to the first token, HTTP over engine ({where})", tuple(added), "ms", "at most 5", check),
        Figure(f"CPU of a request of two tokens, HTTP over engine ({where})", tuple(cpus), "ms", "at most 5", check),
        Figure(f"8 streams, HTTP against engine ({where})", tuple(ratios), "times", "at least 0.9", check),
    ]
    for figure in figures:
        print(f"{figure.name}: {spread(figure.values, 2)} {figure.unit} (target: {figure.target})")
    print(f"{check}; load average {load:.1f} before; {machine()}")
    save_figures(f"serving_http_{Path(options.base).stem}", figures)


if __name__ == "__main__":
    main()

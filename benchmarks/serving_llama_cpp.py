"""python benchmarks/serving_llama_cpp.py [--server FILE] [--base micro] [--rounds 5]: beside llama.cpp's server.

One random adapter of rank 16 on all linear layers is made for the base. `lora-med serve` has it in float32 and in
bfloat16. llama.cpp's server, as `llama-server` or as the package xllamacpp holds it, has the same base and the same
adapter as GGUF files, which the export has proved equal, in the same two formats; in q8_0 it is compared with our
bfloat16. Each server is a process of its own with as many threads as the machine has cores. The two take turns, with
the same prompts of token ids, greedy:

- 8 streams of requests at once;
- one request after another.

For each, tokens per second and CPU seconds per token are compared. Where other processes share the cores, only the
latter says something.

Correctness check: how many texts are equal. llama.cpp keeps keys and values in 16 bits, as it does by default.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from measure import HERE, Figure, environment, machine, parser_for, save_figures, spread
from serving_http import cpu_seconds, prompt_of
from swap import fill_store

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
NAME, STREAMS, CONTEXT = "adapter0", 8, 512
PAIRS = (("float32", "f32"), ("bfloat16", "bf16"), ("bfloat16", "q8_0"))
START_SECONDS = 300
# The package's server listens as soon as it is made. Its wheels use no instructions beyond AVX2.
XLLAMACPP = """
import sys, time, xllamacpp
model, adapter, parallel, context, threads, port = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.n_parallel, params.n_ctx, params.port = model, int(parallel), int(context), int(port)
params.lora_adapters, params.fit_params = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)], False
params.n_gpu_layers, params.verbosity, params.cache_ram_mib = 0, -1, 0
for group in (params.cpuparams, params.cpuparams_batch):
    group.n_threads = int(threads)
server = xllamacpp.Server(params)
while True:
    time.sleep(60)
"""


class Arm:
    """A running server; `more` are fields that its requests need."""

    def __init__(self, process: subprocess.Popen[str], port: int, **more: Any) -> None:
        self.process = psutil.Process(process.pid)
        self._more = more
        self._connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(STREAMS)]

    def ask(self, stream: int, number: int, tokens: int) -> tuple[str, int]:
        """The text, and how many tokens it has."""
        body = {"prompt": prompt_of(number), "max_tokens": tokens, "temperature": 0, **self._more}
        connection = self._connections[stream]
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        return answer["choices"][0]["text"], answer["usage"]["completion_tokens"]

    def run(self, numbers: Sequence[int], streams: int, tokens: int) -> tuple[float, float, list[str]]:
        """Tokens per second, CPU milliseconds per token, and the texts."""
        for connection in self._connections:  # llama.cpp has closed it: it waits for 5 s
            connection.close()
        before, started = cpu_seconds(self.process), time.perf_counter()
        with ThreadPoolExecutor(streams) as threads:
            parts = [numbers[stream::streams] for stream in range(streams)]
            answers = threads.map(
                lambda stream: [self.ask(stream, number, tokens) for number in parts[stream]], range(streams)
            )
            found = [answer for group in answers for answer in group]
        seconds, written = time.perf_counter() - started, sum(count for _, count in found)
        cpu = 1000 * (cpu_seconds(self.process) - before) / written
        return written / seconds, cpu, [text for text, _ in found]


@contextmanager
def _process(command: Sequence[str], threads: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(threads, OMP_WAIT_POLICY="PASSIVE"),
        cwd=HERE.parent,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def ours(base: str, store: Path, dtype: str, threads: int) -> Iterator[Arm]:
    """`lora-med serve` with the adapter."""
    command = [sys.executable, "-m", "lora_med", "serve", "--quiet", "--json", "--base", base, "--port", "0"]
    command += ["--store", str(store), "--adapter", NAME, "--quantization", "none", "--dtype", dtype]
    with _process([*command, "--client-seconds", "3600"], threads) as process:
        assert process.stdout is not None
        port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        yield Arm(process, port, model=NAME)


@contextmanager
def theirs(server: Path | None, folder: Path, name: str, threads: int) -> Iterator[Arm]:
    """llama.cpp's server with the base in this number format, and the adapter."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    model, adapter = str(folder / f"base-{name}.gguf"), str(folder / f"{NAME}-adapter.gguf")
    numbers = [str(number) for number in (STREAMS, STREAMS * CONTEXT, threads, port)]
    if server is None:
        command = [sys.executable, "-c", XLLAMACPP, model, adapter, *numbers]
    else:
        options = zip(("--parallel", "--ctx-size", "--threads", "--port"), numbers, strict=True)
        command = [str(server), "-m", model, "--lora", adapter, *(word for pair in options for word in pair)]
    with _process(command, threads) as process:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(port):
            assert process.poll() is None and time.monotonic() < deadline, "llama-server did not start"
            time.sleep(0.2)
        yield Arm(process, port, cache_prompt=False)


def _is_healthy(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


def compare(mine: Arm, peer: Arm, where: str, rounds: int, tokens: int) -> list[Figure]:
    """Both arms in turn, with 8 streams and with one."""
    figures = []
    for streams, requests in ((STREAMS, STREAMS), (1, 2)):
        speeds, cpus, equal, texts = list[float](), list[float](), 0, 0
        for turn in range(rounds + 1):
            numbers = range(1000 * turn, 1000 * turn + requests)
            arms = (mine, peer)[:: 1 if turn % 2 else -1]
            own, other = [arm.run(numbers, streams, tokens) for arm in arms][:: 1 if turn % 2 else -1]
            equal += sum(one == two for one, two in zip(own[2], other[2], strict=True))
            texts += len(own[2])
            if turn:  # the first round warms both up
                speeds.append(own[0] / other[0])
                cpus.append(own[1] / other[1])
                print(f"{where}, {streams} streams: {own[0]:.0f} against {other[0]:.0f} tokens/s, "
                      f"{own[1]:.1f} against {other[1]:.1f} ms of CPU a token")  # fmt: skip
        check = f"{equal} of {texts} texts are equal"
        what = f"{streams} streams at once" if streams > 1 else "one request after another"
        figures.append(Figure(f"{what}, tokens/s ({where})", tuple(speeds), "times", "at least 1 in float32", check))
        figures.append(Figure(f"{what}, CPU a token ({where})", tuple(cpus), "times", "at most 1 in float32", check))
    return figures


def main() -> None:
    """Measure, print and save."""
    parser = parser_for(__doc__, data=False)
    parser.add_argument("--server", type=Path, help="llama.cpp's llama-server; else that of xllamacpp")
    parser.add_argument("--base", default="micro")
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    import lora_med
    from lora_med.export.gguf.export_gguf import export_gguf

    load, threads = os.getloadavg()[0], os.cpu_count() or 1
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        store, files = Path(folder) / "store", Path(folder) / "gguf"
        fill_store(lora_med.load_base(options.base, quantization="none", dtype="float32"), store, [NAME])
        formats = tuple(name for _, name in PAIRS)
        export_gguf(NAME, files, base=options.base, store=store, part="swappable", formats=formats)
        for dtype, name in PAIRS:
            with ExitStack() as stack:
                mine = stack.enter_context(ours(options.base, store, dtype, threads))
                peer = stack.enter_context(theirs(options.server, files, name, threads))
                where = f"{Path(options.base).name}, {dtype} against {name}"
                figures += compare(mine, peer, where, options.rounds, options.tokens)
    peer = f"xllamacpp {version('xllamacpp')}" if options.server is None else str(options.server.name)
    for figure in figures:
        print(f"{figure.name}: {spread(figure.values, 2)} {figure.unit} ({figure.correctness_check})")
    print(f"{peer}; load average {load:.1f} before; {machine()}")
    save_figures(f"serving_llama_cpp_{Path(options.base).stem}", figures)


if __name__ == "__main__":
    main()

"""`lora-med serve` as a process of its own, and plain requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.serving.conftest import Place

START_SECONDS = 240
Json = dict[str, Any]


@dataclass
class Server:
    """A running server; `log` holds what it wrote to stderr so far."""

    process: subprocess.Popen[str]
    url: str
    models: list[Json]
    log: list[str]
    key: str | None = None
    store: str = ""
    base_folder: str = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        given = key or self.key
        headers = {} if given is None else {"authorization": f"Bearer {given}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=180, trust_env=False, **options)

    def get(self, path: str, **headers: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path, headers=headers)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, **options)

    def complete(self, model: str = "a", prompt: Any = "Fever since", **fields: Any) -> Json:
        answer = self.post("/v1/completions", {"model": model, "prompt": prompt, "max_tokens": 8, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def metric(self, name: str) -> float:
        """A count without labels in /metrics."""
        lines = self.get("/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"lora_med_{name} ")))

    def sha256_of(self, model: str) -> str | None:
        return next(one["sha256"] for one in self.models if one["id"] == model)

    def stop(self) -> int:
        """Ask it to drain; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextlib.contextmanager
def serving(
    place: Place, *arguments: str, names: Sequence[str] = ("a", "b"), key: str | None = None
) -> Iterator[Server]:
    """A server over adapters of a place, on a free port; killed at the end if it still runs."""
    command = [sys.executable, "-m", "lora_med", "serve", "--json", "--port", "0", "--store", str(place.store)]
    command += ["--base", str(place.folder), "--dtype", "float32", *arguments]
    for name in names:
        command += ["--adapter", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path.cwd()
    )
    log: list[str] = []
    first: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True).start()
    threading.Thread(
        target=lambda: [first.put(line) for line in process.stdout or ()] + [first.put("")], daemon=True
    ).start()
    try:
        line = first.get(timeout=START_SECONDS)
        assert line, f"the server ended with {process.wait()}: {''.join(log)}"
        facts = json.loads(line)
        yield Server(process, facts["url"], facts["models"], log, key, str(place.store), str(place.folder))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def events(text: str) -> list[Any]:
    """The contents of a stream's `data:` lines; `[DONE]` as it is."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def error_of(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, parameter and code of an error in OpenAI's form."""
    content = answer.json()["error"]
    assert set(content) == {"message", "type", "param", "code"}
    assert content["message"]
    return answer.status_code, content["param"], content["code"]

"""A storm over HTTP: many connections, streams that break off, and adapters that come, go and change under a name."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Place, make_place
from tests.serving.http.conftest import ADMIN_KEY, KEYS
from tests.serving.http.server import Server, events, serving
from tests.serving.test_no_wrong_answer import CONTENTS, MOST, PROMPTS, SERVED, Judge, Result

PATH = "/v1/completions"
CONNECTIONS = 32


@dataclass
class Storm:
    """Requests over many connections while an administrator loads, unloads and replaces adapters."""

    server: Server
    contents: Path
    requests: int
    changes: int
    results: list[tuple[str, Result, list[str]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        pace = threading.Semaphore(0)  # the changes are spread over the requests
        share = max(1, self.requests // (self.changes + 1))
        clients = [self.server.client(KEYS[number % 2]) for number in range(CONNECTIONS)]

        def change() -> None:
            draw = random.Random(1)
            with self.server.client(ADMIN_KEY) as client:
                for _ in range(self.changes):
                    pace.acquire()
                    name = draw.choice(SERVED)
                    if draw.random() < 0.3:
                        assert client.delete(f"/admin/adapters/{name}").status_code == 200
                        self.counts["unloaded"] += 1
                    put_under(name, draw.choice(CONTENTS), Path(self.server.store), self.contents)
                    assert client.put(f"/admin/adapters/{name}").status_code == 200
                    self.counts["loaded"] += 1

        def work(connection: int) -> None:
            for number in range(connection, self.requests, CONNECTIONS):
                if number % share == share - 1:
                    pace.release()
                self._ask(number, clients[connection])

        changer = threading.Thread(target=change)
        changer.start()
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            list(threads.map(work, range(CONNECTIONS)))
        for _ in range(self.changes):
            pace.release()
        changer.join()
        for client in clients:
            client.close()

    def _ask(self, number: int, client: httpx.Client) -> None:
        draw = random.Random(number)
        name = draw.choice((*SERVED, "base"))
        prompt = tuple(draw.choice(PROMPTS))
        body = {"model": name, "prompt": list(prompt), "max_tokens": MOST, "logprobs": 0}
        if number % 2:
            answer = client.post(PATH, json=body)
            if answer.status_code == 200:
                choice = answer.json()["choices"][0]
                self._keep(answer, prompt, choice["text"], choice["logprobs"]["tokens"], is_whole=True)
            else:
                self.counts[f"status {answer.status_code}"] += 1
            return
        with client.stream("POST", PATH, json={**body, "stream": True}) as answer:
            if answer.status_code != 200:
                self.counts[f"status {answer.status_code}"] += 1
            elif number % 10 == 0:
                first = next(answer.iter_lines())
                self.counts["broken off"] += 1
                self._keep(answer, prompt, *joined(events(f"{first}\n\n")), is_whole=False)
            else:
                chunks = events("".join(answer.iter_text()))
                assert chunks.pop() == "[DONE]"
                self._keep(answer, prompt, *joined(chunks), is_whole=True)

    def _keep(
        self, answer: httpx.Response, prompt: tuple[int, ...], text: str, tokens: list[str], *, is_whole: bool
    ) -> None:
        sha256 = answer.headers["x-lora-med-adapter-sha256"]
        self.results.append((text, Result(None if sha256 == "none" else sha256, prompt, [], is_whole), tokens))


def joined(chunks: list[Any]) -> tuple[str, list[str]]:
    """The text and the tokens' texts of a stream."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    tokens = [token for choice in choices for token in choice["logprobs"]["tokens"]]
    return "".join(choice["text"] for choice in choices), tokens


def put_under(name: str, content: str, store: Path, contents: Path) -> None:
    """Let the store hold this content under the name, at once."""
    link = store / f".{name}"
    link.symlink_to(contents / content)
    os.replace(link, store / name)


def verdict(judge: Judge, text: str, result: Result, tokens: list[str]) -> str:
    """Whether a text is the one that transformers writes alone with the weights that the answer names."""
    name = None if result.sha256 is None else judge.contents[result.sha256]
    expected = judge.truth(name, result.prompt, MOST)
    decode = judge.base.tokenizer.decode
    whole = decode(expected, skip_special_tokens=True)
    if text == whole if result.is_whole else whole.startswith(text.rstrip("\ufffd")):
        return "right"
    pairs = zip(tokens, [decode([token]) for token in expected], strict=False)
    place = next(place for place, (given, wanted) in enumerate(pairs) if given != wanted)
    return "tie" if judge.gap(name, [*result.prompt, *expected[:place]]) < 1e-4 else "wrong"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place("llama", tmp_path_factory.mktemp("many"), CONTENTS)


def run_storm(many: Place, key_files: list[str], folder: Path, requests: int, changes: int) -> None:
    contents = Path(shutil.copytree(many.store, folder / "contents"))
    store = folder / "store"
    store.mkdir()
    for name, content in zip(SERVED, CONTENTS, strict=False):
        put_under(name, content, store, contents)
    options = [*key_files, "--most-resident", "5", "--max-batch", "24", "--kv-memory", "0.0015"]
    with serving(Place(many.folder, store), *options, names=SERVED, key=KEYS[0]) as server:
        storm = Storm(server, contents, requests, changes)
        storm.run()
        judge = Judge(many)
        verdicts = Counter(verdict(judge, *found) for found in storm.results)
        print(dict(verdicts), dict(storm.counts))
        assert storm.counts["loaded"] == changes
        assert len(storm.results) > 0.8 * requests  # the rest: 503, an adapter left memory and its files changed
        assert storm.counts["broken off"] > 0.05 * requests
        assert verdicts["wrong"] == 0
        assert verdicts["tie"] <= 0.01 * requests
        assert len({result.sha256 for _, result, _ in storm.results}) > 8
        assert set(storm.counts) <= {"loaded", "unloaded", "broken off", "status 404", "status 503"}
        assert server.metric("requests_running") == server.metric("requests_waiting") == 0
        assert server.metric("split_passes_total") == 0
        assert server.stop() == 0


def test_a_storm_over_http_gives_no_wrong_answer(many: Place, key_files: list[str], tmp_path: Path) -> None:
    run_storm(many, key_files, tmp_path, requests=500, changes=16)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_requests_over_http_give_no_wrong_answer(
    many: Place, key_files: list[str], tmp_path: Path
) -> None:
    run_storm(many, key_files, tmp_path, requests=10_000, changes=50)

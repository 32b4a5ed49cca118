"""The playground on a real engine: whole pages, streams, who answered, bounds, and an end when the reader leaves."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient
from transformers import AutoTokenizer

from lora_med.adapters.runtime.swap import generate_rows, load_many
from lora_med.cli.review.playground_engine import EngineAnswering, playground_engine
from lora_med.errors import NotPermittedError, SettingsError
from lora_med.review.web.page_templates import guarded
from lora_med.review.web.playground_pages import PlaygroundPages, read_prompt
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Limits
from lora_med.serving.served_models import Audience
from lora_med.serving.start import Wanted, open_all, running_engine
from lora_med.visible import visible
from tests.serving.conftest import Place, make_place
from tests.tiny import SPECIAL

PROMPT = "The patient takes aspirin"
FORM = {"prompt": PROMPT, "subject": ["0", "1", "2"], "form": "plain", "most_tokens": "12"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place("llama", tmp_path_factory.mktemp("playground"), ("a", "b"))


@pytest.fixture(scope="module")
def engine(place: Place) -> Iterator[tuple[Engine, EngineAnswering]]:
    audience = Audience(is_local=True)
    opened = open_all(Wanted(("a", "b"), place.store, str(place.folder)), audience)
    with running_engine(opened, Limits(kv_memory=1 << 24), audience) as (made, models, _):
        yield made, EngineAnswering(made, models.all)


@pytest.fixture(scope="module")
def client(engine: tuple[Engine, EngineAnswering]) -> TestClient:
    return client_of(engine[1])


def client_of(answering: EngineAnswering | None) -> TestClient:
    return TestClient(guarded(PlaygroundPages(answering).routes()), base_url="http://127.0.0.1:8080")


@pytest.fixture(scope="module")
def alone(place: Place) -> dict[str | None, str]:
    """What transformers itself writes after the prompt with each adapter alone, and without."""
    base = place.base()
    tokens = base.tokenizer(PROMPT)["input_ids"]
    pool = load_many(base, ["a", "b"], place.store)
    answers = {
        name: generate_rows(pool, base.tokenizer, [tokens], [name], max_new_tokens=12)[0] for name in (None, "a", "b")
    }
    return {name: base.tokenizer.decode(answer, skip_special_tokens=True) for name, answer in answers.items()}


def events(body: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in body.split("\n\n") if line]


def asked(engine: Engine) -> int:
    """How many requests the engine ever got."""
    now = engine.statistics()
    return now.running + now.waiting + now.finished + now.cancelled + now.failed + now.refused


def test_a_plain_form_gives_a_page_with_every_answer_and_who_gave_it(
    client: TestClient, place: Place, alone: dict[str | None, str]
) -> None:
    page = unescape(client.post("/playground", data=FORM).text)
    shown = re.findall(r'<div class="text"[^>]*>(.*?)</div>', page, re.DOTALL)
    assert shown == [visible(alone[name]) for name in (None, "a", "b")] and len(set(shown)) == 3
    for name in ("a", "b"):
        assert f"adapter weights SHA-256 {place.files(name).card.files['adapter_model.safetensors']}." in page
    assert f"the bare base, weights SHA-256 {place.base().fingerprint.weights}." in page
    assert "Access class: <strong>open</strong>" in page and PROMPT in page
    assert len(page) < 100_000


def test_a_stream_brings_the_same_answers_part_by_part(client: TestClient, alone: dict[str | None, str]) -> None:
    answer = client.post("/playground/stream", data=FORM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    first, *rest = events(answer.text)
    assert len(first["subjects"]) == 3 and first["subjects"][1:] == ["a", "b"]
    for number, name in enumerate((None, "a", "b")):
        mine = [event for event in rest if event["subject"] == number]
        assert "".join(event.get("text", "") for event in mine) == visible(alone[name])
        assert [bool(event.get("end")) for event in mine] == [False] * (len(mine) - 1) + [True]
    assert len(rest) > 3


def test_only_those_chosen_answer_and_the_form_keeps_what_was_sent(client: TestClient) -> None:
    page = client.post("/playground", data={**FORM, "subject": ["2"]}).text
    assert re.findall(r'<h2 id="answer-\d">(.*?)</h2>', page) == ["b"]
    assert re.findall(r'name="subject" value="(\d)" checked', page) == ["2"]
    assert '<option value="plain" selected>' in page and 'name="most_tokens" size="6" value="12"' in page


def test_typed_control_tokens_stay_text(client: TestClient, place: Place) -> None:
    text = "".join(SPECIAL[1:3])
    page = unescape(client.post("/playground", data={**FORM, "prompt": text, "subject": ["0"]}).text)
    tokenizer = AutoTokenizer.from_pretrained(place.folder)
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 2
    assert f"after {1 + len(text)} of the prompt" in page  # the begin of text, and each byte


def test_a_chat_turn_is_sent_by_the_template_of_the_base(client: TestClient, place: Place) -> None:
    page = unescape(client.post("/playground", data={**FORM, "form": "chat", "subject": ["0", "1"]}).text)
    tokenizer = place.base().tokenizer
    turn = [{"role": "user", "content": PROMPT}]
    count = len(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)["input_ids"])
    assert page.count(f"after {count} of the prompt") == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": " \n"}, "Write a prompt."),
        ({"prompt": "x" * 20_001}, "The prompt has 20,001 characters; at most 20,000 are sent."),
        ({"most_tokens": "0"}, "a whole number from 1 to 512"),
        ({"most_tokens": "513"}, "a whole number from 1 to 512"),
        ({"most_tokens": "²"}, "a whole number from 1 to 512"),
        ({"subject": []}, "Choose the base or an adapter."),
        ({"subject": ["1", "7"]}, "Choose the base or an adapter."),
        ({"form": "x"}, "Choose how the prompt is sent."),
    ],
)
def test_a_form_that_cannot_be_sent_is_refused_in_words_and_nothing_is_asked(
    client: TestClient, engine: tuple[Engine, EngineAnswering], change: dict[str, Any], sentence: str
) -> None:
    before = asked(engine[0])
    for path in ("/playground", "/playground/stream"):
        answer = client.post(path, data={**FORM, **change})
        assert answer.status_code == 422 and sentence in unescape(answer.text)
    assert asked(engine[0]) == before


def test_a_prompt_that_does_not_fit_is_said_beside_each_subject(client: TestClient) -> None:
    answer = client.post("/playground", data={**FORM, "prompt": "word " * 300})
    assert answer.status_code == 200
    assert answer.text.count('<p class="problem">the prompt and its answer may have 256 tokens') == 3


def test_hostile_text_is_only_text(client: TestClient) -> None:
    hostile = "</textarea><script>alert(1)</script>\u202e"
    page = client.post("/playground", data={**FORM, "prompt": hostile}).text
    assert "<script>" not in page and "\u202e" not in page and "&lt;/textarea&gt;&lt;script&gt;" in page


def test_many_fields_and_another_origin_ask_nothing(client: TestClient, engine: tuple[Engine, EngineAnswering]) -> None:
    before = asked(engine[0])
    assert client.post("/playground", data={f"f{n}": "x" for n in range(50)}).status_code == 422
    assert client.post("/playground", data=FORM, headers={"origin": "http://evil.example"}).status_code == 403
    assert asked(engine[0]) == before


@pytest.mark.parametrize("path", ["/playground", "/playground/stream"])
def test_a_reader_who_leaves_stops_the_answers(engine: tuple[Engine, EngineAnswering], path: str) -> None:
    body = urlencode({**FORM, "most_tokens": "200"}, doseq=True).encode()
    before = engine[0].statistics()

    async def leave() -> None:
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.02)  # the answers have begun
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        headers = [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        await guarded(PlaygroundPages(engine[1]).routes())(scope, receive, send)

    asyncio.run(leave())
    deadline = time.monotonic() + 20
    while (now := engine[0].statistics()).running + now.waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    assert now.cancelled - before.cancelled == 3 and now.finished == before.finished


def test_credentialed_adapters_need_a_permission_and_the_class_is_on_the_page(place: Place, tmp_path: Path) -> None:
    store = tmp_path / "store"
    make_credentialed(place, store)
    wanted = Wanted(("a",), store, str(place.folder))
    with (
        pytest.raises(NotPermittedError, match="showing answers of 'a' on a page"),
        playground_engine(wanted, 0.1, None),
    ):
        pass
    with playground_engine(wanted, 0.1, "the data office allows it, letter of May 3") as answering:
        client = client_of(answering)
        for answer in (client.get("/playground"), client.post("/playground", data={**FORM, "subject": ["1"]})):
            assert "Access class: <strong>credentialed</strong>" in answer.text
            assert answer.headers["cache-control"] == "no-store"


def make_credentialed(place: Place, store: Path) -> None:
    """A copy of adapter `a` whose card says that it comes from credentialed data."""
    shutil.copytree(place.store / "a", store / "a")
    path = store / "a" / "card.json"
    card = json.loads(path.read_text())
    card["data"]["access"] = "credentialed"
    path.write_text(json.dumps(card))


def test_five_adapters_do_not_fit(place: Place) -> None:
    wanted = Wanted(tuple("abcde"), place.store, str(place.folder))
    with pytest.raises(SettingsError, match="5 adapters"), playground_engine(wanted, 0.1, None):
        pass


def test_without_a_model_the_page_says_how_to_start_it() -> None:
    client = client_of(None)
    assert "--adapter NAME" in client.get("/playground").text
    assert client.post("/playground", data=FORM).status_code == 405


def test_a_prompt_is_read_with_line_feeds_and_each_subject_once() -> None:
    prompt = read_prompt({"prompt": ["a\r\nb"], "subject": ["1", "0", "1"]}, 2)
    assert (prompt.text, prompt.subjects, prompt.form, prompt.most_tokens) == ("a\nb", (0, 1), "trained", 128)

"""Clients of others, as they are: openai, langchain-openai, llm, and lm-evaluation-harness over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.heldout_records import HeldOutRecords
from lora_med.evaluation.scorers.choice_answers import pose_questions, score_choices
from lora_med.models.base import load_base
from lora_med.workflows.lm_eval_export import write_harness
from tests.serving.http.server import Server
from tests.workflows.test_lm_eval import invented

ASKED: list[Any] = [{"role": "user", "content": "Fever since?"}]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def openai_client(open_server: Server) -> Any:
    openai = pytest.importorskip("openai", reason="openai is not installed")
    with openai.OpenAI(base_url=f"{open_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_chats_whole_and_as_a_stream(openai_client: Any, open_server: Server) -> None:
    create = openai_client.chat.completions.create
    whole = create(model="a", messages=ASKED, max_tokens=12)
    text = whole.choices[0].message.content
    assert text and whole.usage.completion_tokens == 12
    listed = openai_client.models.retrieve("a")
    assert whole.system_fingerprint == listed.system_fingerprint
    assert listed.sha256 == open_server.sha256_of("a")
    streamed, usages, reasons = "", [], []
    options = {"include_usage": True}
    for chunk in create(model="a", messages=ASKED, max_tokens=12, stream=True, stream_options=options):
        if chunk.usage is not None:
            usages.append(chunk.usage.completion_tokens)
        for choice in chunk.choices:
            streamed += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert (streamed, usages, reasons) == (text, [12], ["length"])
    turns = [*ASKED, whole.choices[0].message, *ASKED]  # an answer goes back as the client holds it
    assert create(model="a", messages=turns, max_tokens=2).usage.prompt_tokens > whole.usage.prompt_tokens


def test_openai_streams_with_its_helper_and_lists_models(openai_client: Any) -> None:
    assert [model.id for model in openai_client.models.list()] == ["base", "a", "b"]
    with openai_client.chat.completions.stream(model="b", messages=ASKED, max_tokens=6) as stream:
        texts = [event.delta for event in stream if event.type == "content.delta"]
        snapshot = stream.current_completion_snapshot
    assert "".join(texts) == snapshot.choices[0].message.content
    assert snapshot.choices[0].finish_reason == "length"


def test_openai_reads_scores(openai_client: Any) -> None:
    answer = openai_client.chat.completions.create(
        model="a", messages=ASKED, max_tokens=4, logprobs=True, top_logprobs=2
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 4 and all(len(token.top_logprobs) == 2 and token.logprob < 0 for token in content)
    completion = openai_client.completions.create(model="a", prompt="Fever", max_tokens=4, logprobs=2, echo=True)
    assert len(completion.choices[0].logprobs.token_logprobs) == 10


def test_openai_parses_a_strict_schema(openai_client: Any) -> None:
    pytest.importorskip("llguidance")
    from typing import Literal

    from pydantic import BaseModel

    class Dose(BaseModel):
        drug: Literal["aspirin", "heparin"]
        milligrams: Literal[75, 100]

    answer = openai_client.chat.completions.parse(model="a", messages=ASKED, response_format=Dose, max_tokens=120)
    parsed = answer.choices[0].message.parsed
    assert parsed is not None and parsed.milligrams in (75, 100)


def test_openai_raises_its_own_errors(openai_client: Any) -> None:
    import openai  # type: ignore[reportMissingImports]

    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.chat.completions.create(model="gpt-4", messages=ASKED)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        openai_client.chat.completions.create(model="a", messages=ASKED, tools=tools)


def test_langchain_asks_and_streams(open_server: Server) -> None:
    langchain = pytest.importorskip("langchain_openai", reason="langchain-openai is not installed")
    model = langchain.ChatOpenAI(
        model="a", base_url=f"{open_server.url}/v1", api_key="none", max_tokens=12, temperature=0, max_retries=0
    )
    whole = model.invoke("Fever since?")
    assert whole.content and whole.usage_metadata["output_tokens"] == 12
    assert "".join(str(part.content) for part in model.stream("Fever since?")) == whole.content
    completion = langchain.OpenAI(
        model="b", base_url=f"{open_server.url}/v1", api_key="none", max_tokens=5, temperature=0, max_retries=0
    )
    assert len(completion.invoke("Fever")) > 0


def test_llm_asks_a_model_of_an_extra_file(open_server: Server, tmp_path: Path) -> None:
    pytest.importorskip("llm", reason="llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: ward\n  model_name: a\n  api_base: {open_server.url}/v1\n"
        f"- model_id: ward-text\n  model_name: b\n  api_base: {open_server.url}/v1\n  completion: true\n"
    )
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    expected = open_server.post("/v1/chat/completions", {"model": "a", "messages": ASKED, "max_tokens": 9}).json()
    for options in ([], ["--no-stream"]):
        command = [sys.executable, "-m", "llm", "-m", "ward", "-o", "max_tokens", "9", *options, "Fever since?"]
        done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().rstrip("\n") == expected["choices"][0]["message"]["content"].rstrip("\n")
    command = [sys.executable, "-m", "llm", "-m", "ward-text", "-o", "max_tokens", "9", "Fever"]
    done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


def test_lm_evaluation_harness_gets_our_scores(
    open_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    pytest.importorskip("tenacity", reason="lm-eval[api] is not installed")
    from lm_eval.models.openai_completions import LocalCompletionsAPI  # type: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # type: ignore[reportMissingImports]

    records = tuple(invented(200))
    held = HeldOutRecords(records, "open", "custom")
    task = write_harness(held, tmp_path, template="cloze", scoring="choice")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    model = LocalCompletionsAPI(
        base_url=f"{open_server.url}/v1/completions",
        model="base",
        tokenizer=open_server.base_folder,
        tokenizer_backend="huggingface",
        add_bos_token=True,
        batch_size=16,
        max_length=256,
        max_retries=1,
    )
    run = lm_eval.simple_evaluate(
        model=model,
        tasks=[task.name],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    base = load_base(open_server.base_folder, quantization="none", dtype="float32")
    questions = pose_questions(records, "cloze", base.model, base.tokenizer)
    ours = score_choices(base.model, questions, 256)
    theirs = sorted(run["samples"][task.name], key=lambda one: one["doc_id"])
    assert len(theirs) == len(ours.scores) == 200
    for scores, sample in zip(ours.scores, theirs, strict=True):
        assert scores == pytest.approx([score for score, _ in sample["filtered_resps"]], abs=2e-3)
    right = sum(one == truth for one, truth in zip(ours.predicted, questions.truth, strict=True))
    assert right / 200 == pytest.approx(run["results"][task.name]["acc,none"])

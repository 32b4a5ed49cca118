"""Conversations from rows to an adapter: the template that is chosen, what is trained, and what travels with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import lora_med
from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.published import open_files, open_published
from lora_med.adapters.store.verify import verify
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.record import Pair
from lora_med.errors import DataError, IntegrityError, SettingsError
from lora_med.export.vllm import command
from lora_med.files import read_json, sha256_file
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from lora_med.training.rows.documents import DocumentStream
from tests.adapters.test_commands import call_json
from tests.evaluation.published import publish_on
from tests.prompts.chat_styles import CHATML, GEMMA, STYLES, style_tokenizer
from tests.tiny import make_tiny

OWN = CHATML.replace("<|im_start|>' + m", "<|im_start|>the ' + m")
OWN = OWN.replace("<|im_start|>assistant", "<|im_start|>the assistant")


def talk(number: int, *, system: bool = False, turns: int = 1) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}] if system else []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {number}.{turn}?"})
        messages.append({"role": "assistant", "content": f"Answer {number}.{turn}."})
    return {"messages": messages}


ROWS = [talk(number, turns=1 + number % 3) for number in range(12)]
MORE = [talk(number) for number in range(20, 24)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("chat") / "base")


def settings(base: Path, folder: Path, *extra: str) -> Settings:
    return parse(
        None,
        [
            f"model.base={base}",
            "model.load_in_4bit=false",
            "model.dtype=float32",
            "data.source=custom",
            "adapter.access=open",
            f"train.output_dir={folder / 'run'}",
            "train.max_steps=2",
            "train.per_device_train_batch_size=2",
            "lora.r=4",
            "adapter.name=mine",
            f"adapter.store={folder / 'adapters'}",
            *extra,
        ],
    )


def run_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "run.json").read_text())


def test_all_turns_train_more_tokens_of_the_same_rows(base: Path, tmp_path: Path) -> None:
    lengths = {}
    for turns in ("last", "all"):
        folder = lora_med.train(
            settings(base, tmp_path / turns, f"train.assistant_turns={turns}"), train=ROWS, validation=MORE
        )
        card = read_card(folder)
        assert card.template == "pair_chat_v2" and card.settings["train"]["assistant_turns"] == turns
        assert run_json(tmp_path / turns)["settings"]["train"]["assistant_turns"] == turns
        lengths[turns] = run_json(tmp_path / turns)["lengths"]["training"]
    assert lengths["all"]["tokens"] == lengths["last"]["tokens"]
    assert lengths["last"]["trained_tokens"] == sum(len(row["messages"][-1]["content"]) + 1 for row in ROWS)
    every = [turn["content"] for row in ROWS for turn in row["messages"] if turn["role"] == "assistant"]
    assert lengths["all"]["trained_tokens"] == sum(len(content) + 1 for content in every)
    with pytest.raises(SettingsError, match="does not train all"):
        lora_med.train(
            settings(base, tmp_path / "old", "train.assistant_turns=all", "data.template=pair_chat"),
            train=ROWS,
            validation=MORE,
        )


def test_a_refused_row_stops_the_run_or_is_skipped_and_counted(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    (base / "chat_template.jinja").write_text(
        GEMMA.replace("<start_of_turn>", "<|im_start|>").replace("<end_of_turn>", "<|im_end|>")
    )
    rows = [*ROWS, talk(50, system=True)]
    with pytest.raises(DataError, match=r"train.*:13 with the turns system, user, assistant: System role not"):
        lora_med.train(settings(base, tmp_path), train=rows, validation=MORE)
    lora_med.train(settings(base, tmp_path / "skipped", "data.skip_bad=true"), train=rows, validation=MORE)
    lengths = run_json(tmp_path / "skipped")["lengths"]["training"]
    assert (lengths["documents"], lengths["rows_refused"]) == (12, 1)


def test_a_template_of_ones_own_travels_with_the_adapter(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(OWN)
    folder = lora_med.train(settings(base, tmp_path, f"model.chat_template={file}"), train=ROWS, validation=MORE)
    card = read_card(folder)
    assert (folder / "chat_template.jinja").read_text() == OWN
    assert card.files["chat_template.jinja"] == sha256_file(file)
    assert card.settings["model"]["chat_template"] == "own.jinja"
    assert all(check.outcome == "ok" for check in verify(folder, str(base)).checks)
    assert open_files(folder).chat_template == OWN
    assert "its own, in chat_template.jinja" in (folder / "README.md").read_text()
    written = call_json(
        capsys, "generate", "--adapter", "mine", "--prompt", "Hi", "--base", base, "--store", tmp_path / "adapters",
        "--max-new-tokens", 2,
    )  # fmt: skip
    assert (written["chat"], written["prompt_tokens"]) == (True, 29)  # 3 control tokens and 26 bytes
    merge_adapter("mine", tmp_path / "merged", base=str(base), store=tmp_path / "adapters")
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert merged.chat_template == OWN
    assert "chat_template" not in read_json(tmp_path / "merged" / "tokenizer_config.json")
    (folder / "chat_template.jinja").write_text(CHATML)
    with pytest.raises(IntegrityError, match=r"chat_template\.jinja is not the file"):
        open_files(folder)


def test_a_base_without_a_template_gets_the_plain_one_and_the_adapter_carries_it(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base", chat=False)
    folder = lora_med.train(settings(base, tmp_path), train=ROWS, validation=MORE)
    adapter = open_files(folder)
    assert adapter.chat_template is not None and "Assistant:" in adapter.chat_template
    loaded = load_base(str(base), quantization="none").with_chat_template(adapter.chat_template)
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    text = loaded.tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|begin_of_text|>User: Why?\n\nAssistant: So.<|end_of_text|>\n\n"


def test_an_adapter_that_is_trained_further_keeps_its_template(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(OWN)
    lora_med.train(settings(base, tmp_path, f"model.chat_template={file}"), train=ROWS, validation=MORE)
    further = lora_med.train(
        settings(
            base, tmp_path, "lora.continue_from=mine", "adapter.name=further", f"train.output_dir={tmp_path / 'run2'}"
        ),
        train=MORE,
        validation=ROWS[:2],
    )
    assert open_files(further).chat_template == OWN


def test_what_is_shown_and_checked_before_training_is_what_is_trained(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, rows = tmp_path / "own.jinja", tmp_path / "rows.jsonl"
    own.write_text(OWN)
    rows.write_text("".join(json.dumps(talk(number, turns=2)) + "\n" for number in range(6)))
    here = [f"model.base={base}", "data.source=custom", "adapter.access=open", f"data.paths=[{rows}]",
            "data.validation_share=0", "data.test_share=0", "train.assistant_turns=all",
            f"model.chat_template={own}"]  # fmt: skip
    (shown,) = call_json(capsys, "data", "preview", *here, "--rows", 1)["rows"]
    assert shown["trained"] == "Answer 0.0.<|im_end|>Answer 0.1.<|im_end|>"
    assert shown["given"].startswith("<|im_start|>the user\nQuestion 0.0?<|im_end|>\n<|im_start|>the assistant\n")
    (source,) = call_json(capsys, "data", "check", *here)["sources"]
    assert source["template"] == "pair_chat_v2"
    tokens = shown["tokens"]
    assert source["lengths"]["train"]["quantiles"] == {f"{share}%": tokens for share in (0, 10, 50, 90, 99, 100)}
    assert source["lengths"]["train"]["trained_share"] == round(shown["trained_tokens"] / tokens, 4)


def test_a_refused_row_of_a_stream_is_left_out_on_request() -> None:
    tokenizer = style_tokenizer(STYLES["gemma"])
    pairs = [
        Pair(f"u{number}", "g", "custom", "Why?", "So.", history=(("system", "Brief."),) * (number % 2))
        for number in range(4)
    ]
    stream = DocumentStream(pairs, "pair_chat_v2", tokenizer, 128, None, skip_bad=True)
    assert [document.uid for document in stream] == ["u0", "u2"]
    with pytest.raises(DataError, match="refuses the record u1"):
        list(DocumentStream(pairs, "pair_chat_v2", tokenizer, 128, None))


def test_adapters_with_different_templates_are_not_combined(base: Path, tmp_path: Path) -> None:
    for name, template in (("one", OWN), ("two", OWN), ("three", CHATML), ("plain", None)):
        loaded = load_base(str(base), quantization="none", dtype="float32")
        publish_on(loaded.with_chat_template(template), name, tmp_path)
    compose("both", [("one", 0.5), ("two", 0.5)], store=tmp_path, base=str(base))
    assert open_files(tmp_path / "both").chat_template == OWN
    for other in ("three", "plain"):
        with pytest.raises(SettingsError, match="different chat templates"):
            compose("not", [("one", 0.5), (other, 0.5)], store=tmp_path, base=str(base))
    adapter = open_published("one", tmp_path, str(base))
    assert command(adapter, "adapter", ".").endswith("--chat-template ./one/chat_template.jinja")
    assert "chat-template" not in command(open_published("plain", tmp_path, str(base)), "adapter", ".")

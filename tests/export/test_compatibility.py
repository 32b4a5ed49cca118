"""What each engine refuses, from a shape, a card or a YAML, and `adapters check` as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.cli.main import run
from lora_med.errors import SettingsError
from lora_med.export.compatibility import Shape, check, shape_of_card
from lora_med.export.vllm import max_lora_rank
from tests.evaluation.published import publish_random
from tests.merge.test_variants import make_variant
from tests.tiny import make_tiny

PLAIN = Shape(16, {}, {}, False, False, "none", None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compatibility")
    publish_random(make_tiny("llama", folder / "base"), "plain", folder / "store")
    publish_random(folder / "base", "dora", folder / "store", use_dora=True)
    make_tiny("gpt2", folder / "gpt2")
    return folder


def refusals(shape: Shape, target: str, part: str) -> list[str]:
    return [one.what for one in check(shape, target, part) if one.level == "refusal"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"r": 513}, "rank 513"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 8.0}}, "alpha_pattern"),
        ({"more": ("whole layers (modules_to_save)",)}, "modules_to_save"),
    ],
)
def test_vllm_refuses_the_adapter_and_takes_the_merged_model(change: dict[str, object], word: str) -> None:
    shape = replace(PLAIN, **change)  # type: ignore[arg-type]
    assert [word in one for one in refusals(shape, "vllm", "adapter")] == [True]
    assert refusals(shape, "vllm", "merged") == []
    assert refusals(PLAIN, "vllm", "adapter") == []


def test_vllm_serves_no_adapters_of_gpt2(home: Path) -> None:
    assert refusals(replace(PLAIN, base=home / "gpt2"), "vllm", "adapter") == ["vLLM's gpt2 does not support adapters"]


def test_llama_cpp_takes_patterns_but_neither_dora_nor_a_vocabulary_without_merges(home: Path) -> None:
    assert refusals(replace(PLAIN, rank_pattern={"q_proj": 4}, use_rslora=True), "gguf", "adapter") == []
    assert len(refusals(replace(PLAIN, use_dora=True), "gguf", "adapter")) == 1
    assert refusals(replace(PLAIN, use_dora=True), "gguf", "merged") == []
    assert "merges" in refusals(replace(PLAIN, base=home / "base"), "gguf", "merged")[0]


def test_an_absent_base_is_a_warning() -> None:
    assert [(one.level, "not here" in one.what) for one in check(PLAIN, "gguf", "merged")] == [("warning", True)]


def test_an_unknown_target_is_answered_with_the_near_one() -> None:
    with pytest.raises(SettingsError, match="did you mean 'vllm'"):
        check(PLAIN, "vlm", "adapter")


@pytest.mark.parametrize(("ranks", "wanted"), [([4], 8), ([8], 8), ([9, 4], 16), ([257], 320), ([512], 512)])
def test_the_least_rank_that_vllm_allows(ranks: list[int], wanted: int) -> None:
    assert max_lora_rank(ranks) == wanted


def test_check_of_a_published_adapter(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--store", str(home / "store"), "--base", str(home / "base"), "--target", "vllm", "--json"]
    assert run(["adapters", "check", "plain", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["taken"] == ["adapter", "merged"]
    assert run(["adapters", "check", "dora", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["taken"] == ["merged"]
    assert run(["adapters", "check", "dora", "--part", "adapter", *arguments]) == 2


def test_check_before_training(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"model:\n  base: {home / 'gpt2'}\n  load_in_4bit: false\nlora:\n  use_dora: true\n  r: 600\n")
    assert run(["adapters", "check", "--config", str(config), "--target", "vllm", "--part", "adapter", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)["parts"]["adapter"]
    assert [one["level"] for one in found] == ["refusal"] * 3
    assert run(["adapters", "check", "plain", "--config", str(config), "--target", "vllm"]) == 2
    assert "either NAME or --config" in capsys.readouterr().err


def test_what_an_adopted_adapter_has_besides_is_refused_by_name(tmp_path: Path) -> None:
    base, adapter, _ = make_variant("saved norms", tmp_path)
    card = adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", origin=Origin(access="open")).card
    for target in ("vllm", "gguf"):
        assert any("modules_to_save" in one for one in refusals(shape_of_card(card, None), target, "adapter"))
        assert refusals(shape_of_card(card, None), target, "merged") == []
    base, adapter, _ = make_variant("head, tied", tmp_path / "head")
    card = adopt(adapter, base=str(base), name="head", store=tmp_path / "store", origin=Origin(access="open")).card
    assert any("lm_head" in one for one in refusals(shape_of_card(card, None), "gguf", "adapter"))

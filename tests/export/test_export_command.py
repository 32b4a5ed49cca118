"""`lora-med export vllm|onnx|gguf` as a user types them, and the merged folder in transformers itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from lora_med.cli.main import run
from lora_med.files import read_json
from lora_med.merge.merge import merge_adapter
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    publish_random(make_tiny("llama", folder / "base"), "plain", folder / "store")
    publish_random(folder / "base", "dora", folder / "store", use_dora=True)
    return folder


def arguments(home: Path, target: str, name: str, out: Path) -> list[str]:
    return ["export", target, name, "--out", str(out), "--base", str(home / "base"), "--store", str(home / "store")]


def serve(folder: Path, *given: str) -> list[str]:
    """What serve.sh would run, with a `vllm` that only tells its arguments."""
    (folder.parent / "bin").mkdir(exist_ok=True)
    fake = folder.parent / "bin/vllm"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    path = f"{fake.parent}:/usr/bin:/bin"
    done = subprocess.run(
        [str(folder / "serve.sh"), *given], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_vllm_s_adapter_is_what_peft_loads_and_the_command_names_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments(home, "vllm", "plain", tmp_path / "o ut"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["proof"]["largest_logit_difference"] <= 1e-4
    folder = tmp_path / "o ut"
    assert serve(folder, "base") == [
        *("serve", "base", "--enable-lora", "--lora-modules", f"plain={folder}/plain", "--max-lora-rank", "8")
    ]
    assert str(tmp_path) not in (folder / "export.json").read_text()
    assert sorted(path.name for path in (folder / "plain").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_vllm_refuses_dora_as_an_adapter_and_takes_it_merged(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(home, "vllm", "dora", tmp_path / "out")) == 2
    assert "--part merged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*arguments(home, "vllm", "dora", tmp_path / "out"), "--part", "merged"]) == 0
    assert serve(tmp_path / "out") == ["serve", f"{tmp_path}/out/dora", "--served-model-name", "dora"]
    assert read_json(tmp_path / "out/export.json")["proof"]["mean_kl"] < 1e-6


def test_a_vocabulary_without_merges_is_refused_before_the_merge(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    (tmp_path / "llama.cpp").mkdir()
    (tmp_path / "llama.cpp/convert_hf_to_gguf.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "llama.cpp"))
    assert run(arguments(home, "gguf", "plain", tmp_path / "out")) == 2
    assert "without merges" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama.cpp"]


def test_a_folder_that_is_not_empty_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").touch()
    assert run(arguments(home, "vllm", "plain", tmp_path)) == 73
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert "not empty" in capsys.readouterr().err


def test_too_little_disk_space_is_reported_before_the_export(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_med.export.export_folder.SPARE_BYTES", 1 << 60)
    assert run(arguments(home, "vllm", "plain", tmp_path / "out")) == 74
    assert "GB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_merged_folder_loads_in_transformers_with_its_template(home: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(home / "base").chat_template
    ids = torch.tensor([tokenizer("Chest pain for two days.")["input_ids"]])
    base = AutoModelForCausalLM.from_pretrained(home / "base", dtype=torch.float32)
    with torch.inference_mode():
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)(input_ids=ids).logits
        wanted = PeftModel.from_pretrained(base, str(home / "store/plain")).eval()(input_ids=ids).logits
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
def test_onnx_runtime_gives_our_logits(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    assert run([*arguments(home, "onnx", "plain", tmp_path / "out"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert 0 < facts["proof"]["largest_logit_difference"] < 1e-3
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = torch.tensor([tokenizer("Chest pain for two days, and no fever.")["input_ids"]])
    session = onnxruntime.InferenceSession(str(tmp_path / "out/model.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()})[0]
    from lora_med.adapters.runtime.attach import attach
    from lora_med.models.base import load_base

    base = load_base(str(home / "base"), quantization="none", dtype="float32")
    with torch.inference_mode():
        wanted = attach(base, "plain", home / "store")(input_ids=ids).logits
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-3)

"""A GGUF file as the base: its values, tokenizer, origin; and every file that cannot be one refused by name."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file

from lora_med.adapters.store.card import parse_card, read_card
from lora_med.errors import DependencyMissingError, InputMissingError, IntegrityError, LoraMedError, SettingsError
from lora_med.files import sha256_file
from lora_med.models.base import load_base
from lora_med.models.files import gguf_base, made_once
from lora_med.models.files.gguf_base import gguf_folder, read_origin
from lora_med.models.files.gguf_header import TYPES, read_gguf_header
from lora_med.models.files.gguf_settings import check_kind
from lora_med.models.files.gguf_tokenizer import build_tokenizer
from lora_med.models.files.resolve import display_name, resolve_base
from lora_med.models.generation import stop_ids
from tests.evaluation.published import publish_random
from tests.models.gguf_files import F16, F32, Q8_0, llama_values, llama_words, tiny_gguf, write_gguf

has_gguf = pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason='pip install "lora-med[gguf]"')


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@has_gguf
@pytest.mark.parametrize(("kind", "stored_as"), [(F32, "float32"), (F16, "float16"), (Q8_0, "float32")])
def test_the_base_has_exactly_the_dequantized_values(kind: int, stored_as: str, tmp_path: Path) -> None:
    file, meant = tiny_gguf(tmp_path / "tiny.gguf", kind=kind)
    folder = gguf_folder(file)
    weights = load_file(folder / "model.safetensors")
    assert weights.keys() == meant.keys()
    for name, values in meant.items():
        assert numpy.array_equal(weights[name].float().numpy(), values), name
    origin = read_origin(folder)
    assert origin["sha256"] == sha256_file(file)
    assert origin["quantization"] == {"F32": 5, **({TYPES[kind][0]: 16} if kind else {"F32": 21})}
    assert (origin["license"], origin["name"], origin["stored_as"]) == ("apache-2.0", "Tiny Clinic", stored_as)


@has_gguf
def test_a_blob_and_a_folder_give_the_same_base_made_once(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file, _ = tiny_gguf(tmp_path / "model" / "tiny.gguf")
    blob = Path(shutil.copy(file, tmp_path / f"sha256-{'0' * 64}"))
    folder, commit = resolve_base(str(file.parent))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_base(str(blob)) == (folder, commit) == resolve_base(str(file))
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert display_name(str(file)) == "tiny.gguf"


@has_gguf
def test_the_base_loads_trains_and_its_card_has_the_origin(tmp_path: Path) -> None:
    file, _ = tiny_gguf(tmp_path / "tiny.gguf", kind=Q8_0)
    base = load_base(str(file), quantization="none", dtype="float32")
    assert stop_ids(base.model, base.tokenizer) == [2, 4]
    assert base.tokenizer("a 12")["input_ids"][0] == 1
    publish_random(file, "clinic", tmp_path / "store")
    card = read_card(tmp_path / "store" / "clinic")
    assert card.base.name == "tiny.gguf"
    assert card.base.origin["sha256"] == sha256_file(file)
    assert card.base.origin["quantization"]["Q8_0"] == 16
    readme = (tmp_path / "store" / "clinic" / "README.md").read_text()
    assert f"the GGUF file tiny.gguf, SHA-256 `{sha256_file(file)}`, F32 (5 tensors), Q8_0 (16 tensors)" in readme
    again = parse_card(json.dumps(card.as_json()).encode(), tmp_path)
    assert again == card


@has_gguf
def test_two_threads_that_want_the_same_base_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_once, "WAIT_SECONDS", 0.1)
    file, _ = tiny_gguf(tmp_path / "tiny.gguf")
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(gguf_folder(file))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 2 and folders[0] == folders[1]


@has_gguf
def test_the_table_of_types_is_that_of_the_package_gguf() -> None:
    gguf: Any = importlib.import_module("gguf")
    for number, (name, values, size) in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, values, size)


@has_gguf
@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"rope_type": "default", "rope_theta": 10000.0}),
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        ),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 64,
            },
            {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64},
        ),
    ],
)
def test_the_scaling_of_positions_is_kept(changed: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    """transformers' own loader drops it."""
    file, _ = tiny_gguf(tmp_path / "tiny.gguf", **changed)
    settings = json.loads((gguf_folder(file) / "config.json").read_text())
    assert settings["rope_parameters"] == expected
    assert settings["rms_norm_eps"] == 1e-06


def test_digits_are_cut_one_by_one_where_the_pre_tokenizer_says_so(tmp_path: Path) -> None:
    """The vocabulary has the word 12, which smollm's rule never joins and gpt-2's does."""
    words = llama_words()
    cut = {}
    for name in ("smollm", "gpt-2"):
        values = llama_values(words, **{"tokenizer.ggml.pre": name})
        file = write_gguf(tmp_path / f"{name}.gguf", values)
        cut[name] = build_tokenizer(read_gguf_header(file))("12", add_special_tokens=False)["input_ids"]
    assert cut == {"smollm": [words.index("1"), words.index("2")], "gpt-2": [words.index("12")]}


def test_further_chat_templates_of_a_file_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    templates: dict[str, Any] = {f"tokenizer.chat_template{name}": "{{ 1 }}" for name in ("", ".rag", ".tool_use")}
    file = write_gguf(tmp_path / "many.gguf", llama_values(llama_words(), **templates))
    with caplog.at_level("WARNING"):
        tokenizer = build_tokenizer(read_gguf_header(file))
    assert tokenizer.chat_template == "{{ 1 }}"
    assert "many.gguf has further chat templates (rag, tool_use), which are not used" in caplog.text


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "vision": ({"general.architecture": "clip"}, "vision part"),
    "projector": ({"general.type": "mmproj"}, "vision part"),
    "adapter": ({"general.type": "adapter"}, "LoRA adapter"),
    "parts": ({"split.count": 3}, "one of 3 parts"),
    "experts": ({"llama.expert_count": 8}, "mixture of 8 experts"),
    "architecture": ({"general.architecture": "rwkv7"}, "'rwkv7'"),
    "no architecture": ({"general.architecture": None}, "architecture ''"),
    "unknown setting": ({"llama.attention.shrink": 2}, "llama.attention.shrink"),
    "lists of sizes": ({"llama.feed_forward_length": [128, 64]}, "a list of 2"),
    "layers": ({"llama.block_count": 1_000_000_000}, "1000000000 layers"),
    "partial rotation": ({"llama.rope.dimension_count": 8}, "8 rotated dimensions"),
    "strange tokenizer": ({"tokenizer.ggml.model": "rwkv"}, "kind 'rwkv'"),
    "strange pre-tokenizer": ({"tokenizer.ggml.pre": "default"}, "'default'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_no_base_is_refused_by_name(case: str, tmp_path: Path) -> None:
    changed, part = REFUSED[case]
    file, _ = tiny_gguf(tmp_path / "tiny.gguf", **changed)
    with pytest.raises(SettingsError, match=part) as raised:
        resolve_base(str(file))
    assert str(file) in str(raised.value.where)
    assert raised.value.fix


def test_a_setting_that_transformers_drops_is_refused_and_not_lost(tmp_path: Path) -> None:
    file, _ = tiny_gguf(tmp_path / "tiny.gguf", **{"llama.logit_scale": 0.5})
    with pytest.raises(SettingsError, match=r"would be lost: llama\.logit_scale"):
        check_kind(read_gguf_header(file))


@has_gguf
def test_a_tensor_that_transformers_does_not_load_is_refused(tmp_path: Path) -> None:
    from tests.models.gguf_files import llama_tensors
    from tests.tiny import make_model

    tensors, _ = llama_tensors(make_model("llama"))
    extra = ("blk.0.attn_gate.weight", (64, 64), F32, bytes(64 * 64 * 4))
    file = write_gguf(tmp_path / "tiny.gguf", llama_values(llama_words()), [*tensors, extra])
    with pytest.raises(SettingsError, match="weights, transformers loads"):
        resolve_base(str(file))


@has_gguf
def test_a_weight_that_is_not_finite_is_refused_with_its_tensor(tmp_path: Path) -> None:
    file, _ = tiny_gguf(tmp_path / "tiny.gguf")
    content = bytearray(file.read_bytes())
    content[-64:-60] = numpy.float32("nan").tobytes()
    file.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="not finite"):
        resolve_base(str(file))


@pytest.mark.parametrize("kept", [0, 3, 10, 24, 200, 5000, -1])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    file, _ = tiny_gguf(tmp_path / "tiny.gguf")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(IntegrityError, match=r"truncated|empty|not a GGUF"):
        resolve_base(str(file))


@pytest.mark.parametrize(
    ("content", "error", "part"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", IntegrityError, "Git LFS pointer"),
        (b"<html>not found</html> and more text", IntegrityError, "begins with b'<htm'"),
        (b"GGUF" + b"\x01\0\0\0" + bytes(40), IntegrityError, "version 1"),
        (b"GGUF" + b"\x03\0\0\0" + b"\xff" * 16, IntegrityError, "announces"),
    ],
)
def test_what_is_no_gguf_is_refused(content: bytes, error: type[LoraMedError], part: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(error, match=part):
        resolve_base(str(tmp_path / "x.gguf"))


def test_a_file_of_another_kind_and_several_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a note")
    with pytest.raises(SettingsError, match="is no GGUF"):
        resolve_base(str(tmp_path / "notes.txt"))
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(SettingsError, match=r"several GGUF files: a\.gguf, b\.gguf"):
        resolve_base(str(tmp_path))
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in (1, 2):
        (parts / f"m-0000{number}-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(SettingsError, match="one model in parts"):
        resolve_base(str(parts))


def test_a_base_that_was_not_fetched_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError) as raised:
        resolve_base("smollm2")
    assert "lora-med base get smollm2" in str(raised.value.fix)
    assert display_name("smollm2") == "smollm2"


def test_without_the_package_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(gguf_base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyMissingError, match="package gguf") as raised:
        resolve_base(str(file))
    assert raised.value.fix == 'pip install "lora-med[gguf]"'


def test_the_command_lists_the_bases_and_refuses_another_archive(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lora_med", "base", *words], env=environment, capture_output=True, text=True
        )

    (row,) = json.loads(run("list", "--json").stdout)["bases"]
    assert (row["name"], row["here"], row["license"]) == ("smollm2", False, "Apache-2.0")
    (tmp_path / "x.whl").write_bytes(b"PK")
    wrong = run("get", "smollm2", "--archive", str(tmp_path / "x.whl"))
    assert wrong.returncode == 76 and "expected bcc81830" in wrong.stderr
    unknown = run("get", "smolm2")
    assert unknown.returncode == 2 and "smollm2" in unknown.stderr


@has_gguf
@pytest.mark.skipif(not os.environ.get("LORA_MED_SMOLLM2"), reason="set LORA_MED_SMOLLM2 to SmolLM2's GGUF file")
def test_smollm2_has_its_135_million_weights_and_ids_of_llama_cpp() -> None:
    """The ids of the text are llama.cpp's, asked through xllamacpp 2026.10."""
    folder = gguf_folder(Path(os.environ["LORA_MED_SMOLLM2"]))
    base = load_base(str(folder), quantization="none", dtype="bfloat16")
    assert sum(weight.numel() for weight in base.model.parameters()) == 134_515_008
    assert base.tokenizer("HbA1c 7.25 %")["input_ids"] == SMOLLM2_IDS
    assert base.model.dtype == torch.bfloat16


SMOLLM2_IDS = [56, 82, 49, 33, 83, 216, 39, 30, 34, 37, 2471]

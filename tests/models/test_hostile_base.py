"""Hostile and damaged files of a base: refused in seconds and little memory, never a crash, a hang or a bug."""

from __future__ import annotations

import json
import random
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.foreign.import_peft import adopt
from lora_med.errors import IntegrityError, LoraMedError
from lora_med.models.base import load_base
from lora_med.models.files.weight_files import read_headers
from lora_med.models.generation import greedy
from tests.adapters.test_adopt_tools import trained
from tests.data.damage import DAMAGES, damaged
from tests.data.test_fuzz import PIECES, limited
from tests.models.test_template_limits import peak_mb
from tests.tiny import make_tiny

GPT2_SIZES = {"n_layer": 10**9, "n_embd": 10**12, "n_positions": 10**13, "n_head": 10**10}
CONFIGS: list[tuple[str, str, Any]] = [
    *(("llama", "num_hidden_layers", value) for value in (10**9, 10**18, 300)),
    *(("llama", "hidden_size", value) for value in (10**12, 10**6, 0, -64, 15000)),
    *(("llama", "vocab_size", value) for value in (10**15, 10**8, 0, "many")),
    *(("llama", "intermediate_size", value) for value in (10**12, 1e30)),
    ("llama", "num_attention_heads", 0),
    ("llama", "num_attention_heads", 10**9),
    ("llama", "head_dim", 10**8),
    ("llama", "layer_types", ["full_attention"] * 3_000_000),
    *(("gpt2", key, value) for key, value in GPT2_SIZES.items()),
]
GENERATION = [("max_length", 10**18), ("num_beams", 10**6), ("num_return_sequences", 10**9), ("eos_token_id", "x")]
GENERATION += [("min_length", 10**18), ("repetition_penalty", "x"), ("temperature", [1]), ("bad_words_ids", "x")]
GENERATION += [
    ("eos_token_id", [-1]),
    ("do_sample", "yes"),
    ("suppress_tokens", {"a": 1}),
    ("no_repeat_ngram_size", 1.5),
]


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **values}))


@pytest.mark.parametrize(("family", "key", "value"), CONFIGS, ids=lambda value: str(value)[:30])
def test_a_config_far_larger_than_its_weights_is_refused(family: str, key: str, value: Any, tmp_path: Path) -> None:
    make_tiny(family, tmp_path / "base")
    change(tmp_path / "base/config.json", **{key: value})
    before, start = peak_mb(), time.monotonic()
    with pytest.raises(LoraMedError) as caught:
        load_base(str(tmp_path / "base"), quantization="none", dtype="float32")
    assert caught.value.exit_code in (2, 76)
    assert str(tmp_path / "base") in str(caught.value.where)
    assert time.monotonic() - start < 20
    assert peak_mb() - before < 500


@pytest.mark.parametrize(("key", "value"), GENERATION)
def test_hostile_generation_settings_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "base")
    change(tmp_path / "base/generation_config.json", **{key: value})
    with pytest.raises(IntegrityError, match=key):
        load_base(str(tmp_path / "base"), quantization="none", dtype="float32")


def test_too_many_tensors_in_a_header_are_refused_before_they_are_parsed(tmp_path: Path) -> None:
    entry = '"model.layers.%d.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(entry % number for number in range(600_000)) + "}").encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    before, start = peak_mb(), time.monotonic()
    with pytest.raises(IntegrityError, match="600,000 tensors, more than the limit"):
        read_headers(tmp_path)
    assert time.monotonic() - start < 10 and peak_mb() - before < 300


def test_too_many_tensors_in_an_index_are_refused(tmp_path: Path) -> None:
    weight_map = {f"model.layers.{number}.weight": "model-1.safetensors" for number in range(600_000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(IntegrityError, match="600,000 tensors"):
        read_headers(tmp_path)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "llama"
    make_tiny("llama", folder, shard="60KB")
    return folder


INDEX = "model.safetensors.index.json"
FILES = (
    INDEX,
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "adapter_config.json",
)


def changed_value(value: Any, draw: random.Random) -> Any:
    """A JSON value with one of its entries replaced by another kind or an absurd number."""
    absurd: list[Any] = [None, True, -1, 0, 10**9, 10**18, 1e308, "x", "", [], {}, [[]], {"a": 1}, "\ud800", 0.5]
    if isinstance(value, dict) and value:
        key = draw.choice(sorted(value))
        return {**value, key: changed_value(value[key], draw)}
    return draw.choice(absurd)


def mutated(content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.7:
        return json.dumps(changed_value(json.loads(content), draw)).encode()
    return damaged(content, draw, PIECES, most=4, kinds=[draw.choice(DAMAGES)])


@pytest.mark.parametrize("file", FILES)
def test_damage_of_a_file_gives_a_sound_base_or_a_named_error(file: str, llama: Path, tmp_path: Path) -> None:
    trained(llama, tmp_path / "theirs")
    draw = random.Random(f"fuzz {file}")
    errors = 0
    for number in range(40):
        base, adapter = tmp_path / f"base-{number}", tmp_path / f"theirs-{number}"
        shutil.copytree(llama, base)
        shutil.copytree(tmp_path / "theirs", adapter)
        path = (adapter if file == "adapter_config.json" else base) / file
        path.write_bytes(mutated(path.read_bytes(), draw))
        try:
            with limited(60):
                if file == "adapter_config.json":
                    adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", overwrite=True)
                else:
                    loaded = load_base(str(base), quantization="none", dtype="float32")
                    greedy(loaded.model, loaded.tokenizer, [[5, 6, 7]], max_new_tokens=2)
        except LoraMedError as error:
            assert error.exit_code != 70
            errors += 1
    assert errors

"""The fingerprint: the same for the same model however it lies on disk, another after any change."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lora_med.errors import IntegrityError
from lora_med.files import read_json, write_json
from lora_med.models.fingerprint import fingerprint, folder_with
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("llama"))


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "copy"))


def test_sharding_and_metadata_do_not_matter(llama: Path, tmp_path: Path) -> None:
    sharded = make_tiny("llama", tmp_path / "sharded", shard="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert fingerprint(sharded) == fingerprint(llama)
    other = copy(llama, tmp_path)
    save_file(load_file(other / "model.safetensors"), other / "model.safetensors", {"format": "pt", "by": "me"})
    assert fingerprint(other) == fingerprint(llama)


def test_another_seed_is_another_base_of_equal_shape(llama: Path, tmp_path: Path) -> None:
    other = fingerprint(make_tiny("llama", tmp_path / "other", seed=1))
    assert fingerprint(llama).differing(other) == ["weights"]


def test_one_flipped_bit_changes_the_weights(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    before = fingerprint(folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert fingerprint(folder).differing(before) == ["weights"]


def test_the_digest_is_the_documented_one(tmp_path: Path) -> None:
    import torch

    folder = make_tiny("llama", tmp_path / "base")
    save_file({"b": torch.tensor([1.0]), "a": torch.tensor([[2, 3]])}, folder / "model.safetensors")
    a, b = (2).to_bytes(8, "little") + (3).to_bytes(8, "little"), bytes.fromhex("0000803f")
    lines = f'"a" I64 [1, 2] {hashlib.sha256(a).hexdigest()}\n"b" F32 [1] {hashlib.sha256(b).hexdigest()}\n'
    assert fingerprint(folder).weights == hashlib.sha256(lines.encode()).hexdigest()


def test_a_changed_token_changes_the_tokenizer_only(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzz"] = 261
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert fingerprint(folder).differing(fingerprint(llama)) == ["tokenizer"]


def test_layout_and_runtime_state_of_the_tokenizer_do_not_matter(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(content, indent=1))
    assert fingerprint(folder) == fingerprint(llama)


def test_another_end_of_text_is_another_tokenizer(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    content = json.loads((folder / "tokenizer_config.json").read_text())
    content["eos_token"] = "<|im_end|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    assert fingerprint(folder).differing(fingerprint(llama)) == ["tokenizer"]


def test_the_template_counts_in_whichever_file_it_is(llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    content = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**content, "chat_template": template}))
    assert fingerprint(folder) == fingerprint(llama)
    (folder / "tokenizer_config.json").write_text(json.dumps({**content, "chat_template": template + " "}))
    assert fingerprint(folder).differing(fingerprint(llama)) == ["template"]


def test_the_digest_is_cached_and_fresh_reads_again(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    true = fingerprint(llama)
    remembered = {part: read_json(path) for path in (tmp_path / "cache").rglob("*.json") for part in read_json(path)}
    assert remembered["weights"]["weights"] == true.weights
    assert remembered["tokenizer"] == {"tokenizer": true.tokenizer}
    for path in (tmp_path / "cache").rglob("*.json"):
        write_json(path, dict.fromkeys(read_json(path), "from memory"))
    assert fingerprint(llama) == replace(true, weights="from memory", tokenizer="from memory")
    assert fingerprint(llama, fresh=True) == true


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_role_that_changes_after_the_tokenizer_was_cached_is_seen(
    name: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = copy(llama, tmp_path)
    before = fingerprint(folder)
    content = read_json(folder / name) if (folder / name).is_file() else {}
    write_json(folder / name, {**content, "unk_token": "another"})
    assert fingerprint(folder).differing(before) == ["tokenizer"]


def test_a_cache_that_cannot_be_written_does_not_matter(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    true = fingerprint(llama)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fingerprint(llama) == true


def test_a_base_that_was_once_seen_is_found_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_tiny("llama", tmp_path / "seen", seed=5)
    marks = fingerprint(folder)
    assert folder_with(marks) == folder
    assert folder_with(replace(marks, weights="0" * 64)) is None
    (folder / "chat_template.jinja").write_text("another")
    assert folder_with(marks) is None


@pytest.mark.parametrize(("name", "content"), [("tokenizer.json", b"[1]"), ("chat_template.jinja", b"\xff")])
def test_a_base_whose_files_are_none_is_refused(name: str, content: bytes, llama: Path, tmp_path: Path) -> None:
    folder = copy(llama, tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(IntegrityError, match="is no"):
        fingerprint(folder)

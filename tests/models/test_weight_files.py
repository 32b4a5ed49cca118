"""Safetensors headers: every promise of a hostile or torn file is checked."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.models.files.weight_files import read_header, read_headers, read_rows, weight_files


def write(path: Path, header: object, data: bytes = b"\0" * 8) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_header_gives_the_position_of_each_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.tensor([1.5, 2.5]), "b": torch.zeros(0, 3)}, path)
    found = read_header(path)
    assert found["a"].shape == (2,)
    assert struct.unpack("<2f", path.read_bytes()[found["a"].start : found["a"].start + found["a"].size]) == (1.5, 2.5)
    assert found["b"].size == 0


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(shape=[3])},
        {"a": entry(shape=[-2])},
        {"a": entry(dtype="F99")},
        {"a": entry(offsets=(0, 800), shape=[200])},
        {"a": entry(offsets=(-8, 0))},
        {"a": entry(), "b": entry()},
        {"a": entry(shape=[1], offsets=(0, 4))},
        {"a": {"dtype": "F32"}},
        {"a": 3},
        [1],
        {"a": {**entry(), "data_offsets": [0.0, 8.0]}},
    ],
    ids=["size", "negative", "dtype", "beyond", "before", "overlap", "hole", "bare", "number", "list", "fraction"],
)
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, header: object) -> None:
    with pytest.raises(IntegrityError):
        read_header(write(tmp_path / "model.safetensors", header))


@pytest.mark.parametrize("keep", [0, 4, 20, -4])
def test_a_torn_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "model.safetensors", {"a": entry()})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityError):
        read_header(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.safetensors"):
        write(tmp_path / name, {"a": entry()})
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match=r"one\.safetensors too"):
        read_headers(tmp_path)


def test_an_index_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(IntegrityError, match="outside"):
        weight_files(tmp_path)


def test_an_absent_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "m-1.safetensors"}}))
    with pytest.raises(InputMissingError, match=r"1 of 1 weight files are absent, such as m-1\.safetensors"):
        weight_files(tmp_path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"], ids=["deep", "long"])
def test_a_header_that_no_parser_can_hold_is_none(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(IntegrityError, match="not a safetensors file"):
        read_header(path)


def test_an_index_of_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 1}}))
    with pytest.raises(IntegrityError, match="outside"):
        weight_files(tmp_path)


def test_a_single_number_and_no_number_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"one": torch.tensor(2.5), "none": torch.ones(0, 3), "thin": torch.ones(3, 0)}, path)
    with open(path, "rb") as handle:
        found = {name: read_rows(handle, stored) for name, stored in read_header(path).items()}
    assert found["one"].shape == () and found["one"] == 2.5
    assert (found["none"].shape, found["thin"].shape) == ((0, 3), (3, 0))

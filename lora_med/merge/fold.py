"""W + scale * B A, folded into safetensors files as they stream by: fp32 sums, one rounding, a few megabytes of memory.

Tensors without an update are copied byte for byte. The arithmetic and its order are PEFT's (`merge_and_unload`), so a
plain LoRA comes out bit for bit the same; but nothing is rounded twice and the base is never held in memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from lora_med.errors import IntegrityError
from lora_med.files import write_json
from lora_med.merge.plan import FLOATS, Change, Plan
from lora_med.models.tensors import INDEX, SINGLE, Stored

BLOCK_BYTES = 1 << 24
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class _Update:
    """A change with its small matrices in memory, fp32: `up` (out, r), `down` (r, in), `magnitude` (out) or None."""

    change: Change
    up: torch.Tensor
    down: torch.Tensor
    magnitude: torch.Tensor | None

    def rows(self, begin: int, end: int) -> torch.Tensor:
        """Rows of the scaled update in the base's own orientation."""
        if self.change.transposed:
            return (self.up @ self.down[:, begin:end]).T * self.change.scale
        return (self.up[begin:end] @ self.down) * self.change.scale


def _read(handle: BinaryIO, stored: Stored, begin: int = 0, end: int | None = None) -> torch.Tensor:
    """Rows `begin` to `end` of a stored tensor."""
    row = stored.size // stored.shape[0]
    count = (stored.shape[0] if end is None else end) - begin
    handle.seek(stored.start + begin * row)
    data = bytearray(handle.read(count * row))
    return torch.frombuffer(data, dtype=DTYPES[stored.dtype]).reshape(count, *stored.shape[1:])


def _load(change: Change) -> _Update:
    with open(change.up.file, "rb") as handle:
        up, down = _read(handle, change.up).float(), _read(handle, change.down).float()
        magnitude = None if change.magnitude is None else _read(handle, change.magnitude).float().reshape(-1)
    return _Update(change, up, down, magnitude)


def _blocks(stored: Stored) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK_BYTES // (4 * max(1, math.prod(stored.shape[1:]))))
    for begin in range(0, stored.shape[0], step):
        yield begin, min(stored.shape[0], begin + step)


def _norms(handle: BinaryIO, update: _Update) -> torch.Tensor:
    """Length of each output's weight vector after the update: what DoRA divides by."""
    stored, transposed = update.change.base, update.change.transposed
    squares = torch.zeros(update.up.shape[0])
    for begin, end in _blocks(stored):
        rows = _read(handle, stored, begin, end).float() + update.rows(begin, end)
        if transposed:
            squares += rows.square().sum(0)
        else:
            squares[begin:end] = rows.square().sum(1)
    return squares.sqrt()


def _folded(handle: BinaryIO, update: _Update, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    stored, transposed = update.change.base, update.change.transposed
    factor = None if update.magnitude is None else update.magnitude / _norms(handle, update)
    for begin, end in _blocks(stored):
        rows = _read(handle, stored, begin, end).float()
        rows += update.rows(begin, end)
        if factor is not None:
            rows *= factor if transposed else factor[begin:end, None]
        merged = rows.to(dtype)
        if not torch.isfinite(merged).all():
            raise IntegrityError(
                f"the merged tensor {stored.name!r} is not finite in {dtype}",
                where=str(stored.file),
                fix="lora-med adapters verify NAME; or merge with --dtype float32",
            )
        yield merged


def _copied(handle: BinaryIO, stored: Stored, dtype: torch.dtype | None) -> Iterator[bytes | torch.Tensor]:
    if dtype is not None and stored.dtype in FLOATS and DTYPES[stored.dtype] != dtype and stored.shape:
        for begin, end in _blocks(stored):
            yield _read(handle, stored, begin, end).to(dtype)
        return
    handle.seek(stored.start)
    for begin in range(0, stored.size, BLOCK_BYTES):
        yield handle.read(min(BLOCK_BYTES, stored.size - begin))


def _name_after(stored: Stored, dtype: str | None) -> str:
    return dtype if dtype is not None and stored.dtype in FLOATS and stored.shape else stored.dtype


def _size_after(stored: Stored, dtype: str | None) -> int:
    name = _name_after(stored, dtype)
    return stored.size if name == stored.dtype else math.prod(stored.shape) * DTYPES[name].itemsize


def _header(tensors: list[Stored], dtype: str | None) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for stored in tensors:
        name, size = _name_after(stored, dtype), _size_after(stored, dtype)
        entries[stored.name] = {"dtype": name, "shape": list(stored.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text


def _fold_file(tensors: list[Stored], changes: Mapping[str, Change], target: Path, dtype: str | None) -> None:
    with open(tensors[0].file, "rb") as source, open(target, "wb") as out:
        out.write(_header(tensors, dtype))
        for stored in tensors:
            change = changes.get(stored.name)
            wanted = DTYPES.get(_name_after(stored, dtype))
            if change is not None and wanted is not None:
                parts: Iterator[bytes | torch.Tensor] = _folded(source, _load(change), wanted)
            else:
                parts = _copied(source, stored, None if dtype is None else DTYPES[dtype])
            for part in parts:
                out.write(part if isinstance(part, bytes) else part.contiguous().view(torch.uint8).numpy().data)


def fold(plan: Plan, out: Path, *, dtype: str | None = None) -> list[Path]:
    """Write the merged weights into the folder `out`, in as many files as the base has, and return them.

    Args:
        dtype: `float32`, `bfloat16` or `float16` for every floating tensor; None keeps each tensor's own.

    Raises:
        IntegrityError: a merged value is not finite; for float16 that can be a weight over 65504.
    """
    name = None if dtype is None else NAMES[dtype]
    by_file: dict[Path, list[Stored]] = {}
    for stored in sorted(plan.tensors.values(), key=lambda item: item.start):
        by_file.setdefault(stored.file, []).append(stored)
    written: list[Path] = []
    index: dict[str, str] = {}
    with torch.inference_mode():
        for number, (_, tensors) in enumerate(sorted(by_file.items()), 1):
            shard = SINGLE if len(by_file) == 1 else f"model-{number:05d}-of-{len(by_file):05d}.safetensors"
            _fold_file(tensors, plan.changes, out / shard, name)
            written.append(out / shard)
            index |= dict.fromkeys((stored.name for stored in tensors), shard)
    if len(written) > 1:
        total = sum(_size_after(stored, name) for stored in plan.tensors.values())
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))})
    return written

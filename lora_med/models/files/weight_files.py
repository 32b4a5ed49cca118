"""Safetensors files read without loading them: names, dtypes, shapes and byte ranges, all checked.

Format: 8 bytes little-endian length, a JSON header {name: {dtype, shape, data_offsets}}, then the bytes. The format
has no checksum. This module checks offsets and sizes; a caller that has a hash checks the contents.
"""

from __future__ import annotations

import io
import json
import math
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from lora_med.errors import InputMissingError, IntegrityError
from lora_med.files import readable, unreadable

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MOST_HEADER_BYTES = 100_000_000
MOST_INDEX_BYTES = 60_000_000
MOST_TENSORS = 400_000  # of a model; the largest mixtures of experts that are published have about 200,000
FLOATS = ("F64", "F32", "BF16", "F16")
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"F8_E8M0": 8, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor on disk: the position of its bytes (`start` from the beginning of `file`) and their meaning.

    `content` is the whole file's bytes where they are in memory already; then the file is not opened again.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int
    content: bytes | None = field(default=None, repr=False, compare=False)


def open_stored(stored: Stored) -> BinaryIO:
    """The bytes of a tensor's file, to be read with `read_rows`."""
    return open(stored.file, "rb") if stored.content is None else io.BytesIO(stored.content)


def open_descriptor(stored: Stored) -> BinaryIO:
    """As `open_stored`, but a file of the operating system: bytes in memory go to a temporary file without a name."""
    if stored.content is None:
        return open(stored.file, "rb")
    handle = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    handle.write(stored.content)
    handle.flush()
    return handle


def read_header(path: Path, content: bytes | None = None) -> dict[str, Stored]:
    """Tensor name -> its position, for one safetensors file.

    Args:
        content: the file's bytes, where they are in memory already; the tensors are then read from them.

    Raises:
        InputMissingError: no such file.
        IntegrityError: the file is truncated, or its header does not match its size.
    """
    try:
        total = path.stat().st_size if content is None else len(content)
        with open(path, "rb") if content is None else io.BytesIO(content) as handle:
            prefix = handle.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else total
            if length > min(total - 8, MOST_HEADER_BYTES):
                raise IntegrityError(
                    "the file ends inside its header", where=str(path), fix="copy or download it again"
                )
            text = handle.read(length)
        if text.count(b'"data_offsets"') > MOST_TENSORS:
            raise _too_many(text.count(b'"data_offsets"'), path)
        header = json.loads(text)
    except FileNotFoundError as error:
        raise InputMissingError(f"no such file: {path.name}", where=str(path.parent)) from error
    except OSError as error:
        raise unreadable(error, path) from error
    except (ValueError, RecursionError) as error:  # not text, not JSON, a number too long or brackets too deep
        raise IntegrityError("not a safetensors file", where=str(path), fix="copy or download it again") from error
    if not isinstance(header, dict):
        raise IntegrityError("not a safetensors file", where=str(path), fix="copy or download it again")
    tensors = {
        name: _stored(path, name, entry, 8 + length, content)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    end = 8 + length
    for tensor in sorted(tensors.values(), key=lambda item: (item.start, item.size)):
        if tensor.start != end:
            raise IntegrityError(
                f"tensor {tensor.name!r} does not begin where the tensor before it ends", where=str(path)
            )
        end = tensor.start + tensor.size
    if end != total:
        raise IntegrityError(
            f"the file has {total} bytes, its header describes {end}", where=str(path), fix="copy or download it again"
        )
    return tensors


def _too_many(count: int, path: Path) -> IntegrityError:
    what = f"the weights are {count:,} tensors, more than the limit of {MOST_TENSORS:,}"
    return IntegrityError(what, where=str(path), fix="copy or download the model again")


def _stored(path: Path, name: str, entry: object, offset: int, content: bytes | None) -> Stored:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]  # type: ignore[index]
        size = math.prod(shape) * BITS[dtype] // 8
        non_negative = all(type(edge) is int and edge >= 0 for edge in (*shape, start, end))
        consistent = non_negative and end - start == size
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"tensor {name!r} has an unreadable entry in the header", where=str(path)) from error
    if not consistent:
        raise IntegrityError(f"tensor {name!r}: {dtype} {shape} does not fill its bytes", where=str(path))
    return Stored(path, name, dtype, shape, offset + start, size, content)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a model's weights, as transformers would read them.

    Raises:
        InputMissingError: there are none, only pickles (which can run code), or an indexed file is absent.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        if (folder / INDEX).stat().st_size > MOST_INDEX_BYTES:
            raise IntegrityError("the index of the weights is too large", where=str(folder / INDEX))
        try:
            with readable(folder / INDEX):
                text = (folder / INDEX).read_text(encoding="utf-8")
            weight_map = json.loads(text)["weight_map"]
            if len(weight_map) > MOST_TENSORS:
                raise _too_many(len(weight_map), folder / INDEX)
            names = sorted(set(weight_map.values()))
        except (KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
            raise IntegrityError("the index of the weights cannot be read", where=str(folder / INDEX)) from error
        if any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise IntegrityError("the index names a file outside its folder", where=str(folder / INDEX))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise InputMissingError(
                f"{len(absent)} of {len(names)} weight files are absent, such as {absent[0]}",
                where=str(folder),
                fix="copy or download the model again",
            )
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise InputMissingError(
            f"the weights are pickles only ({pickles[0]}), which can run code when opened; wanted: safetensors",
            where=str(folder),
            fix='if you trust their maker: python -c "from transformers import AutoModelForCausalLM as M; '
            "M.from_pretrained('FOLDER', use_safetensors=False).save_pretrained('FOLDER-safe')\"",
        )
    raise InputMissingError("no model.safetensors", where=str(folder), fix="name a folder that holds a model")


def read_headers(folder: Path) -> dict[str, Stored]:
    """Tensor name -> its position, over all weight files of a model folder.

    Raises:
        IntegrityError: two files hold a tensor of the same name, or a file is truncated.
        InputMissingError: see `weight_files`.
    """
    tensors: dict[str, Stored] = {}
    for path in weight_files(folder):
        for name, stored in read_header(path).items():
            if name in tensors:
                raise IntegrityError(f"tensor {name!r} is in {tensors[name].file.name} too", where=str(path))
            tensors[name] = stored
        if len(tensors) > MOST_TENSORS:
            raise _too_many(len(tensors), path)
    return tensors


def read_rows(handle: BinaryIO, stored: Stored, begin: int = 0, end: int | None = None) -> Any:
    """Rows `begin` to `end` of a stored tensor in its own dtype, shape (end - begin, ...); for a scalar, the scalar."""
    import torch

    rows = stored.shape[0] if stored.shape else 1
    row_bytes = stored.size // max(1, rows)
    count = (rows if end is None else end) - begin
    shape = (count, *stored.shape[1:]) if stored.shape else ()
    handle.seek(stored.start + begin * row_bytes)
    data = bytearray(handle.read(count * row_bytes))
    dtype = torch_dtype(stored.dtype)
    return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)


def torch_dtype(name: str) -> Any:
    """torch's dtype for one of safetensors' floating-point names."""
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}[name]


def is_finite(numbers: Any) -> bool:
    """Whether every number of a tensor is finite; the minimum and maximum show it, since NaN propagates to both."""
    import torch

    return numbers.numel() == 0 or all(map(math.isfinite, torch.stack(torch.aminmax(numbers)).tolist()))

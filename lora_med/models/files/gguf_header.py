"""The header of a GGUF file: metadata, tensor names and sizes, each checked against the file's length.

Format (ggml's specification, versions 2 and 3, little-endian): `GGUF`, version, number of tensors, number of metadata
values; then the values, then name, shape, type and offset of each tensor, then the tensors' bytes, each aligned. This
module needs no package, so a file that cannot be a base is refused within a second and without the package `gguf`.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lora_med.errors import InputMissingError, IntegrityError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_TENSORS, MOST_VALUES, MOST_ITEMS, MOST_DIMENSIONS = 100_000, 10_000, 4_000_000, 4
# ggml's type number -> name, values in a block, bytes in a block
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
JOIN_PARTS = "join them: llama-gguf-split --merge FIRST-PART WHOLE.gguf"
COPY_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Tensor:
    """One tensor: its shape as torch orders it, and the name of its ggml type."""

    name: str
    shape: tuple[int, ...]
    kind: str


@dataclass(frozen=True)
class Header:
    """Metadata by key (text, numbers, lists) and the tensors, in the file's order."""

    file: Path
    values: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture; '' if the file has none."""
        return str(self.values.get("general.architecture", ""))

    def own(self, key: str, default: Any = None) -> Any:
        """The value of `ARCHITECTURE.key`."""
        return self.values.get(f"{self.architecture}.{key}", default)

    @property
    def kinds(self) -> dict[str, int]:
        """ggml type -> number of tensors."""
        names = [tensor.kind for tensor in self.tensors]
        return {name: names.count(name) for name in sorted(set(names))}


def begins_as_gguf(path: Path) -> bool:
    """Whether the first four bytes of a file are GGUF's; False for a file that cannot be read."""
    try:
        with open(path, "rb") as handle:
            return handle.read(4) == MAGIC
    except OSError:
        return False


def read_gguf_header(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        InputMissingError: the file may not be read.
        IntegrityError: it is no GGUF, is truncated, or its header contradicts itself.
    """
    try:
        with open(path, "rb") as handle:
            begin = handle.read(24)
            _check_begin(path, begin)
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Reader(path, content).header()
    except OSError as error:
        raise InputMissingError(
            f"cannot read {path.name} ({error.strerror})", where=str(path), fix="check the path and its permissions"
        ) from error


def _check_begin(path: Path, begin: bytes) -> None:
    if begin.startswith(b"version https://git-lfs"):
        raise IntegrityError(
            "the file is a Git LFS pointer, not the model", where=str(path), fix="git lfs pull, or download the file"
        )
    if not begin.startswith(MAGIC):
        what = "the file is empty (0 bytes)" if not begin else f"not a GGUF file: it begins with {begin[:4]!r}"
        raise IntegrityError(what, where=str(path), fix=COPY_AGAIN)
    if len(begin) < 24:
        raise IntegrityError(f"the GGUF file has {len(begin)} bytes: it is truncated", where=str(path), fix=COPY_AGAIN)


class _Reader:
    """A cursor over the mapped file; every step checks that the file is long enough."""

    ALIGNMENT: ClassVar[str] = "general.alignment"

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.position = path, content, 0

    def header(self) -> Header:
        self.position = 4
        version = self.number("I")
        if version not in VERSIONS:
            raise self.broken(f"GGUF version {version} is not supported (2 and 3 are)", fix="convert the model again")
        tensor_count, value_count = self.number("Q"), self.number("Q")
        if tensor_count > MOST_TENSORS or value_count > MOST_VALUES:
            raise self.broken(f"the header announces {tensor_count:,} tensors and {value_count:,} values")
        values: dict[str, Any] = {}
        for _ in range(value_count):
            key = self.text()
            if key in values:
                raise self.broken(f"the metadata key {key!r} occurs twice")
            values[key] = self.value(self.number("I"))
        tensors = self.tensors(tensor_count, values.get(self.ALIGNMENT, 32))
        return Header(self.path, values, tensors)

    def tensors(self, count: int, alignment: object) -> tuple[Tensor, ...]:
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            raise self.broken(f"{self.ALIGNMENT} is {alignment!r}")
        tensors: dict[str, Tensor] = {}
        last_end = 0
        for _ in range(count):
            name = self.text()
            dimensions = self.number("I")
            if dimensions > MOST_DIMENSIONS:
                raise self.broken(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(reversed([self.number("Q") for _ in range(dimensions)]))
            type_number, offset = self.number("I"), self.number("Q")
            if name in tensors:
                raise self.broken(f"tensor {name!r} occurs twice")
            if type_number not in TYPES:
                raise self.broken(f"tensor {name!r} has the unknown ggml type {type_number}", fix="convert it again")
            kind, values, size = TYPES[type_number]
            if shape and shape[-1] % values:
                raise self.broken(f"tensor {name!r}: rows of {shape[-1]} values do not fill blocks of {kind}")
            last_end = max(last_end, offset + math.prod(shape) // values * size)
            tensors[name] = Tensor(name, shape, kind)
        start = -(-self.position // alignment) * alignment
        missing = start + last_end - len(self.content)
        if missing > 0:
            raise self.broken(f"the file is truncated: {missing:,} of {start + last_end:,} bytes are absent")
        return tuple(tensors.values())

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != ARRAY:
            raise self.broken(f"a metadata value has the unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if count > MOST_ITEMS or (inner not in NUMBERS and inner != STRING):
            raise self.broken(f"a metadata list has {count:,} items of type {inner}")
        if inner == STRING:
            return [self.text() for _ in range(count)]
        form = f"<{count}{NUMBERS[inner]}"
        return list(struct.unpack(form, self.take(struct.calcsize(form))))

    def number(self, kind: str) -> Any:
        form = "<" + kind
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self) -> str:
        try:
            return self.take(self.number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken("a text in the header is not UTF-8") from error

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.content):
            raise self.broken(f"the file is truncated: it has {len(self.content):,} bytes and ends inside its header")
        piece = self.content[self.position : end]
        self.position = end
        return piece

    def broken(self, what: str, fix: str = COPY_AGAIN) -> IntegrityError:
        return IntegrityError(what, where=str(self.path), fix=fix)

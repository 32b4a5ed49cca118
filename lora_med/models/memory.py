"""How many bytes the weights of a base take once loaded, how many there are, and how a CPU gives them back."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.models.precision import DTYPES
from lora_med.models.targets import linear_layers

BLOCK = 64  # weights that share one quantization constant in 4 bits
NESTED_BLOCK = 256  # constants that share one of their own under double quantization
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, which the free memory of the host knows nothing of
LARGE_BYTES = 16 << 20  # of a tensor; below, asking the system for pages anew costs more time than the room is worth
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # what glibc's mallopt(3) calls these settings
HIGHEST_THRESHOLD = 32 << 20  # of MMAP_THRESHOLD; glibc goes there by itself as large tensors are freed
OWN_TUNING = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # environment variables by which a user has decided
BYTES: dict[str, int] = dict(zip(DTYPES, (4, 2, 2), strict=True))


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of the frozen weights: those left in full, those quantized, and the quantization's constants."""

    full: int
    quantized: int
    constants: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.full + self.quantized + self.constants


def weight_bytes(model: Any, *, quantization: str, double_quant: bool, dtype: str) -> WeightBytes:
    """Bytes of the weights of a model, which may be a skeleton, as `load_base` would hold them.

    Every linear layer but the output head is quantized: to half a byte a weight with a float32 constant for each 64
    (with double quantization a byte, and a float32 for each 256 of those), or to a byte a weight with one float32 for
    each output.
    """
    size = BYTES[dtype]
    inner = {layer.name: layer for layer in linear_layers(model)}
    seen: set[int] = set()
    full = quantized = constants = 0
    for name, parameter in model.named_parameters():  # tied weights come once
        if id(parameter) in seen:
            continue
        seen.add(id(parameter))
        layer = inner.get(name.removesuffix(".weight"))
        count = parameter.numel()
        if quantization == "none" or layer is None:
            full += count * size
        elif quantization == "8bit":
            quantized += count
            constants += 4 * layer.outputs
        else:
            blocks = -(-count // BLOCK)
            quantized += -(-count // 2)
            constants += blocks + 4 * -(-blocks // NESTED_BLOCK) + 4 * 256 if double_quant else 4 * blocks
    return WeightBytes(full, quantized, constants)


def free_memory(device: str) -> int:
    """Bytes that this process can hold in all on "cpu" or "cuda": what is free, and what it holds already."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()
    import psutil

    free = int(psutil.virtual_memory().available) + held_memory(device)
    try:
        limit = CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return free
    return min(free, int(limit)) if limit.isdigit() else free


def held_memory(device: str) -> int:
    """Bytes that this process holds on "cpu" or "cuda"."""
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


def spare_memory(device: str, processes: int) -> int:
    """Bytes that each of so many processes of this machine may hold beside what it holds; each has a GPU of its own."""
    free = max(0, free_memory(device) - held_memory(device))
    return free if device == "cuda" else free // processes


def returns_large_tensors() -> bool:
    """Whether `large_tensors_returned` changes anything here: with glibc, where the user has not tuned it himself."""
    return platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in OWN_TUNING)


@contextlib.contextmanager
def large_tensors_returned() -> Iterator[None]:
    """Within, memory that is asked for large tensors on a CPU goes back to the system as soon as they are freed.

    By itself glibc keeps what is freed, up to 32 MiB each, for what comes next. Small objects settle there, and the
    next tensor of that size no longer fits. The setting is the process's, and afterwards it is what glibc comes to by
    itself once tensors of 32 MiB were freed.
    """
    if not returns_large_tensors():
        yield
        return
    tune = ctypes.CDLL(None).mallopt
    tune(TRIM_THRESHOLD, 2 * HIGHEST_THRESHOLD)  # glibc no longer sets it once it is told the other
    tune(MMAP_THRESHOLD, LARGE_BYTES)
    try:
        yield
    finally:
        tune(MMAP_THRESHOLD, HIGHEST_THRESHOLD)

"""Memory: the bytes of a base's weights once loaded, the bytes that are free, and how a CPU process returns them."""

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
from lora_med.models.structure.expert_stacks import expert_stacks
from lora_med.models.structure.quantized_layers import quantized_layers

BLOCK = 64  # weights that share one quantization constant in 4 bits
NESTED_BLOCK = 256  # constants that share one of their own under double quantization
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # a container's limit, which the host's free memory does not show
LARGE_BYTES = 16 << 20  # of a tensor; below this size, new pages from the system cost more time than they are worth
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # what glibc's mallopt(3) calls these settings
HIGHEST_THRESHOLD = 32 << 20  # the value of MMAP_THRESHOLD that glibc reaches by itself as large tensors are freed
OWN_TUNING = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # environment variables that show a user's own choice
BYTES: dict[str, int] = dict(zip(DTYPES, (4, 2, 2), strict=True))


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of the frozen weights: unquantized weights, quantized weights, and the quantization's constants."""

    full: int
    quantized: int
    constants: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.full + self.quantized + self.constants


def weight_bytes(model: Any, *, quantization: str, double_quant: bool, dtype: str) -> WeightBytes:
    """Bytes of a model's weights as `load_base` would hold them; the model may be on the meta device.

    Linear layers but the output head are quantized; routed experts are not. In 4 bits a weight takes half a byte, and
    each 64 weights share a float32 constant. Double quantization stores that constant in a byte, and each 256 constants
    share a float32. In 8 bits a weight takes a byte, and each output has one float32.
    """
    size = BYTES[dtype]
    inner = {layer.name: layer for layer in quantized_layers(model)} if quantization != "none" else {}
    seen: set[int] = set()
    full = quantized = constants = 0
    for name, parameter in model.named_parameters():  # tied weights are counted once
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


def experts_in_full(model: Any, *, quantization: str, double_quant: bool, dtype: str) -> str | None:
    """One sentence about the routed experts that a quantized base keeps in full, with what that costs; else None.

    bitsandbytes 0.50 under transformers 5.23 quantizes layers, and the experts of a layer are parameters.
    """
    stacks = expert_stacks(model)
    if quantization == "none" or not stacks:
        return None
    numbers = sum(stack.numbers for stack in stacks)
    total = weight_bytes(model, quantization=quantization, double_quant=double_quant, dtype=dtype).total
    bits = 8 * BYTES[dtype]
    return (
        f"the routed experts ({numbers / 1e9:.3g} billion weights in {len(stacks)} tensors) stay in {bits} bits, as "
        f"bitsandbytes quantizes layers alone: {numbers * BYTES[dtype] / 1e9:.3g} GB of the {total / 1e9:.3g} GB that "
        f"this base takes in {quantization.removesuffix('bit')} bits"
    )


def free_memory(device: str) -> int:
    """Bytes that this process can hold in total on "cpu" or "cuda": free memory plus what it already holds."""
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
    """Bytes that each of `processes` on this machine may still allocate; each process has its own GPU."""
    free = max(0, free_memory(device) - held_memory(device))
    return free if device == "cuda" else free // processes


def returns_large_tensors() -> bool:
    """Whether `large_tensors_returned` has an effect: on glibc, unless the user has tuned it."""
    return platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in OWN_TUNING)


@contextlib.contextmanager
def large_tensors_returned() -> Iterator[None]:
    """Within this context, a CPU process returns the memory of a large tensor to the system as soon as it is freed.

    By default glibc keeps freed blocks of up to 32 MiB for later allocations. Small objects then occupy part of such a
    block, and the next tensor of that size no longer fits. The setting applies to the process. Afterwards it has the
    value that glibc reaches by itself once tensors of 32 MiB were freed.
    """
    if not returns_large_tensors():
        yield
        return
    tune = ctypes.CDLL(None).mallopt
    tune(TRIM_THRESHOLD, 2 * HIGHEST_THRESHOLD)  # glibc stops adjusting this one once the other is set
    tune(MMAP_THRESHOLD, LARGE_BYTES)
    try:
        yield
    finally:
        tune(MMAP_THRESHOLD, HIGHEST_THRESHOLD)

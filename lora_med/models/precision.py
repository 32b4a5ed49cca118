"""The dtype of computation: the fastest one on the device that does not lose range, with the reason."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

DTYPES = ("float32", "bfloat16", "float16")
AMPERE = (8, 0)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """An automatic choice as it is reported: `dtype: float32, because this CPU has no AVX512-BF16 or AMX`."""

    what: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.value}, because {self.why}"


def log_choices(choices: Iterable[Choice]) -> None:
    """Log each choice with its reason."""
    for choice in choices:
        logger.info("%s", choice)


def best_dtype(device: str) -> Choice:
    """The dtype for `device` ("cuda", "cpu", "mps"), with its reason. float16 is never chosen: its range is too small.

    A CPU without bfloat16 instructions multiplies matrices three to four times faster in float32.
    """
    import torch

    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        able = (major, minor) >= AMPERE
        name = f"this GPU has compute capability {major}.{minor}"
        return (
            Choice("dtype", "bfloat16", name) if able else Choice("dtype", "float32", f"{name}, before bfloat16 (8.0)")
        )
    if device != "cpu":
        return Choice("dtype", "float32", f"bfloat16 is not tested on {device}")
    instruction_set = bfloat16_instructions()
    return Choice(
        "dtype",
        "bfloat16" if instruction_set else "float32",
        f"this CPU has {instruction_set or 'no AVX512-BF16 or AMX'}",
    )


def bfloat16_instructions() -> str:
    """The instruction set with which this CPU multiplies in bfloat16, or ''."""
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for key, name in names.items() if cpu_has(key)), "")


def cpu_has(ability: str) -> bool:
    """Whether torch reports that this CPU has an instruction set, by torch's name; False if torch does not know."""
    import torch

    return bool(getattr(torch.cpu, "get_capabilities", dict)().get(ability, False))


def device_kind() -> str:
    """Where a base is loaded: "cuda" if torch sees a GPU, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

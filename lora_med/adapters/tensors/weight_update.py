"""An adapter's update of one weight, in memory: its rows in fp32, in the base's storage orientation.

The arithmetic and its order are PEFT's: (B A) first, then the scale. DoRA divides by the norm of the result. So a plain
LoRA added to its base is bit-identical to PEFT's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lora_med.adapters.tensors.contents import LowRank
from lora_med.errors import IntegrityError
from lora_med.models.files.weight_files import Stored, is_finite, open_stored, read_rows


@dataclass(frozen=True)
class WeightUpdate:
    """`scale * up @ down`, ready to add: fp32 `up` (outputs, r), `down` (r, inputs), `magnitude` (outputs) or None.

    `transposed` is true if the base stores (inputs, outputs), as GPT-2 and every embedding do.
    """

    up: Any
    down: Any
    scale: float
    magnitude: Any
    transposed: bool

    def rows(self, begin: int, end: int, out: Any = None) -> Any:
        """Rows `begin` to `end` of the update as the base stores them, before DoRA's division; in `out` if set."""
        import torch

        if self.transposed:
            update = torch.mm(self.down[:, begin:end].T, self.up.T, out=out)
        else:
            update = torch.mm(self.up[begin:end], self.down, out=out)
        return update if self.scale == 1 else update.mul_(self.scale)


def row_factor(magnitude: Any, lengths: Any) -> Any:
    """DoRA's factor of each row: its magnitude divided by the row's length; 0 for a row of zeros, which stays zero."""
    return (magnitude / lengths).masked_fill_(lengths == 0, 0.0)


def load_update(low_rank: LowRank, *, transposed: bool) -> WeightUpdate:
    """Read and check the update's small matrices.

    Raises:
        IntegrityError: a value is not finite.
    """
    with open_stored(low_rank.up) as handle:
        up, down = (finite(read_rows(handle, stored), stored).float() for stored in (low_rank.up, low_rank.down))
        magnitude = None
        if low_rank.magnitude is not None:
            magnitude = finite(read_rows(handle, low_rank.magnitude), low_rank.magnitude).float().reshape(-1)
    if math.frexp(low_rank.scale)[0] == 0.5:  # a power of two scales without rounding, before or after the product
        return WeightUpdate(up * low_rank.scale, down, 1.0, magnitude, transposed)
    return WeightUpdate(up, down, low_rank.scale, magnitude, transposed)


def finite(tensor: Any, stored: Stored) -> Any:
    """`tensor`, unchanged, if it is finite.

    Raises:
        IntegrityError: a value is not finite.
    """
    if not is_finite(tensor):
        raise IntegrityError(
            f"tensor {stored.name!r} of the adapter is not finite", where=str(stored.file), fix="train it again"
        )
    return tensor

"""An adapter's update of routed experts, in memory: the rows of a tensor on disk that holds one of them, or all.

PEFT keeps the factors of all experts in two matrices: row e * r + k of A belongs to column k * experts + e of B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lora_med.adapters.tensors.contents import LowRank
from lora_med.adapters.tensors.weight_update import finite
from lora_med.models.files.weight_files import open_stored, read_rows
from lora_med.models.structure.tensor_names import StackPart


@dataclass(frozen=True)
class ExpertUpdate:
    """`scale * left @ right` of each expert as the file stores it, in fp32.

    `left` is (experts, rows, r), `right` (experts, r, columns). Rows are counted over all experts of the tensor, which
    has `height` of each, from row `first` of an expert's matrix on.
    """

    left: Any
    right: Any
    scale: float
    first: int
    height: int
    magnitude: None = None

    def rows(self, begin: int, end: int, out: Any) -> Any:
        """Rows `begin` to `end` of the update, in `out`."""
        import torch

        row = begin
        while row < end:
            expert, inner = divmod(row, self.height)
            count = min(end - row, self.height - inner)
            left = self.left[expert, self.first + inner : self.first + inner + count]
            torch.mm(left, self.right[expert], out=out[row - begin : row - begin + count])
            row += count
        return out if self.scale == 1 else out.mul_(self.scale)


def expert_factors(low_rank: LowRank) -> tuple[Any, Any]:
    """The update's factors as (experts, outputs, r) and (experts, r, inputs), unscaled, in the file's number format.

    Raises:
        IntegrityError: a value is not finite.
    """
    assert low_rank.stack is not None
    experts = low_rank.stack.experts
    with open_stored(low_rank.up) as handle:
        up, down = (finite(read_rows(handle, stored), stored) for stored in (low_rank.up, low_rank.down))
    return up.reshape(len(up), -1, experts).permute(2, 0, 1), down.reshape(experts, -1, down.shape[-1])


def joined_factors(up: Any, down: Any) -> tuple[Any, Any]:
    """B and A as PEFT stores them, from factors as `expert_factors` returns them."""
    return up.permute(1, 2, 0).reshape(up.shape[1], -1).contiguous(), down.reshape(-1, down.shape[-1]).contiguous()


def exchanged(low_rank: LowRank) -> tuple[Any, Any]:
    """B and A of the same update with inputs and outputs exchanged, as another version of PEFT stores them."""
    up, down = expert_factors(low_rank)
    return joined_factors(down.mT, up.mT)


class ExpertUpdates:
    """Updates of experts, one tensor on disk after the other; the last two stacks stay in memory.

    The tensors of one layer are next to each other in most files.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, Any]] = {}

    def of(self, low_rank: LowRank, part: StackPart, rows: int) -> ExpertUpdate:
        """The update of one tensor, which has so many rows over all its experts."""
        stack = low_rank.stack
        assert stack is not None
        if low_rank.layer not in self._held:
            up, down = (factor.float().contiguous() for factor in expert_factors(low_rank))
            self._held[low_rank.layer] = (down.mT, up.mT) if stack.transposed else (up, down)
            for name in list(self._held)[:-2]:
                del self._held[name]
        left, right = self._held[low_rank.layer]
        if part.flipped:
            left, right = right.mT, left.mT
        if part.expert is not None:
            left, right = left[part.expert : part.expert + 1], right[part.expert : part.expert + 1]
        return ExpertUpdate(left, right, low_rank.scale, part.begin, rows // len(left))

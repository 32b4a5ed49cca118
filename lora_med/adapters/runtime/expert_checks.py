"""What the log says of adapted experts before the first step: no dropout in PEFT, and perhaps no merge afterwards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lora_med.models.files.weight_files import read_headers
from lora_med.models.structure.expert_stacks import ExpertStack
from lora_med.models.structure.tensor_names import DiskNames

logger = logging.getLogger(__name__)


def check_experts(stacks: Sequence[ExpertStack], folder: Path) -> None:
    """Log what an adapter of these experts is trained without, and warn where it can be attached but not merged."""
    if not stacks:
        return
    logger.info("lora_dropout: 0, because PEFT drops no inputs of routed experts")
    names = DiskNames(folder, read_headers(folder))
    unknown = [stack.name for stack in stacks if names.parts(stack) is None]
    if unknown:
        logger.warning(
            "the files of this base hold %d stacks of experts, such as %s, in a form that a merge cannot write: "
            "the adapter can be attached, but neither merged nor exported merged",
            len(unknown),
            unknown[0],
        )

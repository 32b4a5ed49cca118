"""Which way round PEFT stores the factors of routed experts: it depends on its version, and for some on the model.

PEFT 0.17 and 0.18 took the first edge of each matrix for its inputs, whatever the model. 0.19.0 exchanged inputs and
outputs of every model. From 0.19.1 on, A reads the inputs of every expert.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from lora_med.errors import DependencyMissingError, SettingsError
from lora_med.models.structure.expert_stacks import ExpertStack

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
SINCE = (0, 19, 1)  # from this PEFT on, A reads the inputs of every expert, as its own model stores them


def require_layout() -> None:
    """Refuse a PEFT that reads the factors of experts in another layout than the one that is published.

    Raises:
        DependencyMissingError: with the version.
    """
    installed = metadata.version("peft")
    numbers = VERSION.match(installed)
    if numbers is not None and tuple(map(int, numbers.groups())) < SINCE:
        raise DependencyMissingError(
            f"PEFT {installed} exchanges inputs and outputs of routed experts",
            where="lora.target_experts",
            fix='pip install "peft>=0.19.1"',
        )


def as_saved(
    stack: ExpertStack, down: tuple[int, ...], up: tuple[int, ...], version: Any, adapter: Path
) -> ExpertStack:
    """The stack as the PEFT that saved the file reads it: before 0.19.1 it exchanged inputs and outputs of many models.

    Args:
        version: `peft_version` of the settings. Where it is not a released version, the shapes decide.

    Raises:
        SettingsError: the shapes fit both ways.
    """
    numbers = VERSION.fullmatch(version) if isinstance(version, str) else None
    if numbers is not None:
        saved_by = tuple(map(int, numbers.groups()))
        transposed = stack.transposed if saved_by >= SINCE else not stack.transposed or saved_by < (0, 19, 0)
        return stack if transposed == stack.transposed else stack.flipped
    if stack.inputs == stack.outputs:
        raise SettingsError(
            f"peft_version is {str(version)[:40]!r}, and before 0.19.1 PEFT stored inputs and outputs of the experts "
            f"{stack.name!r} exchanged",
            where=str(adapter / "adapter_config.json"),
            fix="set peft_version to that of the PEFT that saved the adapter, such as 0.18.1",
        )
    return stack if (up[0], down[1]) == (stack.outputs, stack.inputs) else stack.flipped

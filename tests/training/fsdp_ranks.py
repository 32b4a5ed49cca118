"""FSDP2 on CPU processes: every parameter in shards, as on several GPUs, without one.

accelerate takes its branch for FSDP only where the processes are on accelerators. Here they are on CPUs and joined by
gloo, and accelerate's state says otherwise; everything after that is accelerate's and torch's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.training.support import run_ranks

FSDP2 = {
    "ACCELERATE_USE_CPU": "true",
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}


def run_sharded_ranks(processes: int, work: Callable[[], Any], folder: Path) -> list[int]:
    """Run `work` in forked processes whose models are sharded by FSDP2; returns their exit codes."""

    def sharded() -> None:
        os.environ.update(FSDP2)
        _take_cpus_for_accelerators()
        work()

    return run_ranks(processes, sharded, folder)


def _take_cpus_for_accelerators() -> None:
    """Let accelerate's state, in this process, call CPU processes joined by gloo several GPUs."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    initialize = AcceleratorState.__init__

    def with_shards(state: Any, *arguments: Any, **options: Any) -> None:
        if not PartialState._shared_state:
            PartialState(True)
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        initialize(state, *arguments, **options)

    AcceleratorState.__init__ = with_shards

"""The key-value store that the launcher holds, or process 0 where there is none, at MASTER_ADDR:MASTER_PORT.

torchrun and `accelerate launch` keep it in their agent. Started by hand or by srun, process 0 holds it. torch's process
group uses the same one later: no port of our own is opened.
"""

from __future__ import annotations

import datetime
import os
from typing import Any

from lora_med.errors import SettingsError
from lora_med.processes.launch import rank, world_size

PROCESS_GROUP = "default_pg/"  # what its keys begin with
VARIABLES = ("MASTER_ADDR", "MASTER_PORT")


def address() -> str:
    """HOST:PORT of the store.

    Raises:
        SettingsError: the launcher did not say where it is.
    """
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise SettingsError(
            f"WORLD_SIZE is {world_size()}, and {' and '.join(missing)} not set, so the processes cannot meet",
            where="the environment",
            fix="start them by `lora-med train --processes N`, accelerate launch or torchrun",
        )
    return ":".join(os.environ[name] for name in VARIABLES)


def is_held_here() -> bool:
    """Whether this process holds the store, because no launcher does."""
    return rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def connect(seconds: float, *, as_host: bool = False) -> Any:
    """A client of the store, whose requests wait for at most `seconds`; `as_host` opens the store in this process.

    Raises:
        RuntimeError: no answer in that time (`torch.distributed.DistError`).
    """
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] - its documented place

    host, _, port = address().rpartition(":")
    return TCPStore(
        host,
        int(port),
        world_size(),
        is_master=as_host,
        timeout=datetime.timedelta(seconds=seconds),
        wait_for_workers=False,
        multi_tenant=True,  # the process group may open the same store again
    )


def forget_earlier_attempt(store: Any) -> None:
    """Remove the addresses of a restarted launch's earlier processes, to which torch's process group would connect."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and rank() == 0:
        for key in store.list_keys():
            if key.lstrip("/").startswith(PROCESS_GROUP):
                store.delete_key(key)


def prefix(joins: int) -> str:
    """What the keys of one run begin with: a restarted launch, or a second run in one launch, has keys of its own."""
    return f"lora_med/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{joins}"

"""This process in its launch: its rank, its machine, and how many there are."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN = 3  # processes of a longer list


def rank() -> int:
    """This process's rank in the launch; 0 for a single process."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's rank among those of the launch on this machine; 0 for a single process."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """The number of processes in the launch."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Place:
    """Where a process runs. `machine` tells two machines of one host name apart; `local_rank` counts on a machine."""

    rank: int
    host: str
    machine: str
    local_rank: int

    def __str__(self) -> str:
        return f"process {self.rank} on {self.host}"


def own_place() -> Place:
    """The place of this process, by the variables that torchrun, accelerate and Slurm set."""
    host = socket.gethostname()
    number = os.environ.get("GROUP_RANK") or os.environ.get("SLURM_NODEID") or ""
    return Place(rank(), host, f"{host}/{number}", local_rank())


def named(places: Sequence[Place]) -> str:
    """The places in words: `process 1 on alpha`, `processes 0, 2 on alpha and process 4 on beta`."""
    hosts = dict.fromkeys(place.host for place in places)
    return " and ".join(_on(host, [place.rank for place in places if place.host == host]) for host in hosts)


def _on(host: str, ranks: Iterable[int]) -> str:
    every = [str(number) for number in ranks]
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return f"process{'es' if len(every) > 1 else ''} {', '.join(every[:SHOWN])}{more} on {host}"

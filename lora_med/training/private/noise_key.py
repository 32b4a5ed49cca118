"""The secret of a private run: who takes part in a step, its noise and its dropout all follow from it.

Whoever knows it can subtract the noise. It is drawn from the operating system when a run starts, and is in the
checkpoints of an unfinished run alone, readable by their owner. It is in no log, no run.json and no card.

A step's random numbers depend on the secret and the number of the step. So a resumed run repeats the steps that a crash
took from it number by number, and no step is spent twice. The generator is Philox, keyed by a SHA-256. It is
reproducible and has long streams, but it is not a cryptographic generator. Neither is torch's, which Opacus takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lora_med.errors import IntegrityError
from lora_med.files import readable, write_atomic

FILE = "noise_key"
SECRET_BYTES = 32


class NoiseKey:
    """The secret; it shows itself nowhere but in `save`."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def new(cls) -> NoiseKey:
        """A secret from the operating system's entropy."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def read(cls, folder: Path) -> NoiseKey:
        """The secret of the run whose checkpoint is in `folder`.

        Raises:
            IntegrityError: the file is not what was written.
            InputMissingError: it is not there, or may not be read.
        """
        path = folder / FILE
        with readable(path):
            content = path.read_bytes()
        if len(content) != SECRET_BYTES:
            raise IntegrityError(
                f"{FILE} has {len(content)} bytes, not {SECRET_BYTES}",
                where=str(path),
                fix="choose another train.output_dir, and start the run there",
            )
        return cls(content)

    def save(self, folder: Path) -> None:
        """Write the secret into a checkpoint, for its owner alone (0600)."""
        write_atomic(folder / FILE, self._secret, private=True)

    def generator(self, purpose: str, step: int) -> np.random.Generator:
        """The random numbers of a step for one purpose; those of another purpose or step are independent."""
        return np.random.Generator(np.random.Philox(key=self._number(purpose, step, 16)))

    @contextlib.contextmanager
    def torch_seeded(self, step: int, device: torch.device) -> Iterator[None]:
        """torch's generators follow from the secret inside, and are as before on exit.

        Dropout needs it: masks that an outsider knows would differ for all patients if one of them is left out.
        """
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(self._number("dropout", step, 8) >> 1)
            yield

    def _number(self, purpose: str, step: int, size: int) -> int:
        digest = hashlib.sha256(self._secret + f"{purpose} {step}".encode()).digest()
        return int.from_bytes(digest[:size], "little")

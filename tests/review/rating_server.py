"""`lora-med review rate` as a process of its own, on a free port."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class RatingServer:
    """Serves a study until it is killed."""

    def __init__(self, study: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "lora_med", "review", "rate", str(study), "--port", str(port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert self.process.stdout is not None
        self.links: dict[str, str] = {}
        for line in self.process.stdout:
            name, _, address = line.strip().partition(": ")
            if name.startswith("serving on"):
                break
            self.links[name] = address
        assert self.links, "the server did not start"

    @property
    def port(self) -> int:
        return int(self.links["R1"].split("/")[2].rpartition(":")[2])

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

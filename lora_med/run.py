"""start_run(): one run in one folder, with a lock, a seed, logging from rank 0, and run.json.

run.json records what made the result: resolved settings, versions, git commit, data hashes, host facts, seed. It is
written when the run starts (`status: running`) and again when it ends, so a killed run still shows `running`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import logging
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_med.errors import LoraMedError, StoppedError
from lora_med.files import write_json
from lora_med.folders import lock
from lora_med.processes.launch import rank, world_size
from lora_med.visible import visible

VERSIONED = (
    "lora-med",
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
)
NOISY = ("httpx", "httpx2", "httpcore", "filelock", "urllib3", "matplotlib", "bitsandbytes", "fsspec")
NOISY += ("gguf", "onnx_ir", "onnxscript")  # they log each step at INFO
GARBAGE_THRESHOLDS = 100_000, 20, 20  # allocations before a collection, and collections before the next generation
# How often an OpenMP thread looks before it sleeps while it waits for the others; benchmarks/busy_machine.py.
SPINS, OWN_WAITING = "300", ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
logger = logging.getLogger(__name__)


def prepare_environment(offline: bool) -> None:
    """Set the environment variables that the libraries read at import; call it before the first import.

    Offline, no library uses the network. Telemetry is off in both cases. Garbage is collected less often: imports
    produce hardly any, and collecting takes a tenth of the time to the first step. OpenMP's threads wait by sleeping
    soon, so that another process on a core costs a third of the speed and not three quarters; what the user set wins.
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not any(map(os.environ.get, OWN_WAITING)):
        os.environ["GOMP_SPINCOUNT"] = SPINS
    if world_size() > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings of a lost peer hide ours, which says whose
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Without what the loggers of these names say beneath a warning, where it is said again or in another way."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def set_verbosity(level: int) -> None:
    """Log `level` (of `logging`) and above from this package; NOTSET is the usual one, INFO. Later set-ups keep it."""
    logging.getLogger("lora_med").setLevel(level if rank() == 0 else logging.NOTSET)
    if logging.getLogger().handlers:
        set_up_logging()


class _VisibleFormatter(logging.Formatter):
    """Log lines in which nothing that comes from a file acts on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def set_up_logging() -> None:
    """Log to stderr from rank 0, at the level of `set_verbosity`; other ranks log errors only."""
    usual = logging.INFO if rank() == 0 else logging.ERROR
    level = max(usual, logging.getLogger("lora_med").level)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_VisibleFormatter("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def versions() -> dict[str, str]:
    """Installed versions of lora_med and of the libraries that decide its numbers."""
    installed = {"python": platform.python_version()}
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def git_commit() -> dict[str, Any] | None:
    """Commit of the working directory's checkout and whether it has changes, or None outside one."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changes.strip())}


def host() -> dict[str, Any]:
    """Facts about the machine that affect numbers and speed; no name, no user, no path."""
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {"system": platform.system(), "machine": platform.machine(), "processor": model, "cores": os.cpu_count()}


@dataclass
class Run:
    """A run in progress: its folder, and the facts for run.json."""

    output_dir: Path
    facts: dict[str, Any] = field(default_factory=dict)
    umask: int | None = None  # the process's own, restored when the run ends
    begun: float = field(default_factory=time.time)

    def record(self, **facts: Any) -> None:
        """Add facts (JSON values) to run.json, now."""
        self.facts.update(facts)
        if rank() == 0:
            write_json(self.output_dir / "run.json", self.facts)

    def record_error(self, error: BaseException) -> None:
        """Record how the run ended, with the time it took; what cannot be written must not hide `error`."""
        stopped = isinstance(error, StoppedError | KeyboardInterrupt)
        with contextlib.suppress(LoraMedError):  # such as an error of a full disk
            self.record(
                status="stopped" if stopped else "failed",
                error=error.code if isinstance(error, LoraMedError) else type(error).__name__,
                seconds=self.seconds(),
            )

    def seconds(self) -> float:
        """How long the run has taken."""
        return round(time.time() - self.begun, 1)

    def restrict(self, access: str) -> None:
        """For credentialed data, make all files of the run, past and future, readable by their owner only."""
        if access == "credentialed":
            before = os.umask(0o077)
            self.umask = before if self.umask is None else self.umask
            if self.output_dir.is_dir():  # on a machine with a disk of its own it need not exist
                keep_private(self.output_dir)


def keep_private(folder: Path) -> None:
    """Make a folder and all below it readable by its owner only (0700, files 0600); link targets are unchanged."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # a temporary file of another process
                path.chmod(0o700 if path.is_dir() else 0o600)


@contextlib.contextmanager
def start_run(
    output_dir: Path | str, *, settings: dict[str, Any], seed: int, command: Sequence[str] = ()
) -> Iterator[Run]:
    """Lock `output_dir`, seed Python (the trainer seeds the rest), log, and record in run.json how the run ends.

    Raises:
        OutputError: another run has locked the folder, or it cannot be written.
    """
    set_up_logging()
    folder = Path(output_dir)
    random.seed(seed)
    holding = lock(folder) if rank() == 0 else contextlib.nullcontext()
    with holding:
        run = Run(folder)
        run.record(
            status="running",
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(run.begun)),
            command=list(command),
            settings=settings,
            seed=seed,
            versions=versions(),
            git=git_commit(),
            host=host(),
            processes=world_size(),
        )
        try:
            yield run
        except BaseException as error:
            run.record_error(error)
            raise
        else:
            run.record(status="finished", seconds=run.seconds())
        finally:
            if run.umask is not None:
                os.umask(run.umask)


def cache_home() -> Path:
    """The package's folder in the user's cache; its content may be deleted at any time."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lora_med"
    except RuntimeError:  # no home: no file can be below this one, so nothing is cached, and nobody can plant a file
        return Path(os.devnull) / "lora_med"

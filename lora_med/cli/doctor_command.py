"""lora-med doctor: what this machine can do for training, and how to fix each problem.

What costs no import is printed first; then the device, which imports torch; last bitsandbytes, the slowest.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from lora_med.cli.options import AsJson
from lora_med.cli.terminal import print_text
from lora_med.errors import DependencyMissingError
from lora_med.run import host, prepare_environment, versions

NEEDED = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "safetensors")
LITTLE_DISK_GIB = 5.0
LITTLE_MEMORY_GIB = 4.0

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is empty when nothing is wrong."""

    what: str
    value: str
    why: str = ""
    fix: str = ""


def packages() -> list[Finding]:
    """Installed versions of the libraries that lora_med needs."""
    installed = versions()
    rows = [Finding("python", installed["python"])]
    for name in NEEDED:
        fix = "" if name in installed else f"pip install {name}"
        rows.append(Finding(name, installed.get(name, "missing"), fix=fix))
    return [*rows, gguf_package()]


def gguf_package() -> Finding:
    """The version of the package gguf, which GGUF files as bases and exports to GGUF need; nothing else does."""
    try:
        return Finding("gguf", importlib.metadata.version("gguf"), why="reads and writes GGUF files")
    except importlib.metadata.PackageNotFoundError:
        why = 'for GGUF files alone: pip install "lora-med[gguf]"'
        return Finding("gguf", "not installed", why=why)


def devices() -> list[Finding]:
    """The device that training would use, its threads, its number format and why."""
    import torch

    from lora_med.models.precision import best_dtype

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        count = torch.cuda.device_count()
        device = Finding("device", f"{count} x {facts.name}, {facts.total_memory / 2**30:.0f} GiB each")
    else:
        device = Finding("device", f"CPU, {torch.get_num_threads()} threads", why="torch sees no CUDA device")
    choice = best_dtype("cuda" if torch.cuda.is_available() else "cpu")
    return [device, Finding("dtype", choice.value, why=choice.why)]


def quantization() -> Finding:
    """Whether bitsandbytes loads, and with which kernels."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return Finding("4-bit and 8-bit", "not available", fix="pip install bitsandbytes")
    try:
        import torch
        from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib
    except (ImportError, OSError, RuntimeError) as error:
        cause = type(error).__name__
        return Finding("4-bit and 8-bit", "broken", why=cause, fix="python -m bitsandbytes shows what is missing")
    backend = "CUDA" if torch.cuda.is_available() else "CPU"
    slow = isinstance(lib, ErrorHandlerMockBNBNativeLibrary)
    why = "plain PyTorch kernels, slower" if slow else "native kernels"
    return Finding("4-bit and 8-bit", f"bitsandbytes on {backend}", why=why)


def free_space() -> list[Finding]:
    """Free disk of the working directory and free memory, in GiB."""
    import psutil

    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    memory = psutil.virtual_memory().available / 2**30
    disk_fix = "" if disk > LITTLE_DISK_GIB else "free some disk space: checkpoints and merges need it"
    memory_fix = "" if memory > LITTLE_MEMORY_GIB else "close other programs, choose a smaller base or load_in_4bit"
    return [
        Finding("free disk", f"{disk:.1f} GiB", fix=disk_fix),
        Finding("free memory", f"{memory:.1f} GiB", fix=memory_fix),
    ]


def network() -> Finding:
    """Whether the libraries may use the network, by the environment outside lora_med."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    why = "HF_HUB_OFFLINE is set" if offline else "runs are offline unless the settings say offline: false"
    return Finding("network", "offline", why=why)


def _findings(network_row: Finding) -> Iterator[Finding]:
    """Every finding, the fast ones first."""
    facts = host()
    yield Finding("system", f"{facts['system']} {facts['machine']}", why=facts["processor"])
    rows = packages()
    yield from rows
    yield from free_space()
    yield network_row
    if all(row.value != "missing" for row in rows):
        yield from devices()
        yield quantization()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check versions, device, number format, quantization, disk and memory, and show how to fix each problem.

    The exit code is 69 if a package is missing or broken.
    """
    network_row = network()
    prepare_environment(offline=True)
    findings: list[Finding] = []
    for row in _findings(network_row):
        findings.append(row)
        if not as_json:
            mark = "x" if row.fix else "ok"
            print_text(f"{mark:<3} {row.what:<16} {row.value:<22} {row.why}".rstrip(), flush=True)
    wrong = [row for row in findings if row.fix]
    if as_json:
        print_text(json.dumps({"ok": not wrong, "findings": [asdict(row) for row in findings]}))
    else:
        print_text("".join(f"\n{row.what}: {row.fix}" for row in wrong) or "\nNo problem. Next: lora-med train --help")
    if any(row.value in ("missing", "broken") for row in findings):
        raise typer.Exit(DependencyMissingError.exit_code)

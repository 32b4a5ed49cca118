"""lora-med doctor: what this machine can do for training, and what to do about each problem."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from lora_med.run import host, prepare_environment, versions

NEEDED = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "safetensors")
LITTLE_DISK_GB = 5.0
LITTLE_MEMORY_GB = 4.0

app = typer.Typer()


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is empty when nothing is wrong."""

    what: str
    value: str
    why: str = ""
    fix: str = ""


def packages() -> list[Finding]:
    """Installed versions of what lora_med stands on."""
    found = versions()
    rows = [Finding("python", found["python"])]
    for name in NEEDED:
        fix = "" if name in found else f"pip install {name} -c constraints.txt (torch first)"
        rows.append(Finding(name, found.get(name, "missing"), fix=fix))
    return rows


def devices() -> list[Finding]:
    """The device that training would use, its number format and why, and the threads."""
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
    """Whether bitsandbytes loads, and with which backend."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return Finding("4-bit and 8-bit", "not available", fix="pip install bitsandbytes -c constraints.txt")
    try:
        import torch
        from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib
    except (ImportError, OSError, RuntimeError) as error:
        cause = type(error).__name__
        return Finding("4-bit and 8-bit", "broken", why=cause, fix="python -m bitsandbytes tells what is missing")
    backend = "CUDA" if torch.cuda.is_available() else "CPU"
    plain = isinstance(lib, ErrorHandlerMockBNBNativeLibrary)
    why = "plain PyTorch kernels, slower" if plain else "native kernels"
    return Finding("4-bit and 8-bit", f"bitsandbytes on {backend}", why=why)


def room() -> list[Finding]:
    """Free disk of the working directory and free memory, in GiB."""
    import psutil

    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    memory = psutil.virtual_memory().available / 2**30
    disk_fix = "" if disk > LITTLE_DISK_GB else "free some space: checkpoints and merges need it"
    return [
        Finding("free disk", f"{disk:.1f} GiB", fix=disk_fix),
        Finding(
            "free memory",
            f"{memory:.1f} GiB",
            fix="" if memory > LITTLE_MEMORY_GB else "close other programs, or choose a smaller base or load_in_4bit",
        ),
    ]


def network() -> Finding:
    """Whether the libraries may ask the network, as the environment stands outside lora_med."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    why = "HF_HUB_OFFLINE is set" if offline else "runs are offline unless the settings say offline: false"
    return Finding("network", "offline", why=why)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False) -> None:
    """Print versions, device, number format and why, quantization, free room, and what to mend.

    The exit code is 69 if a package is missing.
    """
    here = network()
    prepare_environment(offline=True)
    facts = host()
    findings = [Finding("system", f"{facts['system']} {facts['machine']}", why=facts["processor"]), *packages()]
    if all(row.value != "missing" for row in findings):
        findings += [*devices(), quantization()]
    findings += [*room(), here]
    wrong = [row for row in findings if row.fix]
    if as_json:
        print(json.dumps({"ok": not wrong, "findings": [asdict(row) for row in findings]}))
    else:
        _draw(findings, wrong)
    if any(row.value in ("missing", "broken") for row in findings):
        sys.exit(69)


def _draw(findings: list[Finding], wrong: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "what", "found", "why"):
        table.add_column(title)
    for row in findings:
        table.add_row("[red]x[/]" if row.fix else "[green]ok[/]", row.what, row.value, row.why)
    console = Console()
    console.print(table)
    for row in wrong:
        console.print(f"[bold]{row.what}[/]: {row.fix}")
    if not wrong:
        console.print("\nNothing to mend. Next: make quickstart")

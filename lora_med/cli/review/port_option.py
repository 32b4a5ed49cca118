"""What the serving commands of `lora-med review` share: the port, the check of the packages, the printed address."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from lora_med.cli.terminal import print_text
from lora_med.errors import DependencyMissingError

Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")]


def web_packages() -> None:
    """Check that the packages of the pages are installed.

    Raises:
        DependencyMissingError: one is not.
    """
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise DependencyMissingError(
            f"the pages need {' and '.join(missing)}", where="lora-med review", fix="pip install 'lora-med[review]'"
        )


def served_at(address: str) -> None:
    """Print where the pages are, and how to reach them from another machine."""
    port = address.rpartition(":")[2]
    print_text(f"serving on {address}, this machine only; Ctrl-C stops", flush=True)
    print_text(f"from another machine: ssh -L {port}:127.0.0.1:{port} HOST", flush=True)

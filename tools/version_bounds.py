"""python tools/version_bounds.py lowest|newest: requirement lines for one end of the versions that pyproject admits.

    lowest   each library that lora_med needs, at its lower bound
    newest   the same libraries, unpinned within their bounds

torch stays as `make setup` installs it: other versions of it bring several GB.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
LIBRARIES = ("transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")


def requirements(end: str) -> list[str]:
    """One line for each of LIBRARIES."""
    dependencies = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    lines = []
    for dependency in dependencies:
        name, _, bounds = dependency.partition(">=")
        if name in LIBRARIES:
            lines.append(f"{name}=={bounds.partition(',')[0]}" if end == "lowest" else dependency)
    return lines


if __name__ == "__main__":
    if sys.argv[1:] not in (["lowest"], ["newest"]):
        sys.exit(__doc__)
    print("\n".join(requirements(sys.argv[1])))

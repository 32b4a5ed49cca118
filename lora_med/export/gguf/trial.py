"""Try a GGUF file in llama.cpp in a process of its own: a file that it does not take may end the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from lora_med.errors import IntegrityError

DRIVER = Path(__file__).with_name("trial_driver.py")
REASON = re.compile(r"GGML_ASSERT\(.*\) failed|error loading model[^:]*: .+|failed to load model.*: .+")


def check_runs(model: Path, *, context: int) -> None:
    """Refuse a file that llama.cpp cannot load or run.

    Raises:
        IntegrityError: with llama.cpp's own reason.
    """
    command = [sys.executable, "-P", str(DRIVER), str(model), str(context)]
    # llama.cpp would start a debugger on itself to print a trace of an abort
    result = subprocess.run(
        command, env={**os.environ, "GGML_NO_BACKTRACE": "1"}, capture_output=True, text=True, errors="replace"
    )
    if result.returncode == 0:
        return
    reasons = REASON.findall(result.stderr)
    reason = f": {reasons[0][:200]}" if reasons else f" (exit {result.returncode})"
    raise IntegrityError(
        f"llama.cpp {'aborts on' if result.returncode < 0 else 'cannot load'} the converted model{reason}",
        where=model.name,
        fix="lora-med merge writes a Hugging Face folder, which needs no llama.cpp; or try a newer llama.cpp",
    )

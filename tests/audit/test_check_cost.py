"""What `data check` costs: processor time and memory of the command as a user starts it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

MOST_CPU_SECONDS, MOST_MB = 20, 300
# The process's own peak: what wait4 reports counts the parent's memory before the program was replaced.
CHECK = """
import atexit, sys
from lora_med.cli.main import main
def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak in kB:", line.split()[1], file=sys.stderr)
atexit.register(peak)
main()
"""


def abstracts(path: Path, count: int) -> Path:
    """Rows of about 1,200 characters, as an abstract has, with a date and a name in every tenth."""
    rng = random.Random(3)
    beginnings, ends = ("ab", "cor", "des", "fi", "gly", "hem"), ("in", "oma", "itis", "ose", "al")
    words = [beginning + end for beginning in beginnings for end in ends]
    rows = []
    for n in range(count):
        text = " ".join(rng.choices(words, k=180)) + f" n = {n}."
        rows.append({"uid": str(n), "text": f"{text} Seen 3/14/2021 by Dr. Roe." if n % 10 == 0 else text})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ten_thousand_rows_take_twenty_processor_seconds_and_300_mb(tmp_path: Path) -> None:
    path = abstracts(tmp_path / "rows.jsonl", 10_000)
    command = [
        sys.executable,
        "-c",
        CHECK,
        "data",
        "check",
        "data.source=custom",
        f"data.paths=[{path}]",
        "adapter.access=open",
        "--json",
    ]
    with open(tmp_path / "out.json", "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(process.pid, 0)
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    assert os.waitstatus_to_exitcode(status) == 0, errors
    assert "PyTorch" not in errors
    (source,) = json.loads((tmp_path / "out.json").read_text())["sources"]
    assert source["records_with_identifiers"] == 1000
    assert usage.ru_utime + usage.ru_stime < MOST_CPU_SECONDS
    assert int(errors.rpartition("peak in kB:")[2]) / 1024 < MOST_MB

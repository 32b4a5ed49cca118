"""python benchmarks/quantized.py --data ../shared/data [--rounds 5]: a 4-bit base that is quantized once.

Seconds from the call that loads a base in NF4 to the model, where it must be quantized and where an earlier run kept
what came of it; by turns, each in a process of its own that has loaded the libraries. Gate: every tensor is the same to
the bit.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import Figure, keep, machine, own_dtype, parser_for, run_arm, spread
from shapes import make_model
from tqdm import tqdm


def load(folder: str, dtype: str, kept: bool) -> dict[str, Any]:
    """Load the base, and tell the seconds and the SHA-256 of its tensors and their quantization constants."""
    import bitsandbytes  # noqa: F401 - both arms pay for the import before the clock starts
    import torch

    from lora_med.models.base import load_base

    load_base("micro", quantization="4bit")
    begun = time.perf_counter()
    model = load_base(folder, quantization="4bit", dtype=dtype, keep_quantized=kept).model
    seconds = time.perf_counter() - begun
    digest = hashlib.sha256()
    for name, one in sorted(model.named_parameters()):
        digest.update(name.encode() + one.detach().contiguous().view(torch.uint8).numpy().tobytes())
        if (state := getattr(one, "quant_state", None)) is not None:
            nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
            for constants in (state.absmax, state.code, *nested):
                digest.update(constants.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"seconds": seconds, "sha256": digest.hexdigest()}


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = make_model(asked.shape, asked.data, Path(place) / "base")

        def run(arm: str) -> dict[str, Any]:
            told = json.dumps([str(folder), own_dtype(asked.dtype), arm == "kept"])
            return run_arm("quantized.py", [told], threads=asked.threads, XDG_CACHE_HOME=f"{place}/cache")

        run("kept")  # quantizes, and keeps
        found: dict[str, list[dict[str, Any]]] = {"quantized anew": [], "kept": []}
        for arm in tqdm([arm for _ in range(asked.rounds) for arm in found], desc="loads"):
            found[arm].append(run(arm))
    if len({one["sha256"] for rounds in found.values() for one in rounds}) > 1:
        sys.exit("the gate is not passed: what is kept is not what quantizing gives")
    seconds = {arm: [one["seconds"] for one in rounds] for arm, rounds in found.items()}
    print(f"{machine()}\n{asked.shape}, {asked.threads} threads; gate: all tensors are the same to the bit")
    for arm, taken in seconds.items():
        print(f"{arm}: {spread(taken, 2)} s")
    ratios = tuple(a / b for a, b in zip(*seconds.values(), strict=True))
    figure = Figure(f"loading a kept 4-bit base, {asked.shape}", ratios, "times", "at least 5", "the same to the bit")
    keep(f"quantized_{asked.shape}", [figure])
    print(f"{spread(ratios, 1)} times as fast")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(json.dumps(load(*json.loads(sys.argv[1]))))
    else:
        main()

"""python benchmarks/quantized.py --data ../shared/data [--rounds 5]: a 4-bit base that is quantized once.

Seconds from the call that loads a base in NF4 to the model: once where it must be quantized, once where an earlier run
cached the result. Alternating runs, each in a process of its own that has loaded the libraries. Correctness check:
every tensor is bit-identical.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import Figure, machine, own_dtype, parser_for, run_arm, save_figures, spread
from shapes import make_model
from tqdm import tqdm


def load(folder: str, dtype: str, cached: bool) -> dict[str, Any]:
    """Load the base; returns the seconds, and the SHA-256 of its tensors and their quantization constants."""
    import bitsandbytes  # noqa: F401 - both arms pay for the import before the clock starts
    import torch

    from lora_med.models.base import load_base

    load_base("micro", quantization="4bit")
    started = time.perf_counter()
    model = load_base(folder, quantization="4bit", dtype=dtype, keep_quantized=cached).model
    seconds = time.perf_counter() - started
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        digest.update(name.encode() + weight.detach().contiguous().view(torch.uint8).numpy().tobytes())
        if (state := getattr(weight, "quant_state", None)) is not None:
            nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
            for constants in (state.absmax, state.code, *nested):
                digest.update(constants.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"seconds": seconds, "sha256": digest.hexdigest()}


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--threads", type=int, default=2, help="of each arm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(arguments.shape, arguments.data, Path(temporary) / "base")

        def run(arm: str) -> dict[str, Any]:
            job = json.dumps([str(folder), own_dtype(arguments.dtype), arm == "cached"])
            return run_arm("quantized.py", [job], threads=arguments.threads, XDG_CACHE_HOME=f"{temporary}/cache")

        run("cached")  # quantizes, and fills the cache
        reports: dict[str, list[dict[str, Any]]] = {"quantized again": [], "cached": []}
        for arm in tqdm([arm for _ in range(arguments.rounds) for arm in reports], desc="loads"):
            reports[arm].append(run(arm))
    if len({report["sha256"] for rounds in reports.values() for report in rounds}) > 1:
        sys.exit("the correctness check failed: the cache does not hold what quantizing gives")
    seconds = {arm: [report["seconds"] for report in rounds] for arm, rounds in reports.items()}
    print(f"{machine()}\n{arguments.shape}, {arguments.threads} threads; all tensors are bit-identical")
    for arm, taken in seconds.items():
        print(f"{arm}: {spread(taken, 2)} s")
    ratios = tuple(a / b for a, b in zip(*seconds.values(), strict=True))
    name = f"loading a cached 4-bit base, {arguments.shape}"
    figure = Figure(name, ratios, "times", target="at least 5", correctness_check="bit-identical")
    save_figures(f"quantized_{arguments.shape}", [figure])
    print(f"{spread(ratios, 1)} times as fast")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(json.dumps(load(*json.loads(sys.argv[1]))))
    else:
        main()

"""Runs in a process of its own: load a GGUF file in llama.cpp and compute one token; an abort ends this process only.

Arguments: the file, and the number of tokens of its context.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main(model: str, context: int) -> None:
    """Load the file and compute a token; llama.cpp writes what is wrong to stderr."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.warmup = False
    params.fit_params = False
    server = xllamacpp.Server(params)
    server.handle_completions({"prompt": [1, 5, 6, 7], "max_tokens": 1, "temperature": 0})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

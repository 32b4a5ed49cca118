"""A GGUF file loaded in llama.cpp itself (through xllamacpp): its token ids, templates and log-probabilities.

Some functions of llama.cpp are available only over HTTP. So it listens on the loopback address with a one-time key.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import secrets
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError

TOP = 10
FORCED = 1e6  # added to the logit of the scored token, so that it is sampled; the reported values exclude it
TIMEOUT_SECONDS = 600
LOG_SECONDS = 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """llama.cpp's output for one row: nll of each token except the first, and the 10 likeliest at its position."""

    nll: list[float]
    top: list[dict[int, float]]


class LlamaServer:
    """One loaded GGUF; use `loaded` to make and close it."""

    def __init__(self, server: Any, key: str) -> None:
        self._server = server
        self._key = key
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _post(self, path: str, value: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self._server.listening_address}{path}",
            data=json.dumps(value).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.loads(answer.read())

    def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """The token ids of `text`, with control tokens parsed; `special` adds BOS if the model requires it."""
        return self._post("/tokenize", {"content": text, "add_special": special, "parse_special": True})["tokens"]

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The chat prompt that llama.cpp renders from `messages` with the template in the file."""
        return self._post("/apply-template", {"messages": list(messages)})["prompt"]

    def generate(self, ids: Sequence[int], most: int) -> list[int]:
        """The greedy continuation of `ids`, at most `most` tokens."""
        options = {"n_predict": most, "temperature": 0, "return_tokens": True}
        return self._post("/completion", {"prompt": list(ids), **options})["tokens"]

    def score(self, rows: Sequence[Sequence[int]], *, scales: Sequence[float] = ()) -> list[Scored]:
        """The log-probabilities at every position of each row; `scales` weigh the adapters, in the order loaded."""
        scored, last_log, scored_positions = [], time.monotonic(), 0
        total = sum(len(row) - 1 for row in rows)
        for row in rows:
            nll, top = [], []
            for position in range(1, len(row)):
                forced = [[row[position], FORCED]]
                sampled = self._complete(list(row[:position]), {"logit_bias": forced}, scales)
                if sampled["id"] != row[position]:
                    raise IntegrityError(f"llama.cpp sampled token {sampled['id']} where {row[position]} was forced")
                nll.append(-sampled["logprob"])
                top.append({likely["id"]: likely["logprob"] for likely in sampled["top_logprobs"]})
                scored_positions += 1
                if time.monotonic() - last_log > LOG_SECONDS:
                    last_log = time.monotonic()
                    logger.info("llama.cpp has scored %d of %d positions", scored_positions, total)
            scored.append(Scored(nll, top))
        return scored

    def _complete(self, ids: list[int], options: Mapping[str, Any], scales: Sequence[float]) -> dict[str, Any]:
        """The token that llama.cpp samples after `ids`, with its log-probability and the likeliest ones."""
        adapters = [{"id": number, "scale": scale} for number, scale in enumerate(scales)]
        request = {"prompt": ids, "max_tokens": 1, "temperature": 0, "n_probs": TOP, "cache_prompt": True, **options}
        answer = self._server.handle_completions({**request, **({"lora": adapters} if adapters else {})})
        content = (answer.get("choices", [{}])[0].get("logprobs") or {}).get("content")
        if not content:  # llama.cpp reports only tokens with text; a part of a letter alone has none
            raise IntegrityError(
                f"llama.cpp returned no log-probabilities after {len(ids)} tokens",
                where=str(answer.get("message", "a token that is part of a letter"))[:200],
            )
        return content[0]


@contextlib.contextmanager
def loaded(
    model: Path, *, context: int, adapters: Sequence[Path] = (), exact: bool = False, threads: int = 0
) -> Iterator[LlamaServer]:
    """`model` in llama.cpp on the CPU, with `context` tokens, and the adapters loaded but switched off.

    Args:
        exact: keep keys and values in float32 (16 bits is llama.cpp's default, and rounds).
        threads: 0 takes torch's number of threads.

    Raises:
        IntegrityError: llama.cpp cannot load it.
    """
    import torch

    xllamacpp: Any = importlib.import_module("xllamacpp")

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.warmup = False
    params.fit_params = False
    params.verbosity = -1
    params.cache_ram_mib = 0
    key = secrets.token_hex(16)
    params.api_keys = [key]
    for group in (params.cpuparams, params.cpuparams_batch):
        group.n_threads = threads or torch.get_num_threads()
    if exact:
        params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
        params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if adapters:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in adapters]
        params.lora_init_without_apply = True
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise IntegrityError(
            f"llama.cpp cannot load {model.name}" + (" with its adapter" if adapters else ""),
            where=str(model.parent),
            fix="report the model's type: the file was written, but llama.cpp does not accept it",
        ) from error
    try:
        yield LlamaServer(server, key)
    finally:
        del server

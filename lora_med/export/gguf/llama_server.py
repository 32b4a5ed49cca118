"""A GGUF file loaded in llama.cpp itself (through xllamacpp), asked for token ids, templates and log-probabilities.

llama.cpp answers some questions only over HTTP, so it listens on the loopback address with a key made for the occasion.
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
FORCED = 1e6  # added to a logit, so that the token we ask about is the one drawn; what is reported leaves it out
TIMEOUT_SECONDS = 600
SPEAK_SECONDS = 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """What llama.cpp says to one row: the nll of each token but the first, and the 10 likeliest in its place."""

    nll: list[float]
    top: list[dict[int, float]]


class LlamaServer:
    """One loaded GGUF; use `loaded` to make and close it."""

    def __init__(self, server: Any, key: str) -> None:
        self._server = server
        self._key = key
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _ask(self, path: str, value: Mapping[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self._server.listening_address}{path}",
            data=json.dumps(value).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return json.loads(answer.read())

    def tokens(self, text: str, *, special: bool = True) -> list[int]:
        """The token ids of `text`, control tokens read as such; `special` adds BOS where the model asks for it."""
        return self._ask("/tokenize", {"content": text, "add_special": special, "parse_special": True})["tokens"]

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The chat prompt that llama.cpp makes of `messages` with the template in the file."""
        return self._ask("/apply-template", {"messages": list(messages)})["prompt"]

    def generate(self, ids: Sequence[int], most: int) -> list[int]:
        """The greedy continuation of `ids`, at most `most` tokens."""
        options = {"n_predict": most, "temperature": 0, "return_tokens": True}
        return self._ask("/completion", {"prompt": list(ids), **options})["tokens"]

    def score(self, rows: Sequence[Sequence[int]], *, scales: Sequence[float] = ()) -> list[Scored]:
        """The log-probabilities at every position of each row; `scales` weigh the adapters, in the order loaded."""
        scored, told, done = [], time.monotonic(), 0
        whole = sum(len(row) - 1 for row in rows)
        for row in rows:
            nll, top = [], []
            for position in range(1, len(row)):
                forced = [[row[position], FORCED]]
                one = self._complete(list(row[:position]), {"logit_bias": forced}, scales)
                if one["id"] != row[position]:
                    raise IntegrityError(f"llama.cpp drew token {one['id']} where {row[position]} was forced")
                nll.append(-one["logprob"])
                top.append({found["id"]: found["logprob"] for found in one["top_logprobs"]})
                done += 1
                if time.monotonic() - told > SPEAK_SECONDS:
                    told = time.monotonic()
                    logger.info("llama.cpp has answered %d of %d positions", done, whole)
            scored.append(Scored(nll, top))
        return scored

    def _complete(self, ids: list[int], options: Mapping[str, Any], scales: Sequence[float]) -> dict[str, Any]:
        """The one token that llama.cpp draws after `ids`, with its log-probability and the likeliest ones."""
        adapters = [{"id": number, "scale": scale} for number, scale in enumerate(scales)]
        request = {"prompt": ids, "max_tokens": 1, "temperature": 0, "n_probs": TOP, "cache_prompt": True, **options}
        answer = self._server.handle_completions({**request, **({"lora": adapters} if adapters else {})})
        content = (answer.get("choices", [{}])[0].get("logprobs") or {}).get("content")
        if not content:  # a part of a letter alone has no text, and llama.cpp tells of tokens with text only
            raise IntegrityError(
                f"llama.cpp gave no log-probabilities after {len(ids)} tokens",
                where=str(answer.get("message", "a token that is part of a letter"))[:200],
            )
        return content[0]


@contextlib.contextmanager
def loaded(
    model: Path, *, context: int, adapters: Sequence[Path] = (), exact: bool = False, threads: int = 0
) -> Iterator[LlamaServer]:
    """`model` in llama.cpp on the CPU, with `context` tokens and the adapters at hand but switched off.

    Args:
        exact: keep keys and values in float32 (16 bits is llama.cpp's default, and rounds).
        threads: 0 takes as many as torch has.

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
            fix="report the model's type: the file was written, but is not what llama.cpp expects",
        ) from error
    try:
        yield LlamaServer(server, key)
    finally:
        del server

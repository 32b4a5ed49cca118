"""The engine: answers to many requests at once, over many adapters of one base, each by the weights that it names.

    with Engine(base, Limits()) as engine:
        engine.load("pubmedqa", open_published("pubmedqa"))
        tokens = engine.encode_chat("pubmedqa", [{"role": "user", "content": question}])
        for event in engine.submit(Ask("1", "pubmedqa", tokens, Sampling(max_tokens=64))):
            ...

One thread owns the model. It never waits for a caller, and no caller waits for an answer of another. A request is
bound to the content of its adapter when it is submitted, so what is loaded later under the same name is not its affair.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.store.published import AdapterFiles
from lora_med.adapters.store.store import check_name
from lora_med.models.base import Base
from lora_med.models.tokens.vocabulary import add_tokens, remove_tokens
from lora_med.serving.decoding import running_request
from lora_med.serving.decoding.answer_text import AnswerText
from lora_med.serving.decoding.choose_token import generator_of
from lora_med.serving.decoding.identity import digest
from lora_med.serving.decoding.loaded_adapters import LoadedAdapters, Version, base_version, version_of
from lora_med.serving.decoding.model_steps import ModelSteps
from lora_med.serving.decoding.running_request import RunningRequest, tokens_of
from lora_med.serving.decoding.scheduler import Scheduler
from lora_med.serving.requests import (
    Ask,
    BadRequest,
    Limits,
    Loaded,
    NotLoaded,
    Running,
    Sampling,
    Statistics,
    TooLong,
)


class Engine:
    """An engine on `base`, which is nobody else's until `stop`. All methods are thread-safe."""

    def __init__(self, base: Base, limits: Limits | None = None) -> None:
        """Make an engine; `start` lets it answer."""
        self.limits = limits or Limits()
        self.base = base
        self.fingerprint = base.fingerprint.weights
        self._bare = base_version(base)
        self._adapters = LoadedAdapters(self._bare)
        self._steps = ModelSteps(base)
        self._pool = AdapterPool(base, most_resident=self.limits.most_resident, read=self._adapters.read)
        self._scheduler = Scheduler(
            self._steps, self._pool, self._adapters, self.limits, (self.fingerprint, _identity(base))
        )
        self._thread = threading.Thread(target=self._scheduler.run, name="lora_med-engine", daemon=True)
        self._loading = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop(drain=False)

    @property
    def context(self) -> int | None:
        """The most tokens that a prompt and its answer have together, by the base's configuration."""
        return getattr(self.base.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def shares_passes(self) -> bool:
        """Whether requests are computed together; a base with its own kind of state computes them one by one."""
        return self._steps.together

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self, drain: bool) -> None:
        """Take no further request; with `drain` answer those that came, else stop them. Then free the base."""
        self._scheduler.stop(drain)
        if self._thread.is_alive():
            self._thread.join()
        self._pool.close()
        self._steps.close()

    def load(self, name: str, published: AdapterFiles) -> Loaded:
        """Let an adapter answer to a name, after all checks; under a name in use it replaces the adapter there.

        Requests that were submitted before finish on the weights that they began with. If this raises, nothing changes.

        Raises:
            SettingsError: the name cannot be one, or the adapter is of a kind that cannot be swapped.
            BaseMismatchError, IntegrityError: it does not fit the base.
        """
        check_name(name)
        with self._loading:
            version = version_of(name, published, self._bare)
            assert version.key is not None and version.loaded is not None
            added = bool(published.card.tokens) and self._between_steps(
                lambda: add_tokens(self.base, published.card.tokens)
            )
            self._adapters.register(version)
            try:
                self._pool.add(version.key, published)
            except BaseException:
                if added:
                    self._between_steps(lambda: remove_tokens(self.base.model))
                raise
            before = self._adapters.put(version)
        self._retire(before, version)
        return version.loaded

    def _between_steps(self, run: Callable[[], Any]) -> Any:
        """Run what changes the base while no forward pass does."""
        return self._scheduler.call(run) if self._thread.is_alive() else run()

    def unload(self, name: str) -> None:
        """Let no adapter answer to a name; requests that were submitted before finish.

        Raises:
            NotLoaded: no adapter has this name.
        """
        self._retire(self._adapters.remove(name), None)

    def _retire(self, before: Version | None, after: Version | None) -> None:
        """Free the memory of a version that nothing answers by, once no request uses it."""
        if before is not None and before.key is not None and (after is None or after.key != before.key):
            self._pool.drop(before.key)

    def loaded(self) -> list[Loaded]:
        """The adapters that can be asked, by name."""
        return self._adapters.all()

    def encode_chat(self, adapter: str | None, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """The tokens that an answer to these messages starts from, by the adapter's own template.

        Typed tags and control tokens in the contents stay text.

        Raises:
            NotLoaded: no adapter has this name.
            BadRequest: no template, or one that refuses these messages.
            TooLong: so many characters cannot be as few tokens as a prompt may have.
        """
        version = self._adapters.get(adapter)
        self._refuse_long(version, sum(len(str(message.get("content") or "")) for message in messages))
        return version.encode_chat(messages)

    def encode_text(self, adapter: str | None, text: str) -> tuple[int, ...]:
        """The tokens of a text to continue; control tokens in it stay text. Raises as `encode_chat`."""
        version = self._adapters.get(adapter)
        self._refuse_long(version, len(text))
        return version.encode_text(text)

    def text_of(self, adapter: str | None, token: int) -> str:
        """The text of a token alone."""
        return self._adapters.get(adapter).text_of(token)

    def submit(self, ask: Ask) -> Running:
        """Let a request wait for its turn; its events come from what is returned.

        Raises:
            NotLoaded: no adapter has this name, or another one has since `ask.identity` was read.
            BadRequest: a value is impossible.
            TooLong: it exceeds the context, a limit or the memory for keys and values.
            QueueFull: too many requests wait, or this key has too many.
            DependencyMissingError: it has a constraint, and llguidance is not installed.
        """
        version = self._adapters.get(ask.adapter)
        if ask.identity is not None and ask.identity != version.identity:
            raise NotLoaded(f"adapter {ask.adapter!r} was replaced while the request was prepared", fix="send it again")
        self._check(ask, version)
        form = None if ask.sampling.constraint is None else version.forms.open(ask.sampling.constraint)
        handle = RunningRequest(ask, version.loaded, self._scheduler.wake)
        sequence = running_request.Sequence(
            handle=handle,
            ask=ask,
            version=version,
            text=AnswerText(version.tokenizer, ask.sampling.stop),
            form=form,
            generator=generator_of(ask.sampling),
            size_bytes=self._steps.memory_bytes(tokens_of(ask)),
        )
        self._scheduler.enqueue(sequence)
        return handle

    def statistics(self) -> Statistics:
        """Counts since the start, and the state now."""
        names = ("finished", "cancelled", "failed", "refused", "prompt_tokens", "cached_prompt_tokens")
        names += ("completion_tokens", "steps", "swaps_from_disk", "split_passes")
        counts: dict[str, Any] = {name: self._scheduler.counts[name] for name in names}
        return Statistics(
            **counts,
            **self._scheduler.sizes(),
            kv_limit_bytes=self.limits.kv_memory,
            loaded=tuple(self.loaded()),
            resident=tuple(key.partition("@")[0] for key in self._pool.names),
            out_of_service=self._adapters.out_of_service(),
        )

    def _refuse_long(self, version: Version, letters: int) -> None:
        """Refuse a text that is far too long before it is cut into tokens, which others would wait for."""
        bounds = [bound for bound in (self.limits.max_prompt_tokens, self.context) if bound is not None]
        if bounds and letters > min(bounds) * version.longest_token:
            raise TooLong(
                f"the prompt may have {min(bounds)} tokens, and has {letters} characters", fix="send less, or ask less"
            )

    def _check(self, ask: Ask, version: Version) -> None:
        _check_sampling(ask.sampling, 0 if ask.echo_logprobs else 1)
        tokens, most = len(ask.tokens), ask.sampling.max_tokens
        if not tokens:
            raise BadRequest("the prompt has no tokens", where="prompt")
        if not all(0 <= token < version.words for token in ask.tokens):
            raise BadRequest("a token id of the prompt is not in the vocabulary", where="prompt")
        bounds = {
            "the prompt": (tokens, self.limits.max_prompt_tokens),
            "max_tokens": (most, self.limits.max_tokens),
            "the prompt and its answer": (tokens + most, self.context),
        }
        for what, (length, bound) in bounds.items():
            if bound is not None and length > bound:
                raise TooLong(f"{what} may have {bound} tokens, and would have {length}", fix="send less, or ask less")
        needed = self._steps.memory_bytes(tokens_of(ask))
        if needed > self.limits.kv_memory:
            raise TooLong(
                f"the request needs {needed} bytes for keys and values, and all requests may take "
                f"{self.limits.kv_memory}",
                fix="send less, or start the engine with more kv_memory",
            )


def _check_sampling(sampling: Sampling, fewest: int) -> None:
    wrong = {
        f"max_tokens is {sampling.max_tokens}; it must be at least {fewest}": sampling.max_tokens < fewest,
        f"temperature is {sampling.temperature}; it must be 0 or more": not (
            math.isfinite(sampling.temperature) and sampling.temperature >= 0
        ),
        f"top_p is {sampling.top_p}; it must be above 0 and at most 1": not 0 < sampling.top_p <= 1,
        f"logprobs is {sampling.logprobs}; it must be 0 or more": (sampling.logprobs or 0) < 0,
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise BadRequest(what)


def _identity(base: Base) -> str:
    """The digest of everything in a base that its keys and values depend on."""
    parts = base.fingerprint
    return digest(
        "base",
        weights=parts.weights,
        tokenizer=parts.tokenizer,
        quantization=f"{base.quantization} {base.double_quant}",
        dtype=base.dtype,
    )

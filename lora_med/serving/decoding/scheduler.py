"""The engine's thread: it admits requests in the order in which they came, computes prompts, and writes token by token.

Each step computes at most `BLOCK` tokens of prompts and one token for every answer that is being written. Between two
steps requests join and leave.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.selection import One
from lora_med.errors import LoraMedError
from lora_med.serving.decoding.capacity import Capacity
from lora_med.serving.decoding.loaded_adapters import LoadedAdapters
from lora_med.serving.decoding.model_steps import ModelSteps
from lora_med.serving.decoding.passes import Passes
from lora_med.serving.decoding.prefix_blocks import BLOCK, PrefixCache
from lora_med.serving.decoding.running_request import Sequence, tokens_of
from lora_med.serving.requests import Done, EngineError, Limits, NotFinite, NotLoaded, QueueFull, Stopped

logger = logging.getLogger(__name__)


class Scheduler:
    """Requests that wait and requests that run. `enqueue`, `call`, `wake` and `stop` are thread-safe."""

    def __init__(
        self, steps: ModelSteps, pool: AdapterPool, adapters: LoadedAdapters, limits: Limits, base: tuple[str, str]
    ) -> None:
        """`base` is the base's fingerprint, and its identity with quantization and dtype."""
        self._steps, self._pool, self._adapters, self._limits = steps, pool, adapters, limits
        self._changed = threading.Condition()
        self._signals = 0
        self._waiting: deque[Sequence] = deque()
        self._active: list[Sequence] = []
        self._per_key: Counter[str] = Counter()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stop: bool | None = None  # whether what is left is still answered
        self._prefixes = PrefixCache()
        self._capacity = Capacity(limits, self._prefixes)
        self._passes = Passes(steps, pool, self._capacity, self._prefixes, base)
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="lora_med-loader")
        self.counts: Counter[str] = Counter()

    def enqueue(self, sequence: Sequence) -> None:
        """Let a request wait for its turn.

        Raises:
            QueueFull: too many wait, or its key has too many.
            Stopped: the engine stops.
        """
        key = sequence.ask.key
        with self._changed:
            if self._stop is not None:
                raise Stopped("the engine is stopping")
            full = len(self._waiting) >= self._limits.max_queue
            if full or (key and self._per_key[key] >= self._limits.max_per_key):
                self.counts["refused"] += 1
                what = f"{self._limits.max_queue} requests wait" if full else "this key has too many requests"
                raise QueueFull(f"{what}; try again later")
            self._per_key[key] += 1
            self._waiting.append(sequence)
            self._signal()

    def call(self, run: Callable[[], Any]) -> Any:
        """Run a function between two steps, in the engine's thread, and return what it returns."""
        future: Future[Any] = Future()
        with self._changed:
            if self._stop is not None:
                raise Stopped("the engine is stopping")
            self._calls.append((run, future))
            self._signal()
        return future.result()

    def wake(self) -> None:
        """Let the engine's thread look at what has changed."""
        with self._changed:
            self._signal()

    def stop(self, drain: bool) -> None:
        """Take no further request; with `drain`, answer those that are here, else stop them too."""
        with self._changed:
            self._stop = drain if self._stop is None else self._stop and drain
            self._signal()

    def sizes(self) -> dict[str, int]:
        """How many requests run and wait, and the bytes of keys and values that are reserved or cached."""
        with self._changed:
            in_use = self._capacity.reserved_bytes + self._prefixes.size_bytes
            return {"running": len(self._active), "waiting": len(self._waiting), "kv_bytes": in_use}

    def run(self) -> None:
        """The thread's loop, until `stop`."""
        while True:
            with self._changed:
                seen, drain = self._signals, self._stop
            self._run_calls()
            if drain is False or (drain and not self._active and not self._waiting):
                break
            try:
                worked = self._step()
            except Exception as error:  # a fault in one step must not end the service; its requests are told
                # No message: that of a library may hold anything. The place says enough to find the fault.
                place = traceback.extract_tb(error.__traceback__)[-1]
                logger.error("a step failed: %s at %s:%s", type(error).__name__, place.filename, place.lineno)
                for sequence in self._started():
                    self._end(sequence, EngineError(f"request {sequence.ask.id} failed: internal error"))
                worked = True
            if not worked:
                with self._changed:
                    self._changed.wait_for(lambda seen=seen: self._signals != seen)
        self._loader.shutdown(wait=True)
        self._drop_waiting(lambda sequence: True)
        for sequence in list(self._active):
            self._end(sequence, Stopped(f"request {sequence.ask.id} was stopped: the engine stops"))
        self._run_calls()

    def _signal(self) -> None:
        self._signals += 1
        self._changed.notify_all()

    def _run_calls(self) -> None:
        while True:
            with self._changed:
                if not self._calls:
                    return
                run, future = self._calls.popleft()
            try:
                future.set_result(run())
            except BaseException as error:
                future.set_exception(error)

    def _step(self) -> bool:
        """One step; False if there was nothing to do."""
        self._drop_cancelled()
        self._admit()
        ready = [sequence for sequence in self._active if sequence.slots is not None]
        failed = [sequence for sequence in self._active if sequence.failure is not None]
        for sequence in failed:
            self._end(sequence, sequence.failure or EngineError("the adapter could not be loaded"))
        self._compute_prompts([sequence for sequence in ready if not sequence.is_decoding])
        for sequence, end in self._passes.write([sequence for sequence in ready if self._is_writing(sequence)]):
            self._end(sequence, end)
        self.counts["split_passes"] = self._passes.split_passes
        self.counts["steps"] += bool(ready)
        return bool(ready or failed)

    def _compute_prompts(self, sequences: list[Sequence]) -> None:
        """Compute about `BLOCK` tokens of prompts, those of the request that came first before others."""
        budget = BLOCK
        for sequence in sequences:
            while budget > 0 and not sequence.is_decoding and not sequence.has_ended:
                tokens, end = self._passes.compute_prompt(sequence)
                budget -= tokens
                self._end(sequence, end)

    @staticmethod
    def _is_writing(sequence: Sequence) -> bool:
        return sequence.is_decoding and not sequence.has_ended and not sequence.handle.is_cancelled

    def _end(self, sequence: Sequence, end: Done | EngineError | None) -> None:
        """End a request, if it ends, and free what it has: its last event comes after that."""
        if end is None or sequence.has_ended:
            return
        if isinstance(end, NotFinite):
            self._adapters.take_out(sequence.version)
            self._drop_waiting(lambda waiting: waiting.version is sequence.version, end.what)
        sequence.has_ended, sequence.memory = True, None
        if sequence.slots is not None:
            self._pool.release(sequence.slots)
        with self._changed:
            self._active.remove(sequence)
            self._capacity.give_back(sequence)
            self._forget_key(sequence)
        key = sequence.version.key
        if key is not None and not self._capacity.uses(key):
            self._passes.forget_choice()
            if not self._adapters.is_current(sequence.version):
                self._pool.drop(key)
        kind = "finished" if isinstance(end, Done) else "cancelled" if isinstance(end, Stopped) else "failed"
        self.counts.update(
            {
                kind: 1,
                "prompt_tokens": sequence.computed,
                "cached_prompt_tokens": sequence.cached,
                "completion_tokens": sequence.written,
            }
        )
        sequence.handle.deliver(end)

    def _drop_cancelled(self) -> None:
        self._drop_waiting(lambda sequence: sequence.handle.is_cancelled)
        for sequence in self._started():
            if sequence.handle.is_cancelled:
                self._end(sequence, Stopped(f"request {sequence.ask.id} was cancelled"))

    def _started(self) -> list[Sequence]:
        """The admitted requests but for those whose adapter is still being loaded by another thread."""
        return [sequence for sequence in self._active if sequence.slots is not None or sequence.failure is not None]

    def _drop_waiting(self, is_dropped: Callable[[Sequence], bool], why: str | None = None) -> None:
        """Stop requests that have not begun; with `why`, their adapter is out of service."""
        with self._changed:
            dropped = [sequence for sequence in self._waiting if is_dropped(sequence)]
            if not dropped:
                return
            self._waiting = deque(sequence for sequence in self._waiting if sequence not in dropped)
            for sequence in dropped:
                self._forget_key(sequence)
        for sequence in dropped:
            self.counts["cancelled" if why is None else "failed"] += 1
            stopped = Stopped(f"request {sequence.ask.id} was stopped before it began")
            sequence.handle.deliver(stopped if why is None else NotLoaded(why))

    def _forget_key(self, sequence: Sequence) -> None:
        self._per_key[sequence.ask.key] -= 1
        if not self._per_key[sequence.ask.key]:
            del self._per_key[sequence.ask.key]

    def _admit(self) -> None:
        """Start requests in their order while they fit. Those whose adapter is on disk wait for it while others run."""
        while True:
            with self._changed:
                if not self._waiting or not self._capacity.take(self._waiting[0]):
                    return
                sequence = self._waiting.popleft()
                self._active.append(sequence)
            key = sequence.version.key
            if key is None or key in self._pool.names:
                self._hold(sequence)
            else:
                self.counts["swaps_from_disk"] += 1
                self._loader.submit(self._hold, sequence)

    def _hold(self, sequence: Sequence) -> None:
        """Keep a request's adapter in memory until its end, and give it its memory; in any thread."""
        try:
            if sequence.version.key is not None:
                self._adapters.register(sequence.version)  # a later load of the same content may have come and gone
            slots, choice = self._pool.hold([sequence.version.key])
            sequence.alone = isinstance(choice, One) and bool(choice.adapter.experts)
            try:
                sequence.memory = self._steps.memory(tokens_of(sequence.ask))
            except BaseException:
                self._pool.release(slots)
                raise
            sequence.slots = slots
        except LoraMedError as error:
            sequence.failure = NotLoaded(error.what, where=error.where, fix=error.fix)
        except Exception as error:  # out of memory has many forms
            logger.warning("request %s cannot start: %s", sequence.ask.id, type(error).__name__)
            sequence.failure = EngineError(f"request {sequence.ask.id} cannot start ({type(error).__name__})")
        self.wake()

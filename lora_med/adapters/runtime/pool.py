"""A pool of adapters on one base: each forward pass uses one, one per row, or none. The base is never changed.

Each linear layer of the base gets a forward hook, which adds the update of the running thread's adapter. A module of
routed experts reads weights that are folded for one pass. No weight is changed. A choice therefore takes microseconds,
and several threads may run different adapters on the same model at once. Outside `use` the model is bit-identical to
the bare base.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch

from lora_med.adapters.runtime.attach import refuse_occupied
from lora_med.adapters.runtime.expert_forward import replace_forward
from lora_med.adapters.runtime.layer_update import Adapter, make_adapter
from lora_med.adapters.runtime.selection import Mixture, One, Rows, chosen, expert_updates, holding
from lora_med.adapters.runtime.token_hooks import embedded, scored
from lora_med.adapters.store.published import AdapterFiles, fit_to, open_files
from lora_med.adapters.store.store import STORE, find_adapter
from lora_med.errors import SettingsError
from lora_med.models.base import Base
from lora_med.models.structure.expert_stacks import expert_stacks
from lora_med.models.structure.linear_layers import linear_layers
from lora_med.models.tokens.vocabulary import head_of, remove_tokens, tokens_of

MOST_RESIDENT = 8
# A stack may hold this many times the adapters that a batch names, so that most batches reuse a stack. Its cost grows
# with the adapters it holds: for 8 decoding rows it took 0.23, 0.41 and 0.80 ms a layer with 8, 16 and 32 adapters.
WIDEST = 2


@dataclass(eq=False)
class _Slot:
    """An adapter's slot in memory; `users` counts the blocks that use it now."""

    ready: Future[Adapter] = field(default_factory=Future)
    users: int = 0


class AdapterPool:
    """A base with at most `most_resident` adapters in memory; `use` runs it, `close` removes the hooks.

    A named adapter that is not in memory is loaded from the store, after all checks that `attach` makes. The least
    recently used adapter is evicted for it. Each takes its own size in float32, and twice that while batches are mixed.
    `base.model` runs and generates as before; where no adapter is chosen it is the bare base.

    If one of the adapters trained tokens, `base.tokenizer` has them from then on. Each row uses its own adapter's rows
    of them. Under the others a new token is read as its starting row, and is never predicted.
    """

    def __init__(
        self,
        base: Base,
        store: Path | str = STORE,
        *,
        most_resident: int = MOST_RESIDENT,
        opened: Sequence[AdapterFiles] = (),
        read: Callable[[str], AdapterFiles] | None = None,
    ) -> None:
        """Make a pool on `base`; an adapter in `opened` is loaded from its verified bytes, not from the store.

        With `read`, the files of an adapter are what it returns for the adapter's name, and `store` is not used.
        """
        if most_resident < 1:
            raise SettingsError(f"most_resident is {most_resident}", fix="set at least 1")
        refuse_occupied(base)
        self.base = base
        self.model = base.model
        self.store = Path(store)
        self._read = read or (lambda name: open_files(find_adapter(name, self.store)))
        self._opened = {adapter.name: adapter for adapter in opened}
        self.most_resident = most_resident
        self.key = object()  # the hooks refer to this key and not to the pool, so an unused pool is freed
        self._slots: OrderedDict[str, _Slot] = OrderedDict()  # least recently used first
        self._changed = threading.Condition()
        self._mixture = Mixture(())
        hooks = [
            base.model.get_submodule(layer.name).register_forward_hook(partial(_add, self.key, layer.name))
            for layer in linear_layers(base.model)
        ]
        experts = {stack.module: None for stack in expert_stacks(base.model)}
        hooks += [replace_forward(base.model.get_submodule(module), expert_updates) for module in experts]
        self._had_tokens = tokens_of(base.model) is not None
        hooks.append(base.model.get_input_embeddings().register_forward_hook(partial(_embed, self.key, base)))
        head = head_of(base.model)
        if head is not None:
            hooks.append(head.register_forward_hook(partial(_score, self.key, base)))
        self._remove_hooks = weakref.finalize(self, _remove, hooks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters in memory, the least recently used first."""
        with self._changed:
            return tuple(name for name, slot in self._slots.items() if slot.ready.done())

    def close(self) -> None:
        """Remove the hooks, the adapters and their tokens: the base is as it was. Call it when no thread runs it."""
        self._remove_hooks()
        if not self._had_tokens:
            remove_tokens(self.model)
        with self._changed:
            self._slots.clear()
            self._mixture = Mixture(())
            self._changed.notify_all()

    def hold(self, names: Sequence[str | None]) -> tuple[list[_Slot], One | Rows | None]:
        """Bring the named adapters into memory and keep them there until `release`; None is the bare base.

        Returns the slots for `release`, and the choice for a batch with these names: one for all rows or one for each.

        Raises:
            SettingsError: more different adapters than fit in memory at once, or the pool is closed.
            InputMissingError, BaseMismatchError, IntegrityError: as `attach`.
        """
        wanted = list(dict.fromkeys(name for name in names if name is not None))
        if len(wanted) > self.most_resident:
            raise SettingsError(
                f"one batch names {len(wanted)} adapters, and {self.most_resident} may be in memory at once",
                fix="set a larger most_resident, or use smaller batches",
            )
        slots = self._reserve(wanted) if wanted else []
        try:
            adapters = dict(zip(wanted, [slot.ready.result() for slot in slots], strict=True))
            rows = [None if name is None else adapters[name] for name in names]
            if len(set(rows)) == 1:
                return slots, None if rows[0] is None else One(rows[0])
            return slots, Rows(rows, self._mix(list(adapters.values())))
        except BaseException:
            self.release(slots)
            raise

    def release(self, slots: Sequence[_Slot]) -> None:
        """Allow the adapters that `hold` returned to be evicted when their slots are needed."""
        with self._changed:
            for slot in slots:
                slot.users -= 1
            self._changed.notify_all()

    def add(self, name: str, files: AdapterFiles) -> bool:
        """Check that an adapter can run, and put it into memory under this name if a slot is free or idle.

        This never waits. Returns whether it is in memory now; if not, `hold` loads it when a slot is idle.

        Raises:
            SettingsError: it is of a kind that cannot be swapped, or the pool is closed.
            BaseMismatchError, IntegrityError: as `attach`.
        """
        adapter = self._make(name, files)
        with self._changed:
            if name not in self._slots and self._evict([name]):
                self._slots[name] = _Slot()
                self._slots[name].ready.set_result(adapter)
            return name in self._slots

    def drop(self, name: str) -> None:
        """Free an adapter's memory, if it is in memory and idle."""
        with self._changed:
            slot = self._slots.get(name)
            if slot is not None and not slot.users:
                self._remove_slot(name)
                self._changed.notify_all()

    def _reserve(self, wanted: Sequence[str]) -> list[_Slot]:
        """Slots for all the wanted adapters at once. New ones are loaded; another thread may still be loading others.

        A thread waits for a free slot only while it holds none itself, so no two threads can wait for each other.
        """
        with self._changed:
            while not self._evict(wanted):
                if holding():
                    raise SettingsError(
                        f"no free slot for {', '.join(map(repr, wanted))}: all {self.most_resident} slots are in use, "
                        "at least one by a block around this one",
                        fix="set a larger most_resident, or leave the outer `use` first",
                    )
                self._changed.wait()
            new = [name for name in wanted if name not in self._slots]
            slots = [self._slots.setdefault(name, _Slot()) for name in wanted]
            for name, slot in zip(wanted, slots, strict=True):
                slot.users += 1
                self._slots.move_to_end(name)
        for name, slot in zip(wanted, slots, strict=True):
            if name in new:
                self._load(name, slot)
        return slots

    def _evict(self, wanted: Sequence[str]) -> bool:
        """Evict idle adapters until the wanted ones fit; False, with nothing evicted, if too many are in use."""
        if not self._remove_hooks.alive:  # checked after each wait: the pool may have been closed meanwhile
            raise SettingsError("this adapter pool is closed", fix="make a new AdapterPool on the same base")
        others = [name for name in self._slots if name not in wanted]
        surplus = len(wanted) + len(others) - self.most_resident
        idle = [name for name in others if not self._slots[name].users]
        if surplus > len(idle):
            return False
        for name in idle[: max(surplus, 0)]:
            self._remove_slot(name)
        return True

    def _remove_slot(self, name: str) -> None:
        removed = self._slots.pop(name)
        if removed.ready.result() in self._mixture.adapters:
            self._mixture = Mixture(())

    def _load(self, name: str, slot: _Slot) -> None:
        """Fill a reserved slot; every thread that waits for it gets the adapter, or the same error."""
        try:
            # the first load frees the bytes; after an eviction the files are read and checked again
            slot.ready.set_result(self._make(name, self._opened.pop(name, None) or self._read(name)))
        except BaseException as error:
            with self._changed:
                if self._slots.get(name) is slot:
                    del self._slots[name]
                self._changed.notify_all()
            slot.ready.set_exception(error)

    def _make(self, name: str, files: AdapterFiles) -> Adapter:
        method, tensors = fit_to(files, self.base)
        return make_adapter(name, self.model, method, tensors)

    def _mix(self, adapters: Sequence[Adapter]) -> Mixture:
        """A mixture that holds these adapters: the last mixture, or a new one of all in memory or of these alone."""
        with self._changed:
            mixed = self._mixture.adapters
            if not (set(adapters) <= set(mixed) and len(mixed) <= WIDEST * len(adapters)):
                ready = [slot.ready for slot in self._slots.values()]
                resident = [future.result() for future in ready if future.done() and not future.exception()]
                narrow = len(resident) > WIDEST * len(adapters)
                # in the order of their names: rows in that order need not be rearranged
                self._mixture = Mixture(tuple(sorted(adapters if narrow else resident, key=lambda one: one.name)))
            return self._mixture


def _embed(key: object, base: Base, module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    """Refuse a batch of other rows than are named, where its rows are still apart from its tokens; embed the tokens."""
    choice = chosen(key)
    if isinstance(choice, Rows):
        choice.check(output)
    return embedded(module, tokens_of(base.model), choice, inputs[0], output)


def _score(key: object, base: Base, module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    """The forward hook of the head: the scores of the trained tokens."""
    return scored(module, tokens_of(base.model), chosen(key), inputs[0], output)


def _add(key: object, layer: str, module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    """The forward hook: add, in place, the update that the running context has chosen."""
    choice = chosen(key)
    if choice is not None:
        choice.add(layer, inputs[0], output)


def _remove(hooks: Sequence[Any]) -> None:
    for hook in hooks:
        hook.remove()

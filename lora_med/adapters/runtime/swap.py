"""Several adapters on one loaded base: `with use(pool, "pubmedqa"):` swaps in microseconds and restores exactly.

The choice belongs to the thread (or asynchronous task) that runs the forward pass. Threads may use different adapters
of one pool at the same time, and outside `use` the model is the bare base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lora_med.adapters.runtime.pool import MOST_RESIDENT, AdapterPool
from lora_med.adapters.runtime.selection import Rows, choose
from lora_med.adapters.store.published import AdapterFiles
from lora_med.adapters.store.store import STORE
from lora_med.errors import SettingsError
from lora_med.models.base import Base
from lora_med.models.generation import before_end, stop_ids


def load_many(
    base: Base, names: Sequence[str], store: Path | str = STORE, *, opened: Sequence[AdapterFiles] = ()
) -> AdapterPool:
    """An adapter pool with all the named adapters in memory; its capacity is at least their number.

    Args:
        opened: the adapters that are already open; the others are opened in the store.

    Raises:
        SettingsError: no name, or the same name twice.
        BaseMismatchError, IntegrityError: as `attach`; the base is then unchanged.
    """
    if not names:
        raise SettingsError("no adapter is named", fix="name at least one; lora-med adapters list shows them")
    if len(set(names)) < len(names):
        raise SettingsError(f"an adapter is named twice among {', '.join(names)}", fix="name each adapter once")
    pool = AdapterPool(base, store, most_resident=max(MOST_RESIDENT, len(names)), opened=opened)
    try:
        slots, _ = pool.hold(names)
    except BaseException:
        pool.close()
        raise
    pool.release(slots)
    return pool


@contextmanager
def use(pool: AdapterPool, name: str | Sequence[str | None] | None) -> Iterator[Any]:
    """Run `pool.model` with adapter `name`, or as the bare base with None; on exit the previous choice is restored.

    A sequence names an adapter, or None, for each row of the batch. Blocks may be nested, and an error restores too.
    Only the running thread or task is affected: a thread that is started inside runs the bare base until it enters
    `use` itself. If all slots are in use, the call waits for a free one; in a task this blocks the whole event loop.

    Raises:
        SettingsError: more different adapters than fit in memory, no slot can ever become free, or an adapter of
            routed experts is named for some of the rows alone.
        InputMissingError, BaseMismatchError, IntegrityError: the adapter is not in memory and cannot be loaded.
    """
    slots, choice = pool.hold([name] if name is None or isinstance(name, str) else name)
    try:
        if isinstance(choice, Rows):
            choice.refuse_experts()
        with choose(pool.key, choice):
            yield pool.model
    finally:
        pool.release(slots)


def generate_rows(
    pool: AdapterPool,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str | None],
    *,
    max_new_tokens: int = 128,
) -> list[list[int]]:
    """New token ids for each prompt, decoded greedily in one batch.

    Row i uses adapter `names[i]`; None is the bare base. The end token is not returned.
    """
    if len(prompts) != len(names):
        raise SettingsError(f"{len(prompts)} prompts but {len(names)} adapter names", fix="give one name per prompt")
    if not prompts:
        return []
    if not all(prompts):
        raise SettingsError("a prompt has no tokens", where=f"prompt {[bool(row) for row in prompts].index(False)}")
    model = pool.model
    width, pad = max(map(len, prompts)), tokenizer.pad_token_id
    ends = stop_ids(model, tokenizer)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=model.device)
    with use(pool, names), torch.inference_mode():
        sequences = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=ends,
        )
    return [before_end(row[width:].tolist(), ends) for row in sequences]

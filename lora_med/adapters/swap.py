"""Several adapters on one loaded base: `with use(model, "pubmedqa"):` swaps in milliseconds and restores exactly.

Which adapter is active is a state of the whole model. `use` therefore holds a lock on the model: a second thread waits
until the first has left. Code that runs the model outside `use` sees whatever stands; a server that mixes adapters in
one batch takes `generate_rows`, which names an adapter per row and leaves that state alone.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_med.adapters.attach import attach
from lora_med.adapters.start import START
from lora_med.adapters.store import STORE
from lora_med.adapters.weights import lora_layers
from lora_med.config.names import unknown
from lora_med.errors import SettingsError
from lora_med.models.base import Base, stop_ids

BARE = "__base__"  # PEFT's name for no adapter, per row
_LOCKS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def load_many(base: Base, names: Sequence[str], store: Path | str = STORE) -> Any:
    """One PeftModel with all the named adapters attached, the first of them active.

    Raises:
        SettingsError: no name, or the same name twice.
        BaseMismatchError, IntegrityError: as `attach`, before any is attached out of turn.
    """
    if not names:
        raise SettingsError("no adapter is named", fix="name at least one; lora-med adapters list")
    model = attach(base, names[0], store)
    for name in names[1:]:
        attach(base, name, store, onto=model)
    model.set_adapter(names[0], inference_mode=True)
    return model


@contextmanager
def use(model: Any, name: str | None) -> Iterator[Any]:
    """Run `model` with adapter `name`, or as the bare base with None; on leaving, whatever was active is again.

    May be nested, and restores after an error too. Other threads that call `use` on the same model wait.

    Raises:
        SettingsError: no such adapter is attached, or the bare base is asked of a model whose base was moved.
    """
    if name is not None and name not in model.peft_config:
        raise SettingsError(unknown("attached adapter", name, model.peft_config), fix="attach it first, or load_many")
    if name is None and getattr(model, START, None) is not None:
        raise SettingsError(
            "the bare base is not in this model: its adapter's start moved it (PiSSA, OLoRA)", fix="load the base anew"
        )
    with _lock(model):
        layers = list(lora_layers(model).values())
        before = _state(model, layers)
        try:
            for layer in layers:
                if name is not None:
                    layer.enable_adapters(True)
                    layer.set_adapter(name, inference_mode=True)
                else:
                    layer.enable_adapters(False)
            if name is not None:
                model.active_adapter = name
                model.base_model.active_adapter = name
            yield model
        finally:
            _restore(model, before)


def _lock(model: Any) -> Any:
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(model, threading.RLock())


def _state(model: Any, layers: Sequence[Any]) -> tuple[Any, ...]:
    switches = [(layer, layer.disable_adapters, list(layer.active_adapters)) for layer in layers]
    gradients = [(one, one.requires_grad) for layer in layers for one in layer.parameters()]
    return switches, gradients, model.active_adapter, model.base_model.active_adapter


def _restore(model: Any, state: tuple[Any, ...]) -> None:
    switches, gradients, outer, inner = state
    for layer, disabled, active in switches:
        layer.set_adapter(active, inference_mode=True)
        layer.enable_adapters(not disabled)
    for parameter, required in gradients:
        if parameter.requires_grad != required:
            parameter.requires_grad_(required)
    model.active_adapter = outer
    model.base_model.active_adapter = inner


def generate_rows(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str | None],
    *,
    max_new_tokens: int = 128,
) -> list[list[int]]:
    """New token ids for each prompt, greedily, row i by adapter `names[i]` (None: the bare base), in one batch.

    DoRA adapters cannot share a batch in PEFT: rows are then run adapter by adapter. The end token is not returned.
    """
    if len(prompts) != len(names):
        raise SettingsError(f"{len(prompts)} prompts but {len(names)} adapter names", fix="one name per prompt")
    strangers = [name for name in names if name is not None and name not in model.peft_config]
    if strangers:
        raise SettingsError(unknown("attached adapter", strangers[0], model.peft_config), fix="attach it first")
    if any(config.use_dora for config in model.peft_config.values()):
        answers: dict[int, list[int]] = {}
        for name in dict.fromkeys(names):
            rows = [number for number, other in enumerate(names) if other == name]
            with use(model, name):
                some = _generate(model, tokenizer, [prompts[row] for row in rows], max_new_tokens)
            answers |= dict(zip(rows, some, strict=True))
        return [answers[row] for row in range(len(prompts))]
    labels = [BARE if name is None else name for name in names]
    with use(model, next((name for name in names if name is not None), next(iter(model.peft_config)))):
        return _generate(model, tokenizer, prompts, max_new_tokens, adapter_names=labels)


def _generate(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, **more: Any
) -> list[list[int]]:
    import torch

    width, pad = max(map(len, prompts)), tokenizer.pad_token_id
    device, ends = model.get_base_model().device, stop_ids(model.get_base_model(), tokenizer)
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    with torch.inference_mode():
        whole = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=ends,
            **more,
        )
    return [_before_end(row[width:].tolist(), ends) for row in whole]


def _before_end(row: list[int], ends: Sequence[int]) -> list[int]:
    return row[: next((place for place, number in enumerate(row) if number in ends), len(row))]

"""Attach an adapter to a base: a new one to train, or a published one to use. An adapter of another base is refused.

The adapter is checked before PEFT sees it: the base's fingerprint, the files' hashes, and each tensor's name, shape
and finiteness. A path or base name in an adapter's file is never loaded.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.expert_checks import check_experts
from lora_med.adapters.runtime.peft_injection import check_attached, named_layers_only
from lora_med.adapters.runtime.zero_rows import keep_zero_rows
from lora_med.adapters.store.published import AdapterFiles, fit_to, open_files
from lora_med.adapters.store.store import STORE, check_loadable, find_adapter
from lora_med.adapters.tensors.initialize import PEFT_NAMES, START, check_start, seeded, start_from_base
from lora_med.adapters.tensors.method import method_for
from lora_med.adapters.tensors.same_shape import refuse_other_shape
from lora_med.adapters.tensors.token_rows import refuse_other_tokens, start_tokens, train_tokens
from lora_med.adapters.tensors.weights import adapter_parameters, put_tensors
from lora_med.config.schema import LoraSettings
from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.base import Base
from lora_med.models.structure.adaptable_layers import describe_reach
from lora_med.models.tokens.vocabulary import remove_tokens

logger = logging.getLogger(__name__)


def attach_new(
    base: Base,
    lora: LoraSettings,
    *,
    seed: int,
    store: Path | str = STORE,
    rows: Sequence[Sequence[int]] | None = None,
) -> Any:
    """A PeftModel with one new trainable adapter, "default", in float32; `base.model` is changed in place.

    With `lora.trainable_tokens` the base gets these tokens first, if it does not have them yet.

    Args:
        seed: for the initial weights. The same seed gives the same adapter; the random state outside is unchanged.
        store: the folder in which `lora.continue_from` is looked up.
        rows: token ids of some training rows, for `eva`.

    Raises:
        SettingsError: a name, pattern or combination is impossible.
        BaseMismatchError: `continue_from` names an adapter of another base.
    """
    from peft import get_peft_model

    refuse_occupied(base)
    keep_zero_rows()
    method = train_tokens(method_for(base.model, lora), base, lora.trainable_tokens)
    stacks = method.stacks(base.model)
    logger.info("adapter: %s", describe_reach(base.model, method.targets(base.model), stacks))
    check_start(method, base, rows)
    check_experts(stacks, base.folder)
    tensors = None
    if lora.continue_from is not None:
        parent = open_files(find_adapter(lora.continue_from, store))
        refuse_other_tokens(parent.card.tokens, lora.trainable_tokens, lora.continue_from)
        stored, tensors = fit_to(parent, base)
        refuse_other_shape(method, stored, lora.continue_from)
    with seeded(seed):
        with _without_peft_noise(), named_layers_only():
            config = method.peft_config(base.model, inference=False, init=PEFT_NAMES[lora.init_lora_weights])
            model: Any = get_peft_model(base.model, config)
        check_attached(model, "default", method.expected(model.get_base_model()))
        start_tokens(model, "default")
        start_from_base(model, base, method, rows)
    if tensors is not None:
        put_tensors(model, "default", tensors)
    return model


def attach(base: Base, name: str, store: Path | str = STORE, *, onto: Any = None) -> Any:
    """A PeftModel with the published adapter `name` attached for inference: frozen, active, in eval mode.

    Args:
        onto: a PeftModel that `attach` made from the same base; this adapter is added to it.

    Raises:
        InputMissingError: no such adapter.
        BaseMismatchError: it was trained on another base (weights, tokenizer or template differ).
        IntegrityError: a file differs from the published one, or a tensor does not fit.
    """
    check_loadable(name)
    return attach_opened(base, open_files(find_adapter(name, store)), onto=onto)


def attach_opened(base: Base, adapter: AdapterFiles, *, onto: Any = None) -> Any:
    """The result of `attach` for an adapter that is already open: its verified bytes are used, and no file is read.

    Raises:
        SettingsError: `base` or `onto` cannot take the adapter.
        BaseMismatchError, IntegrityError: as `attach`.
    """
    from peft import PeftModel

    name = check_loadable(adapter.name)
    method, tensors = fit_to(adapter, base)
    keep_zero_rows()
    config = method.peft_config(base.model if onto is None else onto.get_base_model(), inference=True)
    if onto is None:
        refuse_occupied(base)
        with _without_peft_noise(), named_layers_only():
            model: Any = PeftModel(base.model, config, adapter_name=name)
    elif onto.get_base_model() is not base.model:
        raise SettingsError(
            "`onto` carries the adapters of another base object", fix="pass the Base that `onto` was made from"
        )
    elif name in onto.peft_config:
        raise SettingsError(f"adapter {name!r} is already attached", fix="name each adapter once")
    else:
        model = onto
        with named_layers_only():
            model.add_adapter(name, config)
    if tensors.keys() == adapter_parameters(model, name).keys():
        put_tensors(model, name, tensors)
    else:
        _put_by_peft(model, name, tensors)
    model.set_adapter(name, inference_mode=True)
    return model.requires_grad_(False).eval()


def _put_by_peft(model: Any, name: str, tensors: dict[str, Any]) -> None:
    """Let PEFT load tensors other than updates of inner layers, then read them back: PEFT drops what it cannot load.

    PEFT holds fully trained layers in the base's precision, so these are compared after rounding to it.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    set_peft_model_state_dict(model, dict(tensors), adapter_name=name)
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    attached = {key: state[key].cpu() for key in tensors if key in state}
    lost = sorted(
        key
        for key, tensor in tensors.items()
        if key not in attached or not bool((attached[key] == tensor.to(attached[key].dtype)).all())
    )
    if lost:
        raise IntegrityError(f"PEFT did not take {len(lost)} of the adapter's tensors, such as {lost[0]!r}")


def detach(model: Any) -> None:
    """Remove every adapter, and their tokens: `base.model` is then as it was loaded, ready for another `attach`.

    Raises:
        SettingsError: PiSSA or OLoRA changed the base itself; load it again.
    """
    if getattr(model, START, None) is not None:
        raise SettingsError(
            "PiSSA or OLoRA moved the base's weights when this adapter was initialized", fix="load the base again"
        )
    bare = model.unload()
    if hasattr(bare, "peft_config"):
        del bare.peft_config
    remove_tokens(bare)


@contextmanager
def _without_peft_noise() -> Iterator[None]:
    """Suppress the warnings that PEFT raises about its own calls and about defaults that are intended."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*eva.*", category=UserWarning)
        # PEFT applies patterns to the parameters of routed experts, but looks for layers alone; we check both.
        warnings.filterwarnings("ignore", message=".*_pattern keys did not match any targeted module.*")
        warnings.filterwarnings("ignore", message=".*path_initial_model_for_weight_conversion.*", category=UserWarning)
        yield


def refuse_occupied(base: Base) -> None:
    """Refuse a base whose layers PEFT has already wrapped."""
    if any(name.endswith(".lora_A") for name, _ in base.model.named_modules()):
        raise SettingsError(
            "this base already has adapters",
            fix="attach(..., onto=model) adds one more; detach(model) removes them",
        )

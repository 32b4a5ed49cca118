"""The weights of a base: loaded frozen from safetensors, or from the cache of 4-bit weights, and checked for gaps."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lora_med.errors import DependencyMissingError, IntegrityError
from lora_med.models.building import BUILDING
from lora_med.models.files.quantized_cache import cache_path, is_cached, save_to_cache
from lora_med.models.files.resolve import model_class, read_config
from lora_med.models.precision import device_kind
from lora_med.models.quantize import is_sharded, keep_gradients_exact

logger = logging.getLogger(__name__)


def load_through_cache(folder: Path, config: Any, quantized: Any, dtype: str, attention: str) -> tuple[Any, bool]:
    """The 4-bit model, and whether it came from the cache; if not, it is quantized now and cached."""
    where, facts = cache_path(folder, quantized, dtype=dtype, device=device_kind())
    if is_cached(where, facts):
        with _without_garbage_collection():
            model = load_weights(where, read_config(where), None, dtype, attention)
        model.name_or_path = model.config._name_or_path = str(folder)
        return model, True
    model = load_weights(folder, config, quantized, dtype, attention)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with progress_on_terminals_only():
            save_to_cache(model, where, facts)
    return model, False


def load_weights(
    folder: Path, config: Any, quantized: Any, dtype: str, attention: str, *, head: Sequence[str] = ()
) -> Any:
    """The frozen model in eval mode; with `head`, a token classifier, whose head of these names is untrained.

    Raises:
        IntegrityError: files are truncated, or weights are absent.
        DependencyMissingError: they are in a form that another package reads.
    """
    import torch

    kind = model_class(config, tags=bool(head))
    device_map = _device_map(device_kind())
    try:
        with BUILDING, progress_on_terminals_only(), _without_report() if head else nullcontext():
            loaded: Any = kind.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, dtype),
                attn_implementation=attention,
                quantization_config=quantized,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=bool(head),  # a head of other tags; any other mismatch is refused below
            )
    except ImportError as error:  # of a quantized base, for one, whose library is not here
        raise DependencyMissingError(
            f"transformers cannot load this base without another package: {str(error).partition(chr(10))[0][:200]}",
            where=str(folder),
            fix="install what it names",
        ) from error
    except Exception as error:  # a damaged configuration raises many kinds
        raise IntegrityError(
            f"the weights do not fit config.json, or cannot be read ({type(error).__name__})",
            where=str(folder),
            fix="copy or download the model again",
        ) from error
    model, loading = loaded
    _check_loading(loading, folder, tuple(f"{name}." for name in head))
    keep_gradients_exact(model)
    model.requires_grad_(False)
    return model.eval()


def _device_map(device: str) -> dict[str, int | str] | None:
    """Where transformers puts the weights of a process that trains on "cpu", "cuda" or another device.

    A base to be sharded is loaded into host memory: without a map, every process would quantize it on the first GPU.
    """
    if device != "cuda":
        return None
    return {"": "cpu" if is_sharded() else int(os.environ.get("LOCAL_RANK", "0"))}


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the garbage collector: transformers copies its loading plan for each tensor, and a pass walks all copies.

    Do not use it for a load that quantizes: the garbage is then large.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def progress_on_terminals_only() -> Iterator[None]:
    """Keep transformers' loading bar out of log files."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers' table of the new head's missing weights out of the log; `_check_loading` checks them."""
    noisy = logging.getLogger("transformers.modeling_utils")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        yield
    finally:
        noisy.setLevel(before)


def _check_loading(loading: Any, folder: Path, head: tuple[str, ...]) -> None:
    """Transformers fills absent weights with random numbers and only warns; such a base is wrong without notice."""
    missing = sorted(name for name in loading["missing_keys"] if not name.startswith(head))
    misfit = sorted(str(entry) for entry in loading["mismatched_keys"] if not str(entry[0]).startswith(head))
    if missing or misfit:
        raise IntegrityError(
            f"{len(missing)} weights are absent and {len(misfit)} have another shape, such as {(missing + misfit)[0]}",
            where=str(folder),
            fix="copy or download the model again",
        )
    if loading["unexpected_keys"] and not head:  # a classifier leaves out the head that predicts words
        names = sorted(loading["unexpected_keys"])
        logger.warning("%d weights in %s match no layer of the model, such as %s", len(names), folder.name, names[0])

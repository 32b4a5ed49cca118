"""A base that is quantized on disk, as a base of full precision in the user's cache: its dequantized values.

The folder is complete or absent, and is made once for each base. A tensor that is not quantized keeps its bytes. A
quantized weight is computed in float32 and rounded once, to the dtype in which bitsandbytes saved it, else to that of
config.json (bfloat16 where it names none). `dequantized.json` binds the folder to the files that it was made from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lora_med.errors import DiskError, IntegrityError, LoraMedError
from lora_med.files import disk_errors, read_json, sha256_file, write_json
from lora_med.folders import fresh_folder, sweep_folders
from lora_med.models.files.made_once import made_once
from lora_med.models.files.weight_files import BITS, INDEX, SINGLE, Stored, is_finite, torch_dtype
from lora_med.models.fingerprint import weights_digest
from lora_med.models.on_disk.quantized_tensors import (
    COPY,
    QuantizedTensors,
    QuantizedWeight,
    quantized_tensors,
    read_tensor,
)
from lora_med.models.on_disk.quantized_weights import quant_state
from lora_med.models.on_disk.stored_quantization import (
    StoredQuantization,
    stored_quantization,
    without_quantization,
)
from lora_med.models.skeleton import skeleton
from lora_med.run import cache_home

FACTS = "dequantized.json"
FORMAT = 1  # of the folder; a new number makes every base again
SHARD_BYTES = 2_000_000_000
BESIDES = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*")
DTYPES = {"float64": "F64", "float32": "F32", "bfloat16": "BF16", "float16": "F16"}
logger = logging.getLogger(__name__)


def values_folder(folder: Path) -> Path:
    """The folder itself, or for a base that is quantized on disk that of its dequantized values, made now if absent.

    Raises:
        SettingsError, IntegrityError: as `stored_quantization` and `quantized_tensors`.
        OutputError, DiskError: the cache cannot be written.
    """
    stored = stored_quantization(folder)
    if stored is None:
        return folder
    facts = _facts(folder)
    target = _target(facts)
    if _is_complete(target, facts):
        return target
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with made_once(target, lambda: _is_complete(target, facts)) as is_there:
        if not is_there:
            sweep_folders(target)
            shutil.rmtree(target, ignore_errors=True)
            _write(folder, stored, target, facts)
    return target


def has_values(folder: Path) -> bool:
    """Whether `values_folder` has nothing to make: the base is in full precision, or its values are in the cache."""
    if stored_quantization(folder) is None:
        return True
    facts = _facts(folder)
    return _is_complete(_target(facts), facts)


def values_bytes(folder: Path) -> int:
    """The bytes of the dequantized values of the base in `folder`, which is quantized on disk; from headers alone."""
    stored = stored_quantization(folder)
    assert stored is not None
    return sum(size for _, _, size in _sizes(quantized_tensors(folder, stored), default_dtype(folder)))


def default_dtype(folder: Path) -> str:
    """The dtype, by safetensors' name, that config.json gives the weights."""
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    for settings in (config, text if isinstance(text, dict) else {}):
        name = str(settings.get("dtype") or settings.get("torch_dtype") or "").removeprefix("torch.")
        if name in DTYPES:
            return DTYPES[name]
    return "BF16"


def dtype_of(weight: QuantizedWeight, default: str) -> str:
    """The dtype, by safetensors' name, of a weight's dequantized values."""
    if "state" not in weight.parts:
        return default
    return DTYPES.get(str(quant_state(read_tensor(weight.parts["state"])).get("dtype")), default)


def transposed_weights(folder: Path) -> set[str]:
    """The weights that a full-precision base stores as (inputs, outputs): GPT-2's."""
    return _transposed(skeleton(folder))


def _transposed(model: Any) -> set[str]:
    from transformers.pytorch_utils import Conv1D

    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}


def _facts(folder: Path) -> dict[str, Any]:
    return {"format": FORMAT, "weights": weights_digest(folder), "config": sha256_file(folder / "config.json")}


def _target(facts: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return cache_home() / "dequantized" / name


def _is_complete(target: Path, facts: Mapping[str, Any]) -> bool:
    with contextlib.suppress(LoraMedError, KeyError, TypeError, OSError):
        entry = read_json(target / FACTS)
        return entry["facts"] == facts and entry["values"] == weights_digest(target)
    return False


def _write(folder: Path, stored: StoredQuantization, target: Path, facts: Mapping[str, Any]) -> None:
    tensors = quantized_tensors(folder, stored)
    default = default_dtype(folder)
    logger.info("%s: dequantizing %d weights (%s) into the cache, once", folder.name, len(tensors.weights), stored)
    started = time.monotonic()
    with fresh_folder(target) as out:
        _write_weights(tensors, default, skeleton(folder), out)
        for pattern in BESIDES:
            for path in folder.glob(pattern):
                if path.name not in (INDEX, FACTS):
                    shutil.copyfile(path, out / path.name)
        config = without_quantization(read_json(folder / "config.json"))
        write_json(out / "config.json", config)
        write_json(out / FACTS, {"facts": dict(facts), "values": weights_digest(out)})
    seconds = time.monotonic() - started
    logger.info("%s: dequantized in %.0f s", folder.name, seconds)


def _write_weights(tensors: QuantizedTensors, default: str, model: Any, out: Path) -> None:
    """Write all tensors in files of at most 2 GB each, or one tensor; `model` has their shapes."""
    from safetensors.torch import save_file

    transposed = _transposed(model)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    shards: list[list[tuple[QuantizedWeight | Stored, str]]] = [[]]
    total = filled = 0
    for item, dtype, size in _sizes(tensors, default):
        if filled and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((item, dtype))
        filled, total = filled + size, total + size
    _check_disk(total, out)
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        contents = {item.name: _tensor(item, dtype, transposed) for item, dtype in shard}
        _check_shapes(contents, shapes)
        with disk_errors(out / file):
            save_file(contents, out / file, metadata={"format": "pt"})
        index |= dict.fromkeys(contents, file)
    if len(shards) > 1:
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(index.items()))})


def _sizes(tensors: QuantizedTensors, default: str) -> Iterator[tuple[QuantizedWeight | Stored, str, int]]:
    """Each tensor with its dtype and its size in bytes."""
    for stored in tensors.kept.values():
        yield stored, stored.dtype, stored.size
    for weight in tensors.weights:
        dtype = dtype_of(weight, default)
        yield weight, dtype, count_of(weight) * BITS[dtype] // 8


def count_of(weight: QuantizedWeight) -> int:
    """The number of weights, by the sizes of the parts; padding of packed words included."""
    first = next(iter(weight.parts.values()))
    per_byte = {"scaled": 1, "bitsandbytes_8bit": 1}.get(weight.reader, 0) or 8 / weight.how.bits
    return math.ceil(first.size * per_byte)


def _tensor(item: QuantizedWeight | Stored, dtype: str, transposed: set[str]) -> Any:
    if isinstance(item, Stored):
        return read_tensor(item)
    numbers = item.values().numbers
    rounded = (numbers.T if item.name in transposed else numbers).to(torch_dtype(dtype)).contiguous()
    if not is_finite(rounded):
        where = str(next(iter(item.parts.values())).file)
        raise IntegrityError(f"{item.name!r} has values that are not finite in {dtype}", where=where, fix=COPY)
    return rounded


def _check_shapes(weights: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Refuse weights whose parts fit each other, and not the model that config.json describes."""
    for name, weight in weights.items():
        if name in shapes and weight.shape != shapes[name]:
            what = f"{name!r} is {list(weight.shape)} once dequantized, and config.json describes {list(shapes[name])}"
            raise IntegrityError(what, where="config.json", fix=COPY)


def _check_disk(needed: int, out: Path) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DiskError(
            f"the dequantized base needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(out.parent),
            fix="free some space, or set XDG_CACHE_HOME to a folder on another disk",
        )

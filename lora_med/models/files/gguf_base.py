"""A GGUF file as a base: its dequantized weights as safetensors in the user's cache, made once for each file.

The folder is complete or absent. It has `origin.json`: the SHA-256 of the file, its quantization, license and name.
Every value of the base is exactly the dequantized one: the weights are stored in 16 bits only if that loses nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from lora_med.errors import (
    DependencyMissingError,
    DiskError,
    InputMissingError,
    IntegrityError,
    SettingsError,
)
from lora_med.files import read_json, sha256_file, write_json
from lora_med.folders import fresh_folder, sweep_folders
from lora_med.models.building import BUILDING
from lora_med.models.files.file_cache import cache_file_for, cached_value
from lora_med.models.files.gguf_header import JOIN_PARTS, Header, begins_as_gguf, read_gguf_header
from lora_med.models.files.gguf_settings import ROTATION, check_kind, corrected
from lora_med.models.files.gguf_tokenizer import build_tokenizer, check_tokenizer
from lora_med.models.files.made_once import made_once
from lora_med.models.files.weight_files import INDEX, SINGLE, is_finite
from lora_med.run import cache_home

ORIGIN = "origin.json"
FORMAT = 1  # of the folder; a new number makes every base again
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
LINKED = "model.gguf"  # the name that transformers sees, whatever the file's own
logger = logging.getLogger(__name__)


def find_gguf(path: Path) -> Path | None:
    """The GGUF file that `path` is, or that a folder without a model of its own holds; None if there is none.

    Raises:
        SettingsError: a folder with several, a file in parts, or a file that is no model.
        InputMissingError, IntegrityError: a file that cannot be read, or is no GGUF although its name ends so.
    """
    if path.is_dir():
        if any((path / name).exists() for name in ("config.json", SINGLE, INDEX)):
            return None
        files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() == ".gguf")
        if not files:
            return None
        if len(files) > 1:
            what = "one model in parts" if all(PART.search(file.name) for file in files) else "several GGUF files"
            raise SettingsError(
                f"the folder holds {what}: {', '.join(file.name for file in files[:4])}",
                where=str(path),
                fix=JOIN_PARTS if what.startswith("one") else f"name the file: model.base={path / files[0].name}",
            )
        return find_gguf(files[0])
    if not path.is_file():
        return None
    if path.suffix.lower() == ".gguf" or begins_as_gguf(path):
        return path
    if not os.access(path, os.R_OK):
        raise InputMissingError("the file may not be read", where=str(path), fix="check its permissions")
    raise SettingsError(
        f"{path.name!r} is a file that is no GGUF; a base is a folder, a GGUF file, a Hub id or `micro`",
        where=str(path),
        fix="name the folder that holds config.json and the weights",
    )


def gguf_folder(file: Path) -> Path:
    """The folder of the base in the GGUF file; made now if the cache does not have it.

    Raises:
        DependencyMissingError: the package gguf is not installed, and the base is not in the cache.
        SettingsError, IntegrityError, InputMissingError: the file cannot be a base.
        OutputError, DiskError: the cache cannot be written.
    """
    if not begins_as_gguf(file):
        read_gguf_header(file)  # it says why
    digest = cached_value("sha256", cache_file_for([file], "gguf_files"), lambda: sha256_file(file))
    target = cache_home() / "gguf" / f"{digest[:32]}-{FORMAT}"
    if _is_complete(target, digest):
        return target
    header = read_gguf_header(file)
    check_kind(header)
    check_tokenizer(header)
    if importlib.util.find_spec("gguf") is None:
        raise DependencyMissingError(
            "a GGUF file as the base needs the package gguf, which is not installed",
            where="model.base",
            fix='pip install "lora-med[gguf]"',
        )
    with made_once(target, lambda: _is_complete(target, digest)) as is_there:
        if not is_there:
            sweep_folders(target)
            shutil.rmtree(target, ignore_errors=True)
            _convert(header, digest, target)
    return target


def read_origin(folder: Path) -> dict[str, Any]:
    """What a base in the cache was made from; empty for any other base."""
    path = folder / ORIGIN
    return read_json(path) if path.is_file() else {}


def _is_complete(target: Path, digest: str) -> bool:
    with contextlib.suppress(IntegrityError, KeyError, TypeError, AttributeError):
        return read_origin(target).get("sha256") == digest and (target / "config.json").is_file()
    return False


def _convert(header: Header, digest: str, target: Path) -> None:
    """Write the base of the GGUF file into the folder `target`."""
    values = sum(_count(tensor.shape) for tensor in header.tensors)
    free = shutil.disk_usage(target.parent).free
    if free < 4 * values:
        raise DiskError(
            f"the dequantized base needs up to {4 * values / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=str(target.parent),
            fix="free some space, or set XDG_CACHE_HOME to a folder on another disk",
        )
    started = time.monotonic()
    tokenizer = build_tokenizer(header)
    model = _load(header)
    dtype = _exact_dtype(header, model)
    model = model.to(dtype)
    model.config.dtype = dtype
    with fresh_folder(target) as folder:
        with contextlib.redirect_stderr(io.StringIO()):
            model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / ORIGIN, _origin(header, digest, str(dtype).removeprefix("torch.")))
    seconds = time.monotonic() - started
    logger.info("%s: dequantized into a base of %s values in %.0f s", header.file.name, f"{values:,}", seconds)


def _load(header: Header) -> Any:
    """The model in float32, every tensor of the file in it and nothing else."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    silent = contextlib.redirect_stderr(io.StringIO())  # for its progress bars; logging keeps its own stream
    with BUILDING, tempfile.TemporaryDirectory() as scratch, silent:
        (Path(scratch) / LINKED).symlink_to(header.file.resolve())
        try:
            read = AutoConfig.from_pretrained(scratch, gguf_file=LINKED, local_files_only=True)
            config = corrected(header, read, _rotation_values(header))
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                scratch,
                gguf_file=LINKED,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (SettingsError, IntegrityError):
            raise
        except Exception as error:  # the loader raises many kinds for sizes that contradict each other
            raise IntegrityError(
                f"transformers cannot load the GGUF file ({type(error).__name__}: {str(error).splitlines()[0][:120]})",
                where=str(header.file),
                fix="download or convert the model again",
            ) from error
    model, loading = loaded
    _check_whole(header, model, loading["missing_keys"])
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.config.name_or_path = ""
    ends = [header.values.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    ends = [end for index, end in enumerate(ends) if end is not None and end not in ends[:index]]
    begin, pad = (header.values.get(f"tokenizer.ggml.{key}_token_id") for key in ("bos", "padding"))
    model.config.bos_token_id, model.config.pad_token_id = begin, pad
    model.config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    model.generation_config = GenerationConfig(
        bos_token_id=begin, eos_token_id=model.config.eos_token_id, pad_token_id=pad
    )
    return model.eval()


def _rotation_values(header: Header) -> Any:
    """The tensor of Llama 3's rotation factors; None if the file has none."""
    if not any(tensor.name == ROTATION for tensor in header.tensors):
        return None
    import torch

    gguf: Any = importlib.import_module("gguf")
    found = next(tensor for tensor in gguf.GGUFReader(header.file).tensors if tensor.name == ROTATION)
    return torch.tensor(found.data.copy()).flatten()


def _check_whole(header: Header, model: Any, missing: Any) -> None:
    """Refuse a model that lacks a tensor of the file, or has values that the file does not have."""
    of_file = sum(_count(tensor.shape) for tensor in header.tensors if tensor.name != ROTATION)
    of_model = sum(parameter.numel() for parameter in model.parameters())
    if missing or of_file != of_model:
        lost = f"; not in the file: {', '.join(sorted(missing)[:3])}" if missing else ""
        raise SettingsError(
            f"the file has {of_file:,} weights, transformers loads {of_model:,} of them or more{lost}",
            where=str(header.file),
            fix="use the model's original folder (config.json and safetensors) as model.base",
        )
    bad = next((name for name, weight in model.named_parameters() if not is_finite(weight.detach())), None)
    if bad is not None:
        raise IntegrityError(
            f"tensor {bad!r} has values that are not finite", where=str(header.file), fix="copy or download it again"
        )


def _exact_dtype(header: Header, model: Any) -> Any:
    """The 16-bit type of the file's matrices if it holds every value of the model exactly, else float32."""
    import torch

    matrices = {tensor.kind for tensor in header.tensors if len(tensor.shape) > 1}
    narrow = {frozenset({"F16"}): torch.float16, frozenset({"BF16"}): torch.bfloat16}.get(frozenset(matrices))
    if narrow is not None and all(torch.equal(w, w.to(narrow).float()) for w in model.state_dict().values()):
        return narrow
    return torch.float32


def _origin(header: Header, digest: str, dtype: str) -> dict[str, Any]:
    """Names, hashes and counts about the file, never its folder."""
    general = {key: header.values.get(f"general.{key}") for key in ("name", "license", "organization", "basename")}
    return {
        "format": "gguf",
        "file": header.file.name,
        "sha256": digest,
        "bytes": header.file.stat().st_size,
        "architecture": header.architecture,
        "quantization": header.kinds,
        "stored_as": dtype,
        **{key: str(value)[:200] for key, value in general.items() if value},
    }


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product

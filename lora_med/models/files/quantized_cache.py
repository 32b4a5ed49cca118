"""A disk cache of 4-bit weights, so that a base is quantized once and not at every start.

Quantizing on a CPU takes a second for each 30 million weights and core; reading the result takes a tenth of that. An
entry is bound to everything it was made from. That is the base's weights and configuration, the quantization, the
dtype, the kind of device, and the versions of bitsandbytes and transformers. The cache is in the user's cache folder
and may be deleted at any time. An entry is read only if its bytes are those that were written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_med.errors import LoraMedError
from lora_med.files import read_json, sha256_file, write_json
from lora_med.folders import replace_folder
from lora_med.models.fingerprint import weights_digest
from lora_med.run import cache_home

FACTS = "kept.json"
CONFIGURATION = ("config.json", "generation_config.json")
LEAST_WEIGHTS = 30_000_000  # fewer are quantized within a second or two
LEAST_FREE_DISK = 4  # times the size of the cached weights
logger = logging.getLogger(__name__)


def cache_path(folder: Path, quantized: Any, *, dtype: str, device: str) -> tuple[Path, dict[str, Any]]:
    """The cache folder for the 4-bit weights of the base in `folder`, and the facts that they are bound to."""
    facts = {
        "weights": weights_digest(folder),
        "configuration": _configuration(folder),
        "quantization": quantized.to_dict(),
        "dtype": dtype,
        "device": device,
        "versions": {name: version(name) for name in ("bitsandbytes", "transformers")},
    }
    facts = json.loads(json.dumps(facts, default=str, sort_keys=True))
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    return cache_home() / "quantized" / name, facts


def _configuration(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that says how the weights are used."""
    return {name: sha256_file(folder / name) for name in CONFIGURATION if (folder / name).is_file()}


def is_cached(folder: Path, facts: dict[str, Any]) -> bool:
    """Whether `folder` holds complete weights with exactly these facts; any other content is removed."""
    if not folder.is_dir():
        return False
    try:
        entry = read_json(folder / FACTS)
        if entry["facts"] == facts and entry["quantized"] == [weights_digest(folder), _configuration(folder)]:
            return True
    except (LoraMedError, KeyError, TypeError, OSError):
        pass
    logger.warning("the cached 4-bit weights in %s are not what was written; they are quantized again", folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    return False


def save_to_cache(model: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Cache the 4-bit weights of a model that was just loaded; do nothing for a small model or a full disk."""
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    quantized_weights = sum(
        parameter.numel() * 2 for parameter in model.parameters() if hasattr(parameter, "quant_state")
    )
    if quantized_weights < LEAST_WEIGHTS:
        return

    def fill(beside: Path) -> None:
        model.save_pretrained(beside)
        write_json(beside / FACTS, {"facts": facts, "quantized": [weights_digest(beside), _configuration(beside)]})

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < LEAST_FREE_DISK * size_bytes:
            return
        replace_folder(folder, fill)
    except (LoraMedError, OSError) as error:
        logger.info("the 4-bit weights were not cached: %s", error)

"""4-bit weights kept on disk, so that a base is quantized once and not at every start.

Quantizing on a CPU takes a second for each 30 million weights and core; reading the result back, a tenth of that. What
is kept is bound to all it was made from: the base's weights and configuration, the quantization, the dtype, the kind of
device, and the versions of bitsandbytes and transformers. It lies under the user's cache folder, may be deleted at any
time, and is read only while its bytes are those that were written.
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
from lora_med.files import read_json, replace_folder, sha256_file, write_json
from lora_med.models.fingerprint import weights_digest
from lora_med.run import cache_home

FACTS = "kept.json"
CONFIGURATION = ("config.json", "generation_config.json")
LEAST_WEIGHTS = 30_000_000  # fewer are quantized within a second or two
LEAST_ROOM = 4  # times the size of what is kept must be free on the disk
logger = logging.getLogger(__name__)


def place(folder: Path, quantized: Any, *, dtype: str, device: str) -> tuple[Path, dict[str, Any]]:
    """Where the 4-bit weights of the base in `folder` are kept, and the facts that they are bound to."""
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
    """SHA-256 of each file that tells how the weights are used."""
    return {name: sha256_file(folder / name) for name in CONFIGURATION if (folder / name).is_file()}


def is_kept(folder: Path, facts: dict[str, Any]) -> bool:
    """Whether `folder` holds weights of just these facts, whole; what does not is removed."""
    if not folder.is_dir():
        return False
    try:
        known = read_json(folder / FACTS)
        if known["facts"] == facts and known["quantized"] == [weights_digest(folder), _configuration(folder)]:
            return True
    except (LoraMedError, KeyError, TypeError, OSError):
        pass
    logger.warning("the kept 4-bit weights in %s are not what was written; they are made again", folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    return False


def keep(model: Any, folder: Path, facts: dict[str, Any]) -> None:
    """Write the 4-bit weights of a model that was just loaded; small models, and full disks, are left alone."""
    held = sum(one.numel() * one.element_size() for one in model.parameters())
    quantized = sum(one.numel() * 2 for one in model.parameters() if hasattr(one, "quant_state"))
    if quantized < LEAST_WEIGHTS:
        return

    def fill(beside: Path) -> None:
        model.save_pretrained(beside)
        write_json(beside / FACTS, {"facts": facts, "quantized": [weights_digest(beside), _configuration(beside)]})

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder.parent).free < LEAST_ROOM * held:
            return
        replace_folder(folder, fill)
    except (LoraMedError, OSError) as error:
        logger.info("the 4-bit weights were not kept: %s", error)

"""What a merge will do, read from headers alone: which tensor of the base gets which update, and how it is scaled.

Nothing is guessed: a method this room does not know, a setting that changes the mathematics, or an adapter tensor that
finds no use is refused. Source of the layout: PEFT's LoraConfig and its save format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.models.tensors import Stored, read_header, read_headers

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
MAGNITUDES = (".lora_magnitude_vector", ".lora_magnitude_vector.weight")
FLOATS = ("F64", "F32", "BF16", "F16")
CONV1D_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")

# Settings of PEFT that the arithmetic below takes into account, or that do not bear on a trained adapter.
UNDERSTOOD = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
    *("fan_in_fan_out", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "init_lora_weights", "megatron_core", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "qalora_group_size", "ensure_weight_tying", "runtime_config"),
}
HARMLESS: dict[str, object] = {"bias": "none"}
# These starts replace the base's own weights, so an adapter saved with one of them does not fit the base on disk.
BASE_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class Change:
    """One tensor of the base and its update `scale * up @ down`; `transposed` if the base stores (in, out)."""

    base: Stored
    down: Stored
    up: Stored
    magnitude: Stored | None
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Plan:
    """All tensors of the base by name, and the changes to some of them."""

    tensors: Mapping[str, Stored]
    changes: Mapping[str, Change]
    method: str

    @property
    def parameters_changed(self) -> int:
        """How many weights of the base the merge touches."""
        return sum(math.prod(change.base.shape) for change in self.changes.values())


def plan_merge(adapter: Path, base: Path) -> Plan:
    """The plan for merging the adapter folder into the base folder; reads headers and settings only.

    Raises:
        SettingsError: the adapter's method cannot be merged exactly, or the base on disk is quantised.
        IntegrityError: a tensor is missing, left over, or of a shape that does not fit.
        InputMissingError: one of the files is not there.
    """
    config = read_json(adapter / ADAPTER_CONFIG)
    _check_method(config, adapter)
    base_config = read_json(base / "config.json")
    if base_config.get("quantization_config"):
        raise SettingsError(
            "the base on disk is quantised, so merging into it would round the update away",
            where=str(base),
            fix="give the full-precision original with --base",
        )
    tensors = read_headers(base)
    modules, magnitudes = _pairs(read_header(adapter / ADAPTER_WEIGHTS), adapter)
    square_is_transposed = base_config.get("model_type") in CONV1D_MODELS
    changes: dict[str, Change] = {}
    for module, (down, up) in modules.items():
        stored = _base_tensor(module, tensors, base)
        if stored.name in changes:
            raise IntegrityError(f"two updates meet in the base's tensor {stored.name!r}", where=str(adapter))
        changes[stored.name] = Change(
            stored,
            down,
            up,
            _fitting_magnitude(module, magnitudes.get(module), up, bool(config.get("use_dora")), adapter),
            _scale(module, config, down, adapter),
            _orientation(module, stored, down, up, square_is_transposed, adapter),
        )
    kind = "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"
    return Plan(tensors, changes, kind)


def _check_method(config: Mapping[str, Any], adapter: Path) -> None:
    where = str(adapter / ADAPTER_CONFIG)
    if config.get("peft_type") != "LORA":
        raise SettingsError(
            f"an adapter of type {config.get('peft_type')!r} cannot be merged", where=where, fix="train it as LoRA"
        )
    if config.get("modules_to_save"):
        raise SettingsError(
            f"the adapter holds whole layers (modules_to_save: {config['modules_to_save']}); merging takes none",
            where=where,
            fix="use it attached: lora-med generate --adapter NAME",
        )
    start = str(config.get("init_lora_weights", True))
    if start.startswith(BASE_CHANGING_STARTS):
        raise SettingsError(
            f"the adapter started with {start!r}, which changed the base's own weights while training",
            where=where,
            fix="publish it as plain LoRA first: PEFT's save_pretrained with path_initial_model_for_weight_conversion",
        )
    strange = sorted(
        name for name, value in config.items() if name not in UNDERSTOOD and value and HARMLESS.get(name) != value
    )
    if strange:
        raise SettingsError(
            f"the adapter uses {', '.join(strange)}, which merging does not know",
            where=where,
            fix="use it attached: lora-med generate --adapter NAME",
        )


def _pairs(tensors: Mapping[str, Stored], adapter: Path) -> tuple[dict[str, tuple[Stored, Stored]], dict[str, Stored]]:
    """Module -> (down, up), and module -> magnitude; every tensor of the adapter is used or refused."""
    downs: dict[str, Stored] = {}
    ups: dict[str, Stored] = {}
    magnitudes: dict[str, Stored] = {}
    unused = []
    places = [(DOWN, downs), (UP, ups), *((ending, magnitudes) for ending in MAGNITUDES)]
    for name, stored in tensors.items():
        for ending, place in places:
            if name.startswith(PREFIX) and name.endswith(ending) and stored.dtype in FLOATS:
                place[name.removeprefix(PREFIX).removesuffix(ending)] = stored
                break
        else:
            unused.append(name)
    if unused:
        raise IntegrityError(
            f"{len(unused)} tensors of the adapter have no use in a merge, such as {sorted(unused)[0]!r}",
            where=str(adapter / ADAPTER_WEIGHTS),
            fix="only the A and B matrices of linear layers (and DoRA's magnitudes) can be merged",
        )
    lone = sorted(set(downs) ^ set(ups) | (set(magnitudes) - set(downs)))
    if lone or not downs:
        what = f"half of the update of {lone[0]!r} is missing" if lone else "the adapter holds no update"
        raise IntegrityError(what, where=str(adapter / ADAPTER_WEIGHTS), fix="train or fetch the adapter again")
    return {module: (downs[module], ups[module]) for module in sorted(downs)}, magnitudes


def _base_tensor(module: str, tensors: Mapping[str, Stored], base: Path) -> Stored:
    """The base's weight of a module; some checkpoints leave out the first part of the name, as the original GPT-2."""
    shorter = module.partition(".")[2]
    for name in (f"{module}.weight", f"{shorter}.weight"):
        if name in tensors:
            return tensors[name]
    raise IntegrityError(
        f"the base has no tensor for the adapter's layer {module!r}",
        where=str(base),
        fix="a layer whose weight is tied to another, or is quantised on disk, cannot be merged",
    )


def _from_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the end of the name, at a dot, wins."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _scale(module: str, config: Mapping[str, Any], down: Stored, adapter: Path) -> float:
    rank = down.shape[0]
    promised = _from_pattern(config.get("rank_pattern") or {}, module, config["r"])
    if promised != rank:
        raise IntegrityError(
            f"layer {module!r} has rank {rank}, its settings say {promised}", where=str(adapter / ADAPTER_CONFIG)
        )
    alpha = _from_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _orientation(
    module: str, stored: Stored, down: Stored, up: Stored, square_is_transposed: bool, adapter: Path
) -> bool:
    """Whether the base stores (in, out), by shape; where the layer is square, by the family of the model."""
    plain = len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1] and stored.dtype in FLOATS
    wanted = (up.shape[0], down.shape[-1])
    if plain and stored.shape == wanted == wanted[::-1]:
        return square_is_transposed
    if plain and stored.shape in (wanted, wanted[::-1]):
        return stored.shape != wanted
    raise IntegrityError(
        f"layer {module!r}: an update {up.shape} x {down.shape} does not fit the base's {stored.dtype} {stored.shape}",
        where=str(adapter / ADAPTER_WEIGHTS),
        fix="this adapter was trained on another base",
    )


def _fitting_magnitude(module: str, found: Stored | None, up: Stored, wanted: bool, adapter: Path) -> Stored | None:
    if (found is not None) != wanted or (found is not None and math.prod(found.shape) != up.shape[0]):
        raise IntegrityError(
            f"layer {module!r}: DoRA's magnitudes are {'missing' if found is None else 'not what the settings say'}",
            where=str(adapter / ADAPTER_WEIGHTS),
        )
    return found

"""The contents of an adapter's two files, from settings and headers only: updates, trained tokens, full tensors.

Nothing is guessed. An unknown method, a setting that changes the mathematics, or a tensor without a use is refused.
Source of the layout: PEFT's LoraConfig and its save format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.adapters.tensors.expert_contents import expert_rank, refuse_absent, stacks_in
from lora_med.adapters.tensors.expert_layout import as_saved
from lora_med.adapters.tensors.method import PREFIX, TAGS
from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.models.files.weight_files import FLOATS, Stored, read_header
from lora_med.models.structure.expert_stacks import ExpertStack
from lora_med.models.structure.targets import pattern_value

# Settings of PEFT that are handled here, or that have no effect on a trained adapter.
UNDERSTOOD = {
    *("peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias"),
    *("fan_in_fan_out", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "bias"),
    *("lora_dropout", "init_lora_weights", "megatron_core", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "qalora_group_size", "ensure_weight_tying", "runtime_config"),
    *("modules_to_save", "trainable_token_indices", "target_parameters"),
    *("unsloth_fixed", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr"),  # Unsloth's mark, ms-swift's training settings
}
# Names that a wrapper adds to a module's path, or PEFT to a tensor of its default adapter, when a tool saves the state
# dict itself. `auto_mapping` names classes of the training; nothing imports them.
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
DEFAULT_ADAPTER = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)\.default(?=\.|$)")
# These initializations replace the base's own weights, so such an adapter does not fit the base on disk.
BASE_CHANGING_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Name endings of the tensors of one update, and the part of each. PEFT writes magnitudes with and without .weight.
PARTS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.bias": "bias",
    ".lora_embedding_A": "down",
    ".lora_embedding_B": "up",
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
}
TRUTHS = ("use_rslora", "use_dora", "lora_bias", "ensure_weight_tying")
LONGEST_NAME = 500  # of a tensor; the settings' patterns are matched against it
TOKENS = ".token_adapter.trainable_tokens_delta"
INNER = ".base_layer."


@dataclass(frozen=True, slots=True)
class LowRank:
    """The update `scale * up @ down` of one layer: `up` (outputs, r), `down` (r, inputs).

    The inputs of an embedding are tokens. With `magnitude` (outputs) it is DoRA; `bias` (outputs) is scaled and added.
    With `stack` it updates the experts e of a parameter: row e * r + k of `down`, column k * experts + e of `up`.
    """

    layer: str
    down: Stored
    up: Stored
    scale: float
    magnitude: Stored | None = None
    bias: Stored | None = None
    stack: ExpertStack | None = None

    @property
    def rank(self) -> int:
        """The rank of the update; with `stack`, that of each expert's."""
        return self.down.shape[0] // (1 if self.stack is None else self.stack.experts)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Trained rows of an embedding, (tokens, width), and their token ids."""

    rows: Stored
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """An adapter's contents: its method's name, updates and trained tokens by layer, full tensors by name.

    `base` holds tensors that replace the base's own (a resized vocabulary, trained biases), at both ends of a tied
    pair. `saved` holds copies that replace one layer only (modules_to_save).
    """

    kind: str
    low_rank: Mapping[str, LowRank]
    tokens: Mapping[str, TokenRows]
    base: Mapping[str, Stored]
    saved: Mapping[str, Stored]

    @property
    def plain(self) -> bool:
        """Whether the adapter holds only updates of layers."""
        return not (self.tokens or self.base or self.saved)


def read_contents(
    adapter: Path, files: Mapping[str, bytes] | None = None, *, base_folder: Path | None = None
) -> Contents:
    """The contents of an adapter folder.

    Args:
        files: the bytes of settings and weights by file name, if they are already in memory; no file is then read.
        base_folder: the base's, which names the parameters of routed experts; required if the adapter updates any.

    Raises:
        SettingsError: the adapter's method cannot be interpreted exactly.
        IntegrityError: a tensor is missing, left over, or contradicts the settings.
        InputMissingError: a file is missing.
    """
    config = read_json(adapter / CONFIG, None if files is None else files[CONFIG])
    check_method(config, adapter)
    tensors = read_header(adapter / WEIGHTS, None if files is None else files[WEIGHTS])
    layers, tokens, base, saved = _sorted_out(tensors, config, adapter)
    stacks = stacks_in(config, base_folder, adapter)
    updates = [_low_rank(layer, parts, config, adapter, stacks.get(layer)) for layer, parts in layers.items()]
    low_rank = {update.layer: update for update in sorted(updates, key=lambda update: update.layer)}
    refuse_absent(stacks.values(), low_rank, adapter)
    _check_promised(config, low_rank, tokens, saved, adapter)
    if not (low_rank or tokens or saved):
        raise IntegrityError("the adapter holds no update", where=str(adapter / WEIGHTS), fix="train or fetch it again")
    kind = "DoRA" if config.get("use_dora") else "rsLoRA" if config.get("use_rslora") else "LoRA"
    return Contents(kind, low_rank, tokens, base, saved)


def check_method(config: Any, adapter: Path) -> None:
    """Refuse settings that give the tensors another meaning than the one used here.

    Raises:
        SettingsError: it names the setting.
    """
    where = str(adapter / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise SettingsError(f"an adapter of type {kind!r} is not LoRA", where=where, fix="train it as LoRA")
    if config.get("task_type") == TAGS:
        raise SettingsError(
            "the adapter tags tokens: its head does not fit a model that generates text",
            where=where,
            fix="run it as it is: lora_med.open_tagger(NAME), or PEFT on AutoModelForTokenClassification",
        )
    start = str(config.get("init_lora_weights", True))
    if start.lower().startswith(BASE_CHANGING_STARTS):
        raise SettingsError(
            f"the adapter was initialized with {start!r}, which changed the base's own weights during training",
            where=where,
            fix="publish it as plain LoRA first: PEFT's save_pretrained with path_initial_model_for_weight_conversion",
        )
    strange = sorted(name for name, value in config.items() if name not in UNDERSTOOD and value)
    if strange:
        raise SettingsError(
            f"the adapter uses {', '.join(repr(name[:40]) for name in strange[:5])}, which lora_med does not support",
            where=where,
            fix="train it as LoRA, rsLoRA or DoRA",
        )
    odd = next(
        (key for key in TRUTHS if config.get(key) and config[key] is not True), None
    )  # PEFT reads any text as true
    if odd is not None:
        raise SettingsError(
            f"{odd} is {str(config[odd])[:40]!r}", where=where, fix="set true or false, as it was trained"
        )
    if config.get("use_dora") and config.get("lora_bias"):
        raise SettingsError(
            "the adapter has DoRA and lora_bias together; PEFT runs and merges these with different results",
            where=where,
        )


def _sorted_out(
    tensors: Mapping[str, Stored], config: Mapping[str, Any], adapter: Path
) -> tuple[dict[str, dict[str, Stored]], dict[str, TokenRows], dict[str, Stored], dict[str, Stored]]:
    """Every tensor of the file by its kind (updates, tokens, base, saved); one that fits no kind is refused."""
    layers: dict[str, dict[str, Stored]] = {}
    tokens: dict[str, TokenRows] = {}
    base: dict[str, Stored] = {}
    saved: dict[str, Stored] = {}
    replaced = [str(name) for name in config.get("modules_to_save") or ()]
    for full, stored in tensors.items():
        if len(full) > LONGEST_NAME:
            raise IntegrityError(f"a tensor has a name of {len(full):,} characters", where=str(adapter / WEIGHTS))
        plain = DEFAULT_ADAPTER.sub(r".\1", WRAPPERS.sub("", full))
        name = plain.removeprefix(PREFIX)
        ending = next((part for part in PARTS if name.endswith(part)), None)
        if name == plain or stored.dtype not in FLOATS:
            raise IntegrityError(
                f"tensor {full!r} ({stored.dtype}) is not part of a LoRA adapter",
                where=str(adapter / WEIGHTS),
                fix="train it again",
            )
        if ending is not None:
            _put(layers.setdefault(name.removesuffix(ending), {}), PARTS[ending], stored)
        elif name.endswith(TOKENS):
            layer = name.removesuffix(TOKENS)
            tokens[layer] = TokenRows(stored, _indices(config.get("trainable_token_indices"), layer, stored, adapter))
        elif INNER in name or not (_is_saved(name, replaced) or config.get("ensure_weight_tying")):
            _put(base, name.replace(INNER, "."), stored)
        else:
            saved[name] = stored
    return layers, tokens, base, saved


def _put(tensors: dict[str, Stored], key: str, stored: Stored) -> None:
    if key in tensors:
        raise IntegrityError(f"the file holds {stored.name!r} twice, under two names", where=str(stored.file))
    tensors[key] = stored


def _check_promised(
    config: Mapping[str, Any],
    low_rank: Mapping[str, LowRank],
    tokens: Mapping[str, TokenRows],
    saved: Mapping[str, Stored],
    adapter: Path,
) -> None:
    """Refuse a file that lacks or adds parts against its settings: PEFT would initialize missing parts at random."""
    where = str(adapter / WEIGHTS)
    for setting, part in (("use_dora", "magnitude"), ("lora_bias", "bias")):
        wanted = bool(config.get(setting))
        wrong = next(
            (update.layer for update in low_rank.values() if (getattr(update, part) is not None) != wanted), None
        )
        if wrong is not None:
            state = "missing" if wanted else f"present, but {setting} is not set"
            raise IntegrityError(f"layer {wrong!r}: its {part} is {state}", where=where)
    for name in config.get("modules_to_save") or ():
        if not any(_is_saved(key, [str(name)]) for key in saved):
            raise IntegrityError(f"modules_to_save names {name!r}, but the file holds no such layer", where=where)
    both = next((layer for layer in low_rank if f"{layer}.weight" in saved), None)
    if both is not None:
        raise IntegrityError(
            f"layer {both!r} is stored both in full and as an update, but PEFT loads only one", where=where
        )
    if config.get("trainable_token_indices") and not tokens:
        raise IntegrityError("trainable_token_indices names tokens, but the file holds none", where=where)


def _is_saved(name: str, replaced: list[str]) -> bool:
    """Whether a tensor belongs to a layer in modules_to_save, by PEFT's rule: the layer's name ends with the entry."""
    parts = name.split(".")
    return any(".".join(parts[:count]).endswith(ending) for count in range(1, len(parts)) for ending in replaced)


def _indices(setting: Any, layer: str, stored: Stored, adapter: Path) -> tuple[int, ...]:
    indices = setting
    if isinstance(setting, dict):
        indices = next((value for key, value in setting.items() if f".{layer}".endswith(f".{key}")), None)
    ids = [token for token in indices if type(token) is int and token >= 0] if isinstance(indices, list) else []
    if not ids or ids != indices or len(set(ids)) != len(ids) or stored.shape[:1] != (len(ids),):
        raise IntegrityError(
            f"the trained tokens of {layer!r} differ from those in trainable_token_indices",
            where=str(adapter / CONFIG),
        )
    return tuple(ids)


def _low_rank(
    layer: str, parts: Mapping[str, Stored], config: Mapping[str, Any], adapter: Path, stack: ExpertStack | None
) -> LowRank:
    where = str(adapter / WEIGHTS)
    if "down" not in parts or "up" not in parts:
        raise IntegrityError(
            f"half of the update of {layer!r} is missing", where=where, fix="train or fetch the adapter again"
        )
    down, up = parts["down"], parts["up"]
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1] or not down.shape[0]:
        raise IntegrityError(
            f"layer {layer!r}: shapes {up.shape} and {down.shape} do not form an update of a matrix", where=where
        )
    for part in ("magnitude", "bias"):
        if part in parts and math.prod(parts[part].shape) != up.shape[0]:
            raise IntegrityError(f"layer {layer!r}: its {part} has shape {parts[part].shape}", where=where)
    if stack is None:
        scale = _scale(layer, config, down.shape[0], adapter)
        return LowRank(layer, down, up, scale, parts.get("magnitude"), parts.get("bias"))
    stack = as_saved(stack, down.shape, up.shape, config.get("peft_version"), adapter)
    rank = expert_rank(stack, down.shape, up.shape, adapter)
    return LowRank(stack.name, down, up, _scale(stack.name, config, rank, adapter), stack=stack)


def _scale(layer: str, config: Mapping[str, Any], rank: int, adapter: Path) -> float:
    where = str(adapter / CONFIG)
    promised = pattern_value(config.get("rank_pattern") or {}, layer, config.get("r"))
    if promised != rank:
        raise IntegrityError(f"layer {layer!r} has rank {rank}, but its settings give {promised!r}", where=where)
    alpha = pattern_value(config.get("alpha_pattern") or {}, layer, config.get("lora_alpha"))
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise IntegrityError(f"layer {layer!r}: lora_alpha is {alpha!r}", where=where)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank

"""An adapter made elsewhere, taken into the store: every setting and tensor checked, and bound to the base given.

Nothing of the folder is run or followed: no pickle is opened, no class imported, no path or base name that its settings
give is loaded. What is published is written anew, from the values that were understood.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.card import BaseIdentity, Card, DataFacts
from lora_med.adapters.contents import Contents, check_method, read_contents
from lora_med.adapters.method import PREFIX, Method, exactly, read_method
from lora_med.adapters.store import CONFIG, STORE, WEIGHTS, check_free, write_adapter
from lora_med.adapters.weights import check_tensors
from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.files import fresh_folder, read_json, replace_folder
from lora_med.models.fingerprint import fingerprint
from lora_med.models.resolve import display_name, resolve_base
from lora_med.models.skeleton import skeleton
from lora_med.models.targets import linear_layers, pattern_value
from lora_med.models.tensors import Stored, read_headers, read_rows
from lora_med.run import versions

LARGEST_CONFIG_BYTES = 1 << 20
LARGEST_RANK = 4096
LARGEST_ALPHA = 1e6
PATTERN = re.compile(r"(?!(.*\*){3})[\w.\\^$*-]{1,200}")  # layer names, `.*` twice at most: more can run for ever
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Adoption:
    """Where an adopted adapter now lies, its card, and what the folder said that could not be checked."""

    folder: Path
    card: Card
    remarks: tuple[str, ...]


def adopt(
    folder: Path | str,
    *,
    base: str,
    name: str,
    revision: str | None = None,
    store: Path | str = STORE,
    template: str = "text",
    access: str = "credentialed",
    licence: str = UNKNOWN,
    source: str = UNKNOWN,
    trained_on: str = "none",
    description: str = "",
    overwrite: bool = False,
) -> Adoption:
    """Check a PEFT folder against a base, tensor by tensor, and publish it in the store under `name`.

    Args:
        base: what the adapter belongs to: folder, Hub id or `micro`. Its fingerprint goes into the card.
        template: the prompt template it was trained with; `text` gives it plain text.
        access, licence, source: of the data it learned from; what is unknown has the strictest class.
        trained_on: quantisation of the base while it was trained: none, 8bit or 4bit.

    Raises:
        InputMissingError: no such folder, or it holds no safetensors.
        SettingsError: its method is not understood.
        IntegrityError: its settings are hostile or absurd, or a tensor is missing, left over, misshaped or not finite.
        OutputError: the name is taken.
    """
    source_folder = Path(folder)
    target = check_free(name, store, overwrite=overwrite)
    config = _read_config(source_folder)
    found, commit = resolve_base(base, revision)
    contents = read_contents(source_folder)
    model = skeleton(found)
    kept = _without_copies(contents, found, source_folder)
    method = _method(config, contents, model, source_folder)
    tensors = _checked_tensors(kept, method, model, base, source_folder)
    facts = {
        "name": name,
        "description": description,
        "base": BaseIdentity(display_name(base), commit, fingerprint(found), trained_on, UNKNOWN),
        "method": method.as_json(),
        "template": template,
        "data": DataFacts(source=source, licence=licence, access=access),
        "settings": {},
        "scores": {},
        "versions": {**versions(), "peft of origin": str(config.get("peft_version") or UNKNOWN)},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

    def fill(place: Path) -> None:
        write_adapter(place, facts, method, tensors, model, display_name(base))

    if overwrite:
        replace_folder(target, fill)
    else:
        with fresh_folder(target) as place:
            fill(place)
    return Adoption(target, Card(**facts, files={}), tuple(_remarks(config, base, contents, kept)))


def _checked_tensors(kept: Mapping[str, Stored], method: Method, model: Any, base: str, folder: Path) -> dict[str, Any]:
    try:
        expected = method.expected(model)
    except SettingsError as error:
        raise IntegrityError(f"the adapter does not fit {base!r}: {error.what}", where=str(folder)) from error
    tensors = {key: _read(one) for key, one in kept.items()}
    check_tensors(expected, tensors, where=folder)
    return tensors


def _read_config(folder: Path) -> dict[str, Any]:
    """The settings, refused where PEFT would take harm from them before it looked at anything else."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputMissingError(
            f"no {CONFIG}: not an adapter that PEFT saved", where=str(folder), fix="check the folder"
        )
    if not (folder / WEIGHTS).is_file():
        pickle = next((name for name in PICKLES if (folder / name).is_file()), None)
        raise InputMissingError(
            f"the weights are a pickle ({pickle}), which can run code when opened; wanted: {WEIGHTS}"
            if pickle
            else f"no {WEIGHTS}",
            where=str(folder),
            fix="if you trust its maker, load it with PEFT and save_pretrained(..., safe_serialization=True)",
        )
    if path.stat().st_size > LARGEST_CONFIG_BYTES:
        raise IntegrityError(
            f"{CONFIG} has {path.stat().st_size:,} bytes", where=str(path), fix="take it from its maker"
        )
    config = read_json(path)
    check_method(config, folder)
    wrong = next(filter(None, (check(config) for check in CHECKS)), None)
    if wrong:
        raise IntegrityError(f"the settings cannot be trusted: {wrong}", where=str(path), fix="take it from its maker")
    return config


def _auto_mapping(config: Mapping[str, Any]) -> str | None:
    if config.get("auto_mapping") is not None:
        return "auto_mapping names classes to import"
    return None


def _task(config: Mapping[str, Any]) -> str | None:
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        return f"task_type is {str(config['task_type'])[:40]!r}, wanted CAUSAL_LM"
    return None


def _ranks(config: Mapping[str, Any]) -> str | None:
    patterns = config.get("rank_pattern") or {}
    if not isinstance(patterns, dict):
        return "rank_pattern is no object"
    for rank in (config.get("r"), *patterns.values()):
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= LARGEST_RANK:
            return f"rank {str(rank)[:40]}, wanted a whole number up to {LARGEST_RANK}"
    return None


def _alphas(config: Mapping[str, Any]) -> str | None:
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        return "alpha_pattern is no object"
    for alpha in (config.get("lora_alpha"), *patterns.values()):
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha <= LARGEST_ALPHA:
            return f"lora_alpha {str(alpha)[:40]}, wanted a positive number up to {LARGEST_ALPHA:g}"
    return None


def _patterns(config: Mapping[str, Any]) -> str | None:
    names = [*(config.get("rank_pattern") or {}), *(config.get("alpha_pattern") or {})]
    strange = next((name for name in names if not PATTERN.fullmatch(name)), None)
    return f"the pattern {strange[:40]!r} is no layer's name" if strange is not None else None


def _lists(config: Mapping[str, Any]) -> str | None:
    for key in ("modules_to_save", "layers_to_transform"):
        value = config.get(key)
        if value is not None and not isinstance(value, list | int):
            return f"{key} is no list"
    names = config.get("modules_to_save") or []
    if not all(isinstance(one, str) and PATTERN.fullmatch(one) for one in names):
        return "modules_to_save names something that is no layer"
    return None


CHECKS = (_auto_mapping, _task, _ranks, _alphas, _patterns, _lists)


def _without_copies(contents: Contents, base: Path, folder: Path) -> dict[str, Stored]:
    """The tensors to keep, by PEFT's names; copies of the base's own are left out.

    Raises:
        SettingsError: a tensor stands for the base's own and is another: the adapter belongs to a changed base.
    """
    kept: dict[str, Stored] = {}
    for layer, one in contents.low_rank.items():
        inside = "lora_embedding_" in one.down.name
        kept[f"{PREFIX}{layer}.{'lora_embedding_A' if inside else 'lora_A.weight'}"] = one.down
        kept[f"{PREFIX}{layer}.{'lora_embedding_B' if inside else 'lora_B.weight'}"] = one.up
        if one.magnitude is not None:
            kept[f"{PREFIX}{layer}.lora_magnitude_vector"] = one.magnitude
        if one.bias is not None:
            kept[f"{PREFIX}{layer}.lora_B.bias"] = one.bias
    kept |= {
        f"{PREFIX}{layer}.token_adapter.trainable_tokens_delta": one.rows for layer, one in contents.tokens.items()
    }
    kept |= {f"{PREFIX}{name}": one for name, one in contents.saved.items()}
    if contents.base:
        stored = read_headers(base)
        for name, one in contents.base.items():
            original = stored.get(name) or stored.get(name.partition(".")[2]) or _tied(stored)
            if original is None or original.shape != one.shape or not _equal(original, one):
                raise SettingsError(
                    f"the adapter brings its own {name!r} {one.shape}, which is not the base's",
                    where=str(folder),
                    fix="its base was changed (a resized vocabulary, say): adopt it with that base, saved as a folder",
                )
    return kept


def _tied(stored: Mapping[str, Stored]) -> Stored | None:
    return next((one for name, one in stored.items() if name.endswith(("embed_tokens.weight", "wte.weight"))), None)


def _read(stored: Stored) -> Any:
    with open(stored.file, "rb") as handle:
        return read_rows(handle, stored)


def _equal(one: Stored, other: Stored) -> bool:
    """Whether two stored tensors are the same numbers, the second in the first one's precision."""
    first, second = _read(one), _read(other)
    return bool((first == second.to(first.dtype)).all())


def _method(config: Mapping[str, Any], contents: Contents, model: Any, folder: Path) -> Method:
    """The method in our own words: layers by their full names where their ends would name others as well."""
    layers = sorted(contents.low_rank)
    tokens = {layer: list(one.indices) for layer, one in contents.tokens.items()}
    plain = {
        **{key: config.get(key) for key in ("peft_type", "r", "lora_alpha")},
        "modules_to_save": sorted({name.rpartition(".")[0] for name in contents.saved}),
        "target_modules": _ends(layers, model),
        "lora_dropout": config.get("lora_dropout") or 0.0,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": None,
        "use_rslora": config.get("use_rslora") is True,
        "use_dora": config.get("use_dora") is True,
        "lora_bias": config.get("lora_bias") is True,
        "trainable_token_indices": tokens,
    }
    found = read_method(plain, where=str(folder / CONFIG))
    ranks = {layer: contents.low_rank[layer].down.shape[0] for layer in layers}
    alphas = {layer: pattern_value(config.get("alpha_pattern") or {}, layer, found.lora_alpha) for layer in layers}
    return replace(
        found,
        rank_pattern={exactly(layer): rank for layer, rank in ranks.items() if rank != found.r},
        alpha_pattern={exactly(layer): float(one) for layer, one in alphas.items() if one != found.lora_alpha},
    )


def _ends(layers: list[str], model: Any) -> list[str]:
    """The layers' names by their ends, if these name no other layer as well; an adapter may have no layers at all."""
    ends = sorted({layer.rpartition(".")[2] for layer in layers})
    there = [one.name for one in linear_layers(model, ends=True)]
    named = [name for name in there if name.rpartition(".")[2] in ends]
    return ends if sorted(named) == layers else layers


def _remarks(config: Mapping[str, Any], base: str, contents: Contents, kept: Mapping[str, Stored]) -> list[str]:
    named = str(config.get("base_model_name_or_path") or "")
    remarks = []
    if Path(named).name != Path(display_name(base)).name:
        remarks.append(
            f"its settings name {Path(named).name or 'no base'!r}; whether that is {base!r} cannot be checked"
        )
    if contents.base:
        remarks.append(f"{len(contents.base)} copies of the base's own tensors were left out")
    return remarks

"""Adopt an adapter made elsewhere into the store: check every setting and tensor, and bind it to a base.

Nothing in the folder is executed. No pickle is opened, no class is imported, and no path or base name in the settings
is loaded. The published files are written again, from the validated values.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from lora_med.adapters.foreign.mlx_adapter import peft_files
from lora_med.adapters.foreign.peft_settings import read_settings
from lora_med.adapters.store.base_data import with_base_data
from lora_med.adapters.store.card import BaseIdentity, Card, DataFacts, read_card
from lora_med.adapters.store.store import CONFIG, STORE, check_free, write_adapter
from lora_med.adapters.tensors.contents import Contents, read_contents
from lora_med.adapters.tensors.expert_update import exchanged
from lora_med.adapters.tensors.foreign_tokens import new_tokens
from lora_med.adapters.tensors.method import PREFIX, Method, exactly, read_method
from lora_med.adapters.tensors.weights import check_tensors
from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.files.resolve import display_name, resolve_base
from lora_med.models.files.weight_files import Stored, open_stored, read_headers, read_rows
from lora_med.models.fingerprint import fingerprint
from lora_med.models.on_disk.dequantized_base import values_folder
from lora_med.models.on_disk.stored_quantization import base_origin
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.linear_layers import linear_layers
from lora_med.models.structure.targets import pattern_value
from lora_med.models.tokens.vocabulary import grow_shapes
from lora_med.run import versions

UNKNOWN = "unknown"
QUANTIZATIONS = ("none", "8bit", "4bit")
VERSION = re.compile(r"[\w.+-]{1,40}", re.ASCII)


@dataclass(frozen=True)
class Origin:
    """Facts about an adapter made elsewhere that its card needs and its folder does not contain.

    Args:
        template: the prompt template of the training; `text` means plain text.
        access, license, source: of the training data; unknown data has the strictest access class.
        trained_on: quantization of the base during training: none, 8bit or 4bit.
    """

    template: str = "text"
    access: str = "credentialed"
    license: str = UNKNOWN
    source: str = UNKNOWN
    trained_on: str = "none"
    description: str = ""

    def __post_init__(self) -> None:
        if self.trained_on not in QUANTIZATIONS:
            raise SettingsError(
                f"quantization {self.trained_on!r} is not one of {', '.join(QUANTIZATIONS)}", where="--trained-on"
            )

    def base_identity(self, base: str, folder: Path, commit: str | None) -> BaseIdentity:
        """The identity of `base`, whose files are in `folder`; the dtype of the training is unknown."""
        return BaseIdentity(
            name=display_name(base),
            revision=commit,
            fingerprint=fingerprint(folder),
            quantization=self.trained_on,
            dtype=UNKNOWN,
            origin=base_origin(folder),
        )

    def card(
        self, name: str, base: BaseIdentity, method: Mapping[str, Any], *, peft: str, files: Mapping[str, str]
    ) -> Card:
        """The adapter's card; `peft` is the version that saved it, `files` maps file names to hashes, where known."""
        return Card(
            name=name,
            description=self.description,
            base=base,
            method=dict(method),
            template=self.template,
            data=DataFacts(source=self.source, license=self.license, access=self.access),
            settings={},
            scores={},
            versions={**versions(), "peft of origin": peft},
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            files=dict(files),
        )


@dataclass(frozen=True)
class Adoption:
    """The folder of an adopted adapter, its card, and statements of the source folder that could not be checked."""

    folder: Path
    card: Card
    remarks: tuple[str, ...]


ORIGIN = Origin()


def adopt(
    folder: Path | str,
    *,
    base: str,
    name: str,
    revision: str | None = None,
    store: Path | str = STORE,
    origin: Origin = ORIGIN,
    overwrite: bool = False,
) -> Adoption:
    """Check a folder of PEFT or mlx-lm against a base, tensor by tensor, and publish it in the store under `name`.

    Args:
        base: the adapter's base: folder, Hub id or `micro`. Its fingerprint goes into the card.
        origin: facts that the folder does not contain.

    Raises:
        InputMissingError: no such folder, or it holds no safetensors.
        SettingsError: its method is not supported.
        IntegrityError: its settings are hostile or absurd, or a tensor is missing, left over, misshaped or not finite.
        OutputError: the name is taken.
    """
    source_folder = Path(folder)
    target = check_free(name, store, overwrite=overwrite)
    config = read_settings(source_folder)
    base_folder, commit = resolve_base(base, revision)
    contents = read_contents(source_folder, peft_files(config, source_folder), base_folder=base_folder)
    ids = [token for trained in contents.tokens.values() for token in trained.indices]
    tokens, remarks = new_tokens(ids, source_folder, base_folder)
    model = grow_shapes(skeleton(base_folder), tokens)
    stored = _without_copies(contents, base_folder, source_folder)
    method = _method(config, contents, model, source_folder)
    tensors = _checked_tensors(stored, contents, method, model, base, source_folder)
    identity = origin.base_identity(base, base_folder, commit)
    card = origin.card(name, identity, method.as_json(), peft=peft_version(config), files={})
    card = replace(card, tokens=tokens, data=with_base_data(card.data, base, base_folder))

    write_adapter(target, card, method, tensors, model, overwrite=overwrite)
    return Adoption(target, read_card(target), (*_remarks(config, base, contents), *remarks))


def peft_version(config: Mapping[str, Any]) -> str:
    """The version of PEFT that saved an adapter, by its settings; `unknown` if the value is not a version."""
    version = config.get("peft_version")
    return version if isinstance(version, str) and VERSION.fullmatch(version) else UNKNOWN


def _checked_tensors(
    stored: Mapping[str, Stored], contents: Contents, method: Method, model: Any, base: str, folder: Path
) -> dict[str, Any]:
    try:
        expected = method.expected(model)
    except SettingsError as error:
        raise IntegrityError(f"the adapter does not fit {base!r}: {error.what}", where=str(folder)) from error
    tensors = {key: _read(tensor) for key, tensor in stored.items()}
    for stack in method.stacks(model):
        update = contents.low_rank[stack.name]
        if update.stack is not None and update.stack.transposed != stack.transposed:  # an earlier PEFT saved it
            name = f"{PREFIX}{stack.holder}"
            tensors[f"{name}.lora_B.weight"], tensors[f"{name}.lora_A.weight"] = exchanged(update)
    check_tensors(expected, tensors, where=folder)
    return tensors


def _without_copies(contents: Contents, base: Path, folder: Path) -> dict[str, Stored]:
    """The tensors to publish, by PEFT's names; copies of the base's own tensors are omitted.

    Raises:
        SettingsError: a tensor replaces one of the base and differs from it: the adapter belongs to a changed base.
    """
    tensors: dict[str, Stored] = {}
    for layer, update in contents.low_rank.items():
        embedding = "lora_embedding_" in update.down.name
        layer = layer if update.stack is None else update.stack.holder
        tensors[f"{PREFIX}{layer}.{'lora_embedding_A' if embedding else 'lora_A.weight'}"] = update.down
        tensors[f"{PREFIX}{layer}.{'lora_embedding_B' if embedding else 'lora_B.weight'}"] = update.up
        if update.magnitude is not None:
            tensors[f"{PREFIX}{layer}.lora_magnitude_vector"] = update.magnitude
        if update.bias is not None:
            tensors[f"{PREFIX}{layer}.lora_B.bias"] = update.bias
    tensors |= {
        f"{PREFIX}{layer}.token_adapter.trainable_tokens_delta": trained.rows
        for layer, trained in contents.tokens.items()
    }
    tensors |= {f"{PREFIX}{name}": tensor for name, tensor in contents.saved.items()}
    own = own_tensors(contents, base)
    if own:
        raise SettingsError(
            f"the adapter brings its own {own[0]!r} {contents.base[own[0]].shape}, which is not the base's",
            where=str(folder),
            fix="its base was changed (for example a resized vocabulary): --new-base DIR writes the base it needs",
        )
    return tensors


def own_tensors(contents: Contents, base: Path) -> list[str]:
    """The names of the tensors that replace the base's tensors and differ from them."""
    stored = read_headers(values_folder(base)) if contents.base else {}
    names = []
    for name, tensor in contents.base.items():
        original = stored.get(name) or stored.get(name.partition(".")[2]) or _tied(stored)
        if original is None or original.shape != tensor.shape or not _equal(original, tensor):
            names.append(name)
    return names


def _tied(stored: Mapping[str, Stored]) -> Stored | None:
    return next(
        (tensor for name, tensor in stored.items() if name.endswith(("embed_tokens.weight", "wte.weight"))), None
    )


def _read(stored: Stored) -> Any:
    with open_stored(stored) as handle:
        return read_rows(handle, stored)


def _equal(first: Stored, second: Stored) -> bool:
    """Whether two stored tensors hold equal numbers, the second in the precision of the first."""
    numbers, other_numbers = _read(first), _read(second)
    return bool((numbers == other_numbers.to(numbers.dtype)).all())


def _method(config: Mapping[str, Any], contents: Contents, model: Any, folder: Path) -> Method:
    """The adapter's Method. Layers have their full names if the ends of their names also match other layers."""
    layers = sorted(contents.low_rank)
    if not layers:
        raise SettingsError(
            "the adapter updates no layer, so PEFT cannot attach it",
            where=str(folder / CONFIG),
            fix="train one that updates a layer",
        )
    tokens = {layer: list(trained.indices) for layer, trained in contents.tokens.items()}
    experts = sorted(layer for layer in layers if contents.low_rank[layer].stack is not None)
    settings = {
        **{key: config.get(key) for key in ("peft_type", "r", "lora_alpha")},
        "modules_to_save": sorted({name.rpartition(".")[0] for name in contents.saved}),
        "target_modules": _ends([layer for layer in layers if layer not in experts], model),
        "target_parameters": config.get("target_parameters") if experts else None,
        "lora_dropout": config.get("lora_dropout") or 0.0,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": None,
        "use_rslora": config.get("use_rslora") is True,
        "use_dora": config.get("use_dora") is True,
        "lora_bias": config.get("lora_bias") is True,
        "trainable_token_indices": tokens,
    }
    method = read_method(settings, where=str(folder / CONFIG))
    ranks = {layer: contents.low_rank[layer].rank for layer in layers}
    alphas = {layer: pattern_value(config.get("alpha_pattern") or {}, layer, method.lora_alpha) for layer in layers}
    return replace(
        method,
        rank_pattern={exactly(layer): rank for layer, rank in ranks.items() if rank != method.r},
        alpha_pattern={exactly(layer): float(alpha) for layer, alpha in alphas.items() if alpha != method.lora_alpha},
    )


def _ends(layers: list[str], model: Any) -> list[str]:
    """The ends of the layers' names if they match no other layer, else the full names."""
    ends = sorted({layer.rpartition(".")[2] for layer in layers})
    names = [layer.name for layer in linear_layers(model, ends=True)]
    matching = [name for name in names if name.rpartition(".")[2] in ends]
    return ends if sorted(matching) == layers else layers


def _remarks(config: Mapping[str, Any], base: str, contents: Contents) -> list[str]:
    named = str(config.get("base_model_name_or_path") or "")
    remarks = []
    last_part = PureWindowsPath(named).name  # it splits at / and at \; the folders of another machine are not shown
    if last_part != Path(display_name(base)).name:
        remarks.append(f"its settings name {last_part or 'no base'!r}; whether that is {base!r} cannot be checked")
    if contents.base:
        remarks.append(f"{len(contents.base)} copies of the base's own tensors were omitted")
    return remarks

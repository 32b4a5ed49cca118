"""The shape of a LoRA adapter (rank, scale, layers), converted to and from PEFT's adapter_config.json."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lora_med.adapters.tensors.expert_layout import require_layout
from lora_med.config.schema import LoraSettings
from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.structure.backbone import tag_head
from lora_med.models.structure.exclusion import ends_in, exclusion
from lora_med.models.structure.expert_stacks import ExpertStack, adapted_stacks, choose_stacks
from lora_med.models.structure.linear_layers import Linear
from lora_med.models.structure.targets import check_patterns, choose_targets, pattern_value

PREFIX = "base_model.model."
LANGUAGE, TAGS = "CAUSAL_LM", "TOKEN_CLS"  # PEFT's task types
ORIGINAL, COPIES = "original_module.", "modules_to_save."  # name parts of a layer that PEFT wraps and saves in full
# Keys of adapter_config.json besides the fields of Method: they have no effect on the attached adapter.
FREE = {"auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "init_lora_weights"}
FREE |= {"peft_type", "peft_version", "revision", "task_type", "loftq_config", "eva_config"}
# PEFT's nonempty defaults. Another value of these, or of a field not named here, is more than plain LoRA.
PLAIN = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16}


@dataclass(frozen=True)
class Method:
    """A LoRA adapter's shape. `target_modules` are ends of layer names; `init` records how it was initialized.

    `exclude_modules` is a pattern of names that end so and have no adapter, such as those of a vision tower.
    `target_parameters` are ends of the names of parameters that hold all routed experts of a layer.

    Adapters made elsewhere may have biases in B, layers trained and saved in full, and rows of an embedding
    (`trainable_token_indices`: end of its name -> token ids). With PEFT's `task_type` TOKEN_CLS the adapter tags
    tokens, and its head is a layer saved in full.
    """

    r: int
    lora_alpha: float
    target_modules: tuple[str, ...]
    lora_dropout: float = 0.0
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers_to_transform: tuple[int, ...] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    init: str = "default"
    lora_bias: bool = False
    modules_to_save: tuple[str, ...] = ()
    trainable_token_indices: dict[str, list[int]] = field(default_factory=dict)
    task_type: str = LANGUAGE
    exclude_modules: str | None = None
    target_parameters: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The method as the card stores it."""
        content = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if not self.target_parameters:
            del content["target_parameters"]
        return content

    def targets(self, model: Any) -> list[Linear]:
        """The layers of `model` that this adapter adapts; none if it adapts routed experts alone."""
        if not self.target_modules and self.target_parameters:
            return []
        return choose_targets(
            model, self.target_modules, self.layers_to_transform, anywhere=True, exclude=self.exclude_modules
        )

    def stacks(self, model: Any) -> list[ExpertStack]:
        """The routed experts of `model` that this adapter adapts."""
        if not self.target_parameters:
            return []
        require_layout()
        return adapted_stacks(model, self.target_parameters)

    def rank(self, layer: str) -> int:
        """The rank at one layer, or at one stack of experts by its parameter's name."""
        return pattern_value(self.rank_pattern, layer, self.r)

    def scale(self, layer: str) -> float:
        """The factor of the update B A at one layer."""
        alpha, rank = pattern_value(self.alpha_pattern, layer, self.lora_alpha), self.rank(layer)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def expected(self, model: Any) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape, for every tensor that adapter_model.safetensors must hold for `model`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in self.targets(model):
            down, up = (
                ("lora_embedding_A", "lora_embedding_B") if layer.embedding else ("lora_A.weight", "lora_B.weight")
            )
            shapes[f"{PREFIX}{layer.name}.{down}"] = (self.rank(layer.name), layer.inputs)
            shapes[f"{PREFIX}{layer.name}.{up}"] = (layer.outputs, self.rank(layer.name))
            if self.lora_bias:
                shapes[f"{PREFIX}{layer.name}.lora_B.bias"] = (layer.outputs,)
            if self.use_dora:
                shapes[f"{PREFIX}{layer.name}.lora_magnitude_vector"] = (layer.outputs,)
        for stack in self.stacks(model):
            ranks = self.rank(stack.name) * stack.experts
            shapes[f"{PREFIX}{stack.holder}.lora_A.weight"] = (ranks, stack.inputs)
            shapes[f"{PREFIX}{stack.holder}.lora_B.weight"] = (stack.outputs, ranks)
        for name, module in model.named_modules() if self.modules_to_save or self.trainable_token_indices else ():
            if any(ends_in(name, end) for end in self.modules_to_save):
                own = [
                    (key.removeprefix(ORIGINAL), parameter)
                    for key, parameter in module.named_parameters()
                    if COPIES not in key
                ]
                shapes |= {f"{PREFIX}{name}.{key}": tuple(parameter.shape) for key, parameter in own}
            tokens = next((ids for end, ids in self.trainable_token_indices.items() if ends_in(name, end)), None)
            if tokens is not None:
                if max(tokens, default=0) >= module.weight.shape[0]:
                    raise SettingsError(
                        f"token {max(tokens)} was trained, but {name!r} has {module.weight.shape[0]} tokens"
                    )
                shapes[f"{PREFIX}{name}.token_adapter.trainable_tokens_delta"] = (len(tokens), module.weight.shape[1])
        return shapes

    def peft_config(self, model: Any, *, inference: bool, init: bool | str = True) -> Any:
        """PEFT's LoraConfig for `model`; the model, not the adapter, decides whether weights are transposed."""
        from peft import LoraConfig

        return LoraConfig(
            task_type=self.task_type,  # pyright: ignore[reportArgumentType] - by name, as PEFT reads it from a file
            inference_mode=inference,
            r=self.r,
            lora_alpha=self.lora_alpha,  # pyright: ignore[reportArgumentType] - PEFT computes with floats as well
            lora_dropout=self.lora_dropout,
            target_modules=list(self.target_modules),
            exclude_modules=self.exclude_modules,
            rank_pattern=dict(self.rank_pattern),
            alpha_pattern=dict(self.alpha_pattern),
            layers_to_transform=list(self.layers_to_transform) if self.layers_to_transform is not None else None,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=init,  # pyright: ignore[reportArgumentType]
            fan_in_fan_out=any(layer.transposed for layer in self.targets(model)),
            lora_bias=self.lora_bias,
            modules_to_save=list(self.modules_to_save) or None,
            trainable_token_indices=dict(self.trainable_token_indices) or None,
            target_parameters=list(self.target_parameters) or None,
        )

    def published_config(self, model: Any, base_name: str) -> dict[str, Any]:
        """What adapter_config.json holds: PEFT's form, without the fields of other methods."""
        published = {*FREE, *(member.name for member in fields(self)), "bias", "modules_to_save"}
        config = self.peft_config(model, inference=True).to_dict()
        named = {**config, "base_model_name_or_path": base_name}
        if not self.target_parameters:
            published.remove("target_parameters")
        return {
            key: sorted(value) if isinstance(value, set) else value for key, value in named.items() if key in published
        }


def method_for(model: Any, lora: LoraSettings) -> Method:
    """The method that `lora` means on `model`, its names checked.

    Raises:
        SettingsError: a layer name, layer number or pattern that matches nothing.
    """
    chosen = choose_targets(model, lora.target_modules, lora.layers_to_transform)
    experts = choose_stacks(model, lora.layers_to_transform) if lora.target_experts else ()
    names = [layer.name for layer in chosen] + [stack.name for stack in adapted_stacks(model, experts)]
    check_patterns(lora.rank_pattern, names, "lora.rank_pattern")
    check_patterns(lora.alpha_pattern, names, "lora.alpha_pattern")
    ends = (
        sorted({layer.leaf for layer in chosen}) if lora.target_modules == "all-linear" else list(lora.target_modules)
    )
    layers, head = lora.layers_to_transform, tag_head(model)
    every = [layer.name for layer in choose_targets(model, lora.target_modules)]
    modules = [name.replace(".base_layer", "") for name, _ in model.named_modules() if ".lora_" not in name]
    return Method(
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        target_modules=tuple(ends),
        lora_dropout=lora.lora_dropout,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        layers_to_transform=tuple(layers) if layers is not None else None,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init=lora.init_lora_weights,
        modules_to_save=() if head is None else (head,),
        task_type=LANGUAGE if head is None else TAGS,
        exclude_modules=exclusion(modules, ends, set(every)),
        target_parameters=experts,
    )


def read_method(config: Mapping[str, Any], where: str) -> Method:
    """The method in adapter_config.json; any unknown setting that would change the result is refused.

    Raises:
        IntegrityError: a field is missing, has the wrong type, or sets something other than plain LoRA.
    """
    try:
        if config["peft_type"] != "LORA":
            raise ValueError(f"peft_type is {config['peft_type']!r}; the only supported type is 'LORA'")
        _refuse_more_than_lora(config)
        layers = config["layers_to_transform"]
        method = Method(
            r=_positive(config["r"]),
            lora_alpha=_finite(config["lora_alpha"]),
            target_modules=() if _experts_alone(config) else tuple(_words(config["target_modules"])),
            lora_dropout=_finite(config["lora_dropout"]),
            rank_pattern={_pattern(key): _positive(value) for key, value in config["rank_pattern"].items()},
            alpha_pattern={_pattern(key): _finite(value) for key, value in config["alpha_pattern"].items()},
            layers_to_transform=tuple(int(number) for number in layers) if layers is not None else None,
            use_rslora=config["use_rslora"] is True,
            use_dora=config["use_dora"] is True,
            lora_bias=config.get("lora_bias") is True,
            modules_to_save=tuple(_words(config["modules_to_save"])) if config.get("modules_to_save") else (),
            trainable_token_indices=_tokens(config.get("trainable_token_indices")),
            task_type=TAGS if config.get("task_type") == TAGS else LANGUAGE,
            exclude_modules=_exclusion(config.get("exclude_modules")),
            target_parameters=tuple(_words(config["target_parameters"])) if config.get("target_parameters") else (),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, re.error) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise IntegrityError(
            f"the adapter's configuration cannot be used: {reason}", where=where, fix="publish the adapter again"
        ) from error
    return method


def _experts_alone(config: Mapping[str, Any]) -> bool:
    return config["target_modules"] == [] and bool(config.get("target_parameters"))


def _refuse_more_than_lora(config: Mapping[str, Any]) -> None:
    known_keys = FREE | {member.name for member in fields(Method)}
    for key, value in config.items():
        if key not in known_keys and value not in (None, False, [], {}, "") and value != PLAIN.get(key):
            raise ValueError(f"it sets {key!r}, which plain LoRA does not have")


def exactly(layer: str) -> str:
    """The pattern that matches this one layer's full name."""
    return "^" + re.escape(layer)


def _tokens(value: Any) -> dict[str, list[int]]:
    if not value:
        return {}
    if not isinstance(value, dict) or not all(
        type(token) is int and token >= 0 for ids in value.values() for token in ids
    ):
        raise ValueError("trainable_token_indices does not map the embedding's name to token ids")
    return {str(end): list(ids) for end, ids in value.items()}


def _finite(value: Any) -> float:
    if not math.isfinite(float(value)):
        raise ValueError(f"{float(value)} is not finite")
    return float(value)


def _pattern(value: str) -> str:
    re.compile(f"({value})")
    return value


def _exclusion(value: Any) -> str | None:
    if value and not isinstance(value, str):
        raise ValueError("exclude_modules is not a pattern")
    return _pattern(value) if value else None


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"rank {value!r} is not a positive integer")
    return value


def _words(value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError("target_modules is not a list of layer names")
    return value

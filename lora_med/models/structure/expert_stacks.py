"""The routed experts of a mixture: parameters that each hold one weight of all experts of a layer.

transformers 5 keeps them so, and not as layers. PEFT adapts such a parameter where `target_parameters` names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lora_med.errors import SettingsError
from lora_med.models.structure.backbone import language_part
from lora_med.models.structure.exclusion import ends_in
from lora_med.models.structure.linear_layers import LAYER_NUMBER

WRAPPED = ".base_layer"
COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")  # settings of config.json


@dataclass(frozen=True, slots=True)
class ExpertStack:
    """The weights of all experts of a layer in one parameter: (experts, outputs, inputs).

    Where PEFT reads them `transposed`, they are (experts, inputs, outputs). `holder` is PEFT's module with the update,
    as an adapter's tensors name it. It differs from the parameter's name, and depends on what else is adapted.
    """

    name: str
    experts: int
    inputs: int
    outputs: int
    transposed: bool
    holder: str = ""

    @property
    def module(self) -> str:
        """The name of the module that has the parameter."""
        return self.name.rpartition(".")[0]

    @property
    def rows(self) -> int:
        """Rows of one expert's matrix, as the model stores it."""
        return self.inputs if self.transposed else self.outputs

    @property
    def columns(self) -> int:
        """Columns of one expert's matrix, as the model stores it."""
        return self.outputs if self.transposed else self.inputs

    @property
    def flipped(self) -> ExpertStack:
        """The same parameter, read with its inputs and outputs exchanged."""
        return replace(self, inputs=self.outputs, outputs=self.inputs, transposed=not self.transposed)

    @property
    def numbers(self) -> int:
        """How many weights the parameter holds."""
        return self.experts * self.inputs * self.outputs

    @property
    def layer(self) -> int | None:
        """The number of its transformer layer, or None outside the transformer layers."""
        match = LAYER_NUMBER.match(self.name)
        return int(match["number"]) if match else None


def expert_stacks(model: Any) -> list[ExpertStack]:
    """Every stack of routed experts, in the model's order; PEFT's wrappers around them do not change the names."""
    stacks = []
    for path, module in model.named_modules():
        name = path.replace(WRAPPED, "")
        if "experts" not in name.split(".") or ".lora_" in path:
            continue
        transposed = getattr(module, "is_transposed", False) is True
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.ndim != 3 or key.endswith("bias"):
                continue
            experts, rows, columns = parameter.shape
            inputs, outputs = (rows, columns) if transposed else (columns, rows)
            stacks.append(ExpertStack(f"{name}.{key}", experts, inputs, outputs, transposed))
    return stacks


def has_experts(config: Any) -> bool:
    """Whether a configuration names a number of routed experts above one."""
    text = config.get_text_config()
    return any((getattr(text, name, None) or 0) > 1 for name in COUNTS)


def choose_stacks(model: Any, layers_to_transform: Sequence[int] | None = None) -> tuple[str, ...]:
    """The `target_parameters` that select every stack of experts, or those in some layers.

    Raises:
        SettingsError: the model has none, or PEFT cannot adapt them.
    """
    where = "lora.target_experts"
    language = language_part(model)
    stacks = [stack for stack in expert_stacks(model) if stack.name.startswith(language)]
    if not stacks:
        raise SettingsError(
            "this base has no parameter that holds a matrix of each of its routed experts",
            where=where,
            fix="lora.target_experts=false; target_modules=all-linear reaches every layer that text passes through",
        )
    if any(stack.experts == 1 for stack in stacks):
        raise SettingsError(
            "a layer of this base has a single routed expert, which PEFT adapts in another form",
            where=where,
            fix="lora.target_experts=false",
        )
    chosen = [stack for stack in stacks if layers_to_transform is None or stack.layer in layers_to_transform]
    if not chosen:
        raise SettingsError(
            f"the layers {sorted(layers_to_transform or ())} have no routed experts",
            where="lora.layers_to_transform",
            fix=f"layers with routed experts: {', '.join(map(str, sorted({stack.layer or 0 for stack in stacks})))}",
        )
    names = {stack.name for stack in chosen}
    ends = sorted({".".join(name.split(".")[-2:]) for name in names})
    every = [name.replace(WRAPPED, "") for name, _ in model.named_parameters()]
    exact = {name for name in every if any(ends_in(name, end) for end in ends)} == names
    return tuple(ends) if exact else tuple(sorted(names))


def adapted_stacks(model: Any, target_parameters: Sequence[str]) -> list[ExpertStack]:
    """The stacks that `target_parameters` (ends of names) select, each with PEFT's module that holds its update.

    PEFT wraps a module once for each of its parameters, in their order: the last one is outermost.

    Raises:
        SettingsError: a name that selects no stack of experts.
    """
    stacks = expert_stacks(model)
    for target in target_parameters:
        if not any(ends_in(stack.name, target) for stack in stacks):
            raise SettingsError(
                f"the parameter {target!r} holds no routed experts of this base",
                where="target_parameters",
                fix=f"this base has: {', '.join(sorted({short(stack.name) for stack in stacks})) or 'none'}",
            )
    chosen = [stack for stack in stacks if any(ends_in(stack.name, target) for target in target_parameters)]
    by_module: dict[str, list[ExpertStack]] = {}
    for stack in chosen:
        by_module.setdefault(stack.module, []).append(stack)
    return [
        replace(stack, holder=module + WRAPPED * (len(members) - 1 - index))
        for module, members in by_module.items()
        for index, stack in enumerate(members)
    ]


def by_holder(stacks: Sequence[ExpertStack]) -> Mapping[str, ExpertStack]:
    """PEFT's module with the update -> the stack."""
    return {stack.holder: stack for stack in stacks}


def short(name: str) -> str:
    """The end of a parameter's name, without its layer's number."""
    return re.sub(r"^.*\.\d+\.", "", name)

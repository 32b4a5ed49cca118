"""The name that a model's parameter has in its files: they may differ, and transformers' own mapping says how.

Source: transformers' `get_model_conversion_mapping` and `rename_source_key`, which `from_pretrained` uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lora_med.models.skeleton import skeleton
from lora_med.models.structure.expert_stacks import ExpertStack


class Shaped(Protocol):
    """A tensor on disk, of which the shape is read."""

    @property
    def shape(self) -> Any:
        """Its edges."""
        ...


@dataclass(frozen=True, slots=True)
class StackPart:
    """A tensor on disk with a part of a stack of experts: rows from `begin` of one expert, or of all (`expert` None).

    `flipped`: the file stores each expert's matrix transposed.
    """

    name: str
    expert: int | None
    begin: int
    flipped: bool = False


class DiskNames:
    """The names of a base's tensors on disk by their names in the model; worked out when one is first asked for."""

    def __init__(self, folder: Path, on_disk: Mapping[str, Shaped]) -> None:
        self._folder = folder
        self._on_disk = on_disk

    def of(self, parameter: str) -> str | None:
        """The tensor that alone holds a parameter of the model; None if several make it, or none does."""
        return self._mapped[0].get(parameter)

    def parts(self, stack: ExpertStack) -> list[StackPart] | None:
        """The tensors on disk that make a stack of experts, each weight once; None if they make it in another way.

        Known are one tensor for all experts, one for each expert, and gate and up separately in either.
        """
        name = stack.name if stack.name in self._on_disk else self.of(stack.name)
        if name is not None:
            return self._complete(stack, [[StackPart(name, None, 0)]])
        if stack.name not in self._mapped[1]:
            return None
        converter, names_by_pattern = self._mapped[1][stack.name]
        operations = [_operation(operation) for operation in converter.operations]
        groups = [names_by_pattern.get(pattern, []) for pattern in converter.source_patterns]
        if operations == ["transpose"] and len(groups) == 1 and len(groups[0]) == 1:
            as_it_is = tuple(self._on_disk[groups[0][0]].shape) == (stack.experts, stack.rows, stack.columns)
            flipped = not (as_it_is and getattr(converter.operations[0], "check_dims", False))
            return self._complete(stack, [[StackPart(groups[0][0], None, 0, flipped)]])
        if operations not in (["merge"], ["join rows"], ["merge", "join rows"]) or not groups or not all(groups):
            return None
        merged, joined = operations[0] == "merge", operations[-1] == "join rows"
        parts: list[list[StackPart]] = []
        begin = 0
        for names in groups:
            parts.append([StackPart(name, index if merged else None, begin) for index, name in enumerate(names)])
            begin += self._on_disk[names[0]].shape[-2] if joined else 0
        return self._complete(stack, parts)

    def _complete(self, stack: ExpertStack, groups: Sequence[Sequence[StackPart]]) -> list[StackPart] | None:
        """The parts, if their shapes add up to the stack's; else None."""
        rows = 0
        for group in groups:
            if len(group) != (1 if group[0].expert is None else stack.experts):
                return None
            shapes = {tuple(self._on_disk[part.name].shape) for part in group}
            shape = shapes.pop()
            matrix = shape[-2:][::-1] if group[0].flipped else shape[-2:]
            lead = () if group[0].expert is not None else (stack.experts,)
            if shapes or shape[:-2] != lead or matrix[1:] != (stack.columns,):
                return None
            rows += matrix[0]
        return [part for group in groups for part in group] if rows == stack.rows else None

    @cached_property
    def _mapped(self) -> tuple[Mapping[str, str], Mapping[str, tuple[Any, dict[str, list[str]]]]]:
        """Parameter -> its tensor; and parameter -> the converter that makes it, its tensors by converter's pattern."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )

        model = skeleton(self._folder)
        changes = get_model_conversion_mapping(model)
        renamings = [change for change in changes if isinstance(change, WeightRenaming)]
        converters = [change for change in changes if isinstance(change, WeightConverter)]
        by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        parameters = model.state_dict()
        names: dict[str, str] = {}
        made: dict[str, tuple[Any, dict[str, list[str]]]] = {}
        for name in sorted(self._on_disk, key=dot_natural_key):  # the order in which transformers stacks experts
            renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
            if renamed not in parameters:
                continue
            if pattern is None:
                names[renamed] = name
            else:
                made.setdefault(renamed, (by_pattern[pattern], {}))[1].setdefault(pattern, []).append(name)
        return names, made


def _operation(operation: Any) -> str:
    """What a step of transformers' conversion does to experts, if it is one that a merge can follow."""
    kind = type(operation).__name__
    if kind == "Transpose" and {operation.dim0, operation.dim1} == {1, 2}:
        return "transpose"
    known = {"MergeModulelist": (0, "merge"), "Concatenate": (1, "join rows")}
    dim, name = known.get(kind, (None, kind))
    return name if dim is not None and operation.dim == dim else f"{kind} along another edge"

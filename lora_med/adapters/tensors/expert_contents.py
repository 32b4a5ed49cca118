"""Which tensors of an adapter update routed experts. Its file does not name their parameters; its base does."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_med.adapters.store.store import CONFIG, WEIGHTS
from lora_med.errors import IntegrityError, SettingsError
from lora_med.models.skeleton import skeleton
from lora_med.models.structure.expert_stacks import ExpertStack, adapted_stacks, by_holder


def updates_experts(config: Mapping[str, Any]) -> bool:
    """Whether an adapter with these settings updates the parameters of routed experts."""
    return bool(config.get("target_parameters"))


def stacks_in(config: Mapping[str, Any], base: Path | None, adapter: Path) -> Mapping[str, ExpertStack]:
    """The routed experts that an adapter updates, by the name that its file gives the update.

    Args:
        base: the base's folder; required if there are any.

    Raises:
        IntegrityError: `target_parameters` is not a list of names.
        SettingsError: it names a parameter that holds no routed experts of the base, or there is no base.
    """
    if not updates_experts(config):
        return {}
    targets, where = config["target_parameters"], str(adapter / CONFIG)
    if not isinstance(targets, list) or not all(isinstance(target, str) and target for target in targets):
        raise IntegrityError(f"target_parameters is {str(targets)[:40]!r}, not a list of names", where=where)
    if base is None:
        raise SettingsError(
            "the adapter updates routed experts, which are read with its base",
            where=where,
            fix="name the folder of its base with --base",
        )
    return by_holder(adapted_stacks(skeleton(base), targets))


def expert_rank(stack: ExpertStack, down: tuple[int, ...], up: tuple[int, ...], adapter: Path) -> int:
    """The rank of each expert's update, from the shapes of the two matrices that hold all of them.

    Raises:
        IntegrityError: they do not fit the experts.
    """
    rank, rest = divmod(down[0], stack.experts)
    if rest or (up[0], down[1]) != (stack.outputs, stack.inputs):
        raise IntegrityError(
            f"the experts {stack.name!r}: shapes {up} and {down} do not form updates of {stack.experts} matrices of "
            f"{stack.outputs} x {stack.inputs}",
            where=str(adapter / WEIGHTS),
            fix="this adapter was trained on another base",
        )
    return rank


def refuse_absent(stacks: Iterable[ExpertStack], updates: Container[str], adapter: Path) -> None:
    """Refuse a file without the update of experts that its settings name.

    Raises:
        IntegrityError: with the first such parameter.
    """
    absent = sorted(stack.name for stack in stacks if stack.name not in updates)
    if absent:
        raise IntegrityError(
            f"target_parameters names {absent[0]!r}, but the file holds no update of it", where=str(adapter / WEIGHTS)
        )

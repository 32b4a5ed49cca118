"""The name that a model's parameter has in its files: they may differ, and transformers' own mapping says how.

Source: transformers' `get_model_conversion_mapping` and `rename_source_key`, which `from_pretrained` uses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path

from lora_med.models.skeleton import skeleton


class DiskNames:
    """The names of a base's tensors on disk by their names in the model; worked out when one is first asked for."""

    def __init__(self, folder: Path, on_disk: Collection[str]) -> None:
        self._folder = folder
        self._on_disk = tuple(on_disk)

    def of(self, parameter: str) -> str | None:
        """The tensor that alone holds a parameter of the model; None if several make it, or none does."""
        return self._by_parameter.get(parameter)

    @cached_property
    def _by_parameter(self) -> Mapping[str, str]:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        model = skeleton(self._folder)
        changes = get_model_conversion_mapping(model)
        renamings = [change for change in changes if isinstance(change, WeightRenaming)]
        converters = [change for change in changes if isinstance(change, WeightConverter)]
        parameters = model.state_dict()
        names = {}
        for name in self._on_disk:
            renamed, converter = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
            if converter is None and renamed in parameters:
                names[renamed] = name
        return names

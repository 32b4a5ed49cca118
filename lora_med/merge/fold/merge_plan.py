"""The plan of a merge, read from headers alone: every tensor of the merged model, and how it is made.

A base whose head is tied to its embedding stays so only if the merge leaves both equal. Otherwise the head is written
as a tensor of its own, and the settings say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.tensors.contents import Contents, LowRank, TokenRows, read_contents
from lora_med.adapters.tensors.target_tensors import find_tensor, is_conv1d, stored_transposed
from lora_med.errors import IntegrityError, SettingsError
from lora_med.files import read_json
from lora_med.merge.fold.tensors_to_quantize import tensors_to_quantize
from lora_med.models.files.weight_files import FLOATS, Stored, open_stored, read_headers, torch_dtype
from lora_med.models.on_disk.dequantized_base import values_folder
from lora_med.models.structure.expert_stacks import ExpertStack
from lora_med.models.structure.tensor_names import DiskNames, StackPart

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in")
HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True, slots=True)
class Quantized:
    """How a base was quantized while its adapter was trained; `dtype`, torch's name, is that of the input weights.

    `transposed`: the layer's weight is transposed before it is quantized (GPT-2).
    """

    bits: int
    quant_type: str
    double_quant: bool
    dtype: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of the merged model: its source bytes, and what is added to them.

    `dtype` is the base's, by safetensors' name, whatever `source` has. `file` and `offset` locate it in the base. With
    `experts`, `low_rank` updates a stack of experts of which this tensor is a part; a tensor of all experts is read as
    one matrix, their rows below each other (`source`), and written in `written_shape`.
    """

    name: str
    source: Stored
    dtype: str
    file: Path
    offset: int
    low_rank: LowRank | None = None
    transposed: bool = False
    tokens: TokenRows | None = None
    bias: LowRank | None = None
    quantized: Quantized | None = None
    experts: StackPart | None = None
    written_shape: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape: the base's, unless the adapter replaces the tensor, or trains tokens that have no row yet."""
        shape = self.source.shape
        return shape if self.tokens is None else (max(shape[0], *(n + 1 for n in self.tokens.indices)), *shape[1:])

    @property
    def changed(self) -> bool:
        """Whether it differs from the base's bytes."""
        return bool(self.low_rank or self.tokens or self.bias or self.quantized) or self.source.file != self.file


@dataclass(frozen=True)
class Plan:
    """All tensors of the merged model by name, the settings of the base that change, and the adapter's method."""

    base: Path
    outputs: Mapping[str, Output]
    settings: Mapping[str, Any]
    method: str
    contents: Contents = field(repr=False)

    @property
    def changes(self) -> dict[str, Output]:
        """The outputs that are not the base's own bytes."""
        return {name: output for name, output in self.outputs.items() if output.changed}

    @property
    def stored_dtype(self) -> str:
        """The dtype, by torch's name, that most of the changed weights are stored in."""
        dtypes = [str(torch_dtype(output.dtype)).removeprefix("torch.") for output in self.changes.values()]
        return max(sorted(set(dtypes)), key=dtypes.count)

    @property
    def parameters_changed(self) -> int:
        """The number of weights that the merge changes."""
        return sum(math.prod(output.shape) for output in self.changes.values())


def plan_merge(
    adapter: Path, base: Path, quantized: Quantized | None = None, files: Mapping[str, bytes] | None = None
) -> Plan:
    """The plan for merging the adapter folder into the base folder; reads headers and settings only.

    The dequantized values replace a base that is quantized on disk; they are computed now if they are not cached.

    Args:
        files: the bytes of the adapter's files by name, where they are in memory already; then none is opened.
        quantized: merge onto the dequantized values of the base's linear layers; None takes the base as it is.

    Raises:
        SettingsError: the adapter's method cannot be merged exactly.
        IntegrityError: a tensor is missing, left over, or of a shape that does not fit.
        InputMissingError: one of the files does not exist.
    """
    return _plan(read_contents(adapter, files, base_folder=base), adapter, base, quantized)


def plan_own_tensors(adapter: Path, base: Path) -> Plan:
    """The plan for writing only the adapter's tensors of its base into the base folder, without its updates.

    Raises:
        SettingsError, IntegrityError, InputMissingError: as `plan_merge`.
    """
    contents = replace(read_contents(adapter, base_folder=base), low_rank={}, tokens={}, saved={})
    return _plan(contents, adapter, base, None)


def _plan(contents: Contents, adapter: Path, base: Path, quantized: Quantized | None) -> Plan:
    base = values_folder(base)
    config = read_json(base / "config.json")
    stored = read_headers(base)
    disk = DiskNames(base, stored)
    outputs = {name: Output(name, tensor, tensor.dtype, tensor.file, tensor.start) for name, tensor in stored.items()}
    if quantized is not None:
        for name, transposed in tensors_to_quantize(base, outputs, disk).items():
            outputs[name] = replace(outputs[name], quantized=replace(quantized, transposed=transposed))
    embedding, head = _ends(outputs, contents)
    if embedding and head and config.get("tie_word_embeddings") is True and head in outputs:
        del outputs[head]  # a tied head on disk is never read
    outputs |= _replaced(contents.base, outputs, head, adapter, disk)
    settings: dict[str, Any] = {}
    if embedding and head and head not in outputs and _becomes_untied(embedding, head, contents, adapter):
        outputs[head] = replace(outputs[embedding], name=head)
        settings["tie_word_embeddings"] = False
    outputs |= _replaced(contents.saved, outputs, head, adapter, disk)
    for layer, low_rank in contents.low_rank.items():
        if low_rank.stack is not None:
            _add_to_experts(outputs, low_rank.stack, low_rank, adapter, disk)
        else:
            _add(outputs, layer, low_rank, is_conv1d(config), adapter, disk)
    for layer, tokens in contents.tokens.items():
        _add_tokens(outputs, layer, tokens, adapter, disk)
    if embedding and outputs[embedding].shape != stored[embedding].shape:
        settings |= _with_words(config, outputs[embedding].shape[0])
    return Plan(base, dict(sorted(outputs.items())), settings, contents.kind, contents)


def _with_words(config: Mapping[str, Any], words: int) -> dict[str, Any]:
    """The settings that state the size of the vocabulary; a base of several modalities has them for its text."""
    text = config.get("text_config")
    inner = {"text_config": {**text, "vocab_size": words}} if isinstance(text, dict) else {}
    return inner if inner and "vocab_size" not in config else {**inner, "vocab_size": words}


def _ends(outputs: Mapping[str, Output], contents: Contents) -> tuple[str | None, str | None]:
    """The names of the embedding's weight and of the head's; the latter may be no tensor of the base."""
    embedding = next((name for name in outputs if name.removesuffix(".weight").rpartition(".")[2] in EMBEDDINGS), None)
    named = [*outputs, *contents.base, *contents.saved, *(f"{layer}.weight" for layer in contents.low_rank)]
    head = next((name for name in named if name.removesuffix(".weight") in HEADS), f"{HEADS[0]}.weight")
    return embedding, head if embedding else None


def _becomes_untied(embedding: str, head: str, contents: Contents, adapter: Path) -> bool:
    """Whether a tied pair becomes untied: only one of the two changes, or both are replaced by different bytes.

    Trained tokens of a tied pair change both in the same way, as in PEFT.
    """
    if head.removesuffix(".weight") in contents.tokens:
        raise SettingsError(
            "trained tokens of a head that is tied to its embedding cannot be merged", where=str(adapter)
        )
    new_embeddings = [tensor for name, tensor in contents.saved.items() if _same(name, embedding)]
    new_heads = [tensor for name, tensor in contents.saved.items() if name == head and not _same(name, embedding)]
    updated = {f"{layer}.weight" for layer in contents.low_rank}
    if any(name == head or _same(name, embedding) for name in updated):
        return True
    if new_embeddings and new_heads:
        return _bytes(new_embeddings[-1]) != _bytes(new_heads[-1])
    return bool(new_embeddings or new_heads)


def _same(name: str, tensor: str) -> bool:
    """Whether an adapter's tensor name is the base's; some checkpoints omit the first part, as GPT-2's do."""
    return name == tensor or name.partition(".")[2] == tensor


def _bytes(stored: Stored) -> bytes:
    with open_stored(stored) as handle:
        handle.seek(stored.start)
        return handle.read(stored.size)


def _replaced(
    tensors: Mapping[str, Stored], outputs: Mapping[str, Output], head: str | None, adapter: Path, disk: DiskNames
) -> dict[str, Output]:
    """The outputs that a whole tensor of the adapter replaces, in the base's dtype."""
    replaced = {}
    for adapter_name, stored in tensors.items():
        name = find_tensor(adapter_name, outputs, disk)
        if name is None:
            if adapter_name == head:  # of a tied pair, whose embedding is in the file as well
                continue
            raise IntegrityError(
                f"the base has no tensor {adapter_name!r}, which the adapter includes", where=str(adapter)
            )
        before = outputs[name]
        resized = len(before.shape) == 2 and before.shape[1:] == stored.shape[1:] and name.endswith("weight")
        if before.dtype not in FLOATS or (before.shape != stored.shape and not resized):
            raise IntegrityError(
                f"the adapter's tensor {adapter_name!r} is {stored.shape}, the base's {before.dtype} {before.shape}",
                where=str(adapter),
                fix="this adapter was trained on another base",
            )
        replaced[name] = replace(before, source=stored)
    return replaced


def _add(
    outputs: dict[str, Output], layer: str, low_rank: LowRank, conv1d: bool, adapter: Path, disk: DiskNames
) -> None:
    name = find_tensor(f"{layer}.weight", outputs, disk)
    if name is None:
        raise IntegrityError(
            f"the base has no tensor for the adapter's layer {layer!r}",
            where=str(adapter),
            fix="this adapter was trained on another base",
        )
    before = outputs[name]
    if before.low_rank is not None:
        raise IntegrityError(f"two updates change the base's tensor {name!r}", where=str(adapter))
    outputs[name] = replace(
        before, low_rank=low_rank, transposed=stored_transposed(before.dtype, before.shape, low_rank, conv1d, adapter)
    )
    if low_rank.bias is not None:
        bias = find_tensor(f"{layer}.bias", outputs, disk)
        if bias is None or outputs[bias].shape != (low_rank.up.shape[0],):
            raise IntegrityError(
                f"the adapter adds a bias to layer {layer!r}, and the base's layer has none to add it to",
                where=str(adapter),
                fix="use it attached: lora-med generate --adapter NAME",
            )
        outputs[bias] = replace(outputs[bias], bias=low_rank)


def _add_to_experts(
    outputs: dict[str, Output], stack: ExpertStack, low_rank: LowRank, adapter: Path, disk: DiskNames
) -> None:
    """Update every tensor of the base that holds a part of a stack of experts."""
    parts = disk.parts(stack)
    if parts is None or any(outputs[part.name].dtype not in FLOATS for part in parts):
        raise SettingsError(
            f"the base's files hold the experts {stack.name!r} in a form that a merge cannot write",
            where=str(adapter),
            fix="use the adapter attached: lora-med generate --adapter NAME",
        )
    for part in parts:
        before = outputs[part.name]
        shape, source = before.shape, before.source
        if part.expert is None:
            source = replace(source, shape=(math.prod(shape[:-1]), shape[-1]))
        outputs[part.name] = replace(before, source=source, low_rank=low_rank, experts=part, written_shape=shape)


def _add_tokens(outputs: dict[str, Output], layer: str, tokens: TokenRows, adapter: Path, disk: DiskNames) -> None:
    name = find_tensor(f"{layer}.weight", outputs, disk)
    before = outputs.get(name or "")
    rows = before.shape[0] if before is not None and before.shape else 0
    added = sorted(index for index in tokens.indices if index >= rows)
    if (
        before is None
        or before.dtype not in FLOATS
        or before.shape[1:] != tokens.rows.shape[1:]
        or added != list(range(rows, rows + len(added)))
        or (added and before.low_rank is not None)
    ):
        raise IntegrityError(
            f"the adapter's trained tokens {tokens.rows.shape} of {layer!r} do not fit the base",
            where=str(adapter),
            fix="this adapter was trained on another base",
        )
    outputs[before.name] = replace(before, tokens=tokens)

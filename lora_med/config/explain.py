"""What is wrong with settings, one line each: the place, the key, the value got, what would be right, a near name."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from lora_med.config.near_names import nearest
from lora_med.config.read import Keys, branches, inside, is_section, wanted_at
from lora_med.config.schema import Settings

# Names that other tools use for what we call otherwise.
ELSEWHERE = {
    "alpha": "lora.lora_alpha",
    "attention": "model.attn_implementation",
    "batch_size": "train.per_device_train_batch_size",
    "dataset": "data.paths",
    "dropout": "lora.lora_dropout",
    "epochs": "train.num_train_epochs",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "file": "data.paths",
    "init": "lora.init_lora_weights",
    "load_in_4_bit": "model.load_in_4bit",
    "load_in_8_bit": "model.load_in_8bit",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lr": "train.learning_rate",
    "max_seq_length": "train.max_length",
    "max_sequence_length": "train.max_length",
    "model_id": "model.base",
    "model_name": "model.base",
    "model_name_or_path": "model.base",
    "num_epochs": "train.num_train_epochs",
    "out": "train.output_dir",
    "output": "train.output_dir",
    "path": "data.paths",
    "quantization": "model.load_in_4bit",
    "rank": "lora.r",
    "scheduler": "train.lr_scheduler_type",
    "steps": "train.max_steps",
    "torch_dtype": "model.dtype",
    "warmup": "train.warmup_ratio",
}
KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "nothing",
    Any: "anything",
}
LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def describe(annotation: Any) -> str:
    """What a field wants, in words: `a whole number`, `a list of text`, `one of nf4, fp4`."""
    if is_section(annotation):
        return f"a section with {', '.join(list(annotation.model_fields)[:3])}, ..."
    kind, *others = branches(annotation)
    if others:
        return " or ".join(dict.fromkeys(map(describe, (kind, *others))))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return str(arguments[0]) if len(arguments) == 1 else "one of " + ", ".join(map(str, arguments))
    if origin is list:
        return f"a list of {describe(arguments[0]).removeprefix('a ')}"
    if origin is dict:
        return f"`name: value` pairs, each value {describe(arguments[1])}"
    return KINDS.get(kind, getattr(kind, "__name__", str(kind)))


def _choices(annotation: Any) -> list[str]:
    found = [typing.get_args(branch) for branch in branches(annotation) if typing.get_origin(branch) is typing.Literal]
    return [str(choice) for choices in found for choice in choices]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _everywhere() -> Iterable[tuple[str, str]]:
    for title, field in Settings.model_fields.items():
        yield title, title
        if is_section(field.annotation):
            yield from ((f"{title}.{name}", name) for name in typing.cast(Any, field.annotation).model_fields)


def _unknown(path: Keys) -> str:
    """Where the name that was meant may be: here, under another section, or under another name."""
    name, holder = str(path[-1]), wanted_at(path[:-1])
    here = list(holder.model_fields)
    prefix = "".join(f"{key}." for key in path[:-1])
    meant = ELSEWHERE.get(name.lower().replace("-", "_"))
    meant = meant or next(
        (dotted for dotted, own in _everywhere() if own == name and not dotted.startswith(prefix)), None
    )
    if meant and (name not in here):
        return f"did you mean `{meant}`?"
    near = nearest(name, here)
    if near:
        return f"did you mean `{prefix}{near}`?"
    if not path[:-1]:
        found = nearest(name, (own for _, own in _everywhere()))
        if found:
            return f"did you mean `{next(dotted for dotted, own in _everywhere() if own == found)}`?"
    other = "; any other field of TRL's SFTConfig goes under train.trainer_args" if prefix == "train." else ""
    return f"known: {', '.join(here)}{other}"


def _descended(location: Iterable[str | int], values: Any) -> Keys:
    """The keys of a pydantic location without the names of union branches, which stand for no key."""
    path: list[str | int] = []
    for key in location:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(key)
    return tuple(path)


def _sentence(kind: str, path: Keys, error: Mapping[str, Any]) -> str:
    dotted = ".".join(map(str, path))
    if kind == "extra_forbidden":
        return f"unknown key `{dotted}`: {_unknown(path)}"
    if kind == "value_error":
        told = error["msg"].removeprefix("Value error, ")
        return f"`{dotted}`: {told}" if path else told  # between two sections the text names both
    value, wanted = error["input"], wanted_at(path)
    got = f"`{dotted}`: got {_shown(value)}"
    limits = [f"{LIMITS[name]} {bound:g}" for name, bound in error.get("ctx", {}).items() if name in LIMITS]
    if limits:
        return f"{got}; wanted: {limits[0]}"
    if kind == "finite_number":
        return f"{got}; wanted: a finite number"
    if kind == "string_pattern_mismatch":
        description = inside_description(path)
        return f"{got}; wanted: {description[:1].lower()}{description[1:].rstrip('.')}"
    near = nearest(str(value), _choices(wanted)) if isinstance(value, str) else None
    hint = f"; did you mean {near!r}?" if near else ""
    if isinstance(value, str) and any(typing.get_origin(branch) is list for branch in branches(wanted)) and not near:
        hint = f"; for one value write [{value}]"
    return f"{got}; wanted: {describe(wanted)}{hint}"


def inside_description(path: Keys) -> str:
    """The description of the field at `path`, empty if it has none."""
    holder: Any = Settings
    for key in path[:-1]:
        holder = inside(holder, key)
    field = holder.model_fields.get(str(path[-1])) if is_section(holder) else None
    return (field.description if field is not None else None) or ""


def explain(errors: Iterable[Mapping[str, Any]], values: Any, places: Mapping[Keys, str]) -> dict[Keys, str]:
    """Path -> line, for pydantic's errors about `values`; of a union's several complaints, the deepest."""
    found: dict[Keys, str] = {}
    for error in errors:
        path = _descended(error["loc"], values)
        place = next((places[path[:end]] for end in range(len(path), 0, -1) if path[:end] in places), "")
        line = _sentence(error["type"], path, error)
        found.setdefault(path, f"{place}: {line}" if place else line)
    return {
        path: line
        for path, line in found.items()
        if not any(other[: len(path)] == path and len(other) > len(path) for other in found)
    }

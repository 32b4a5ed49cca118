"""What is wrong with settings, one line each: the line of the file, the key, its value, what is right, a near name."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from lora_med.config.near_names import nearest
from lora_med.config.read import Keys, branches, inside, is_section, wanted_at
from lora_med.config.schema import Settings

# Names of the same settings in other tools.
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
    """What a field takes, in words: `a whole number`, `a list of text`, `one of nf4, fp4`."""
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
    literals = [branch for branch in branches(annotation) if typing.get_origin(branch) is typing.Literal]
    return [str(choice) for literal in literals for choice in typing.get_args(literal)]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _all_keys() -> list[tuple[str, str]]:
    """`(train.seed, seed)` for every key of every section."""
    return [
        (f"{section}.{name}", name)
        for section, field in Settings.model_fields.items()
        if is_section(field.annotation)
        for name in typing.cast(Any, field.annotation).model_fields
    ]


def _suggest(path: Keys) -> str:
    """Which key was meant: the same one in another section, one of another tool's names, or a near one here."""
    section = next(filter(is_section, branches(wanted_at(path[:-1]))))
    name, known = str(path[-1]), list(section.model_fields)
    prefix = "".join(f"{key}." for key in path[:-1])
    exact = [dotted for dotted, key in _all_keys() if key == name]
    if exact:
        return f"did you mean {' or '.join(f'`{dotted}`' for dotted in exact)}?"
    elsewhere = ELSEWHERE.get(name.lower().replace("-", "_"))
    if elsewhere:
        return f"did you mean `{elsewhere}`?"
    near = nearest(name, known)
    if near:
        return f"did you mean `{prefix}{near}`?"
    if not prefix:
        near = nearest(name, {key for _, key in _all_keys()})
        if near:
            return f"did you mean `{next(dotted for dotted, key in _all_keys() if key == near)}`?"
    other = "; any other field of TRL's SFTConfig goes under train.trainer_args" if prefix == "train." else ""
    return f"known: {', '.join(known)}{other}"


def _descended(location: Iterable[str | int], values: Any) -> Keys:
    """The keys of a pydantic location, without the names of union branches, which are no keys."""
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
        return f"unknown key `{dotted}`: {_suggest(path)}"
    if kind == "value_error":
        message = error["msg"].removeprefix("Value error, ")
        return f"`{dotted}`: {message}" if path else message  # a check across sections names both keys itself
    if kind == "missing":
        return f"`{dotted}` lacks the key `{error['loc'][-1]}`, which has no default"
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


def explain(errors: Iterable[Mapping[str, Any]], values: Any, lines: Mapping[Keys, str]) -> dict[Keys, str]:
    """Path -> message, for pydantic's errors about `values`; `lines` holds the line of each path in the file.

    Pydantic reports one error per branch of a union: the one with the longest path is kept.
    """
    messages: dict[Keys, str] = {}
    for error in errors:
        path = _descended(error["loc"], values)
        line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), "")
        message = _sentence(error["type"], path, error)
        messages.setdefault(path, f"{line}: {message}" if line else message)
    return {
        path: message
        for path, message in messages.items()
        if not any(longer[: len(path)] == path and len(longer) > len(path) for longer in messages)
    }

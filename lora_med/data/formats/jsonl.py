"""Records as JSON lines, as `lora-med data read` writes them; `custom` reads texts, pairs and questions back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from lora_med.data.record import Pair, Record

CONVERSATION = "conversation"  # the kind of a pair that was given in turns, without earlier ones


def as_json(record: Record) -> dict[str, Any]:
    """The record as JSON values: uid, group, source, kind, then its kind's fields; a history as role and content.

    A reasoning is written where there is one. A preference is written as `prompt`, `chosen` and `rejected`.
    """
    values = asdict(record)
    fields = {name: values.pop(name) for name in ("uid", "group", "source")}
    fields["kind"] = type(record).__name__.lower()
    if isinstance(record, Pair):
        if values.pop("in_turns") and not record.history:
            fields["kind"] = CONVERSATION
        if not record.reasoning:
            del values["reasoning"]
        if record.rejected:
            values = {"prompt": values.pop("input"), "chosen": values.pop("output")} | values
        else:
            del values["rejected"]
    if "history" in values:
        values["history"] = [{"role": role, "content": content} for role, content in values["history"]]
    return fields | values


def as_line(record: Record) -> bytes:
    """One line of UTF-8, its line break included."""
    return json.dumps(as_json(record), ensure_ascii=False).encode("utf-8") + b"\n"

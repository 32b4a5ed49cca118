"""A settings file for new data, written with the reason beside each value that was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 116


@dataclass(frozen=True)
class Choice:
    """A value of the draft: its key in the settings, such as `data.source`, and the reason for it."""

    key: str
    value: Any
    reason: str


def as_yaml(choices: Sequence[Choice], title: Sequence[str]) -> str:
    """The YAML that `lora-med train --config` runs, with `title` and the reasons as comments.

    Sections are in the order in which `choices` name them first.
    """
    sections: dict[str, list[Choice]] = {}
    for choice in choices:
        sections.setdefault(choice.key.partition(".")[0], []).append(choice)
    lines = [f"# {line}" for line in title]
    for section, members in sections.items():
        lines.append(f"{section}:")
        for choice in members:
            lines += [f"  # {line}" for line in textwrap.wrap(choice.reason, WIDTH)]
            lines.append(f"  {choice.key.partition('.')[2]}: {_flow(choice.value)}")
    return "\n".join(lines) + "\n"


def overrides_of(choices: Sequence[Choice]) -> list[str]:
    """The same values as `section.key=value`, which `parse` checks as it checks a file."""
    return [f"{choice.key}={_flow(choice.value)}" for choice in choices]


def _flow(value: Any) -> str:
    """A value on one line, quoted where YAML would read it as something else."""
    dumped = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return dumped.removesuffix("...\n").strip()

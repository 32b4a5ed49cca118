"""Records to rows by a template's name; a record of the wrong kind is an error that names both."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from lora_med.data.record import Record
from lora_med.errors import SettingsError
from lora_med.prompts.row import AssistantTurns, Row, Template, TooLong
from lora_med.prompts.templates.templates import TEMPLATES, find_template

logger = logging.getLogger(__name__)


@dataclass
class Unfit:
    """How many records lack what their template needs, where the caller counts them over several streams."""

    count: int = 0

    def message(self, template: str | Mapping[str, str]) -> str:
        """What the log says of them."""
        names = [template] if isinstance(template, str) else list(dict.fromkeys(template.values()))
        needs = "; ".join(f"{name} needs {find_template(name).needs}" for name in names if find_template(name).needs)
        return f"{self.count} records are left out: the template {needs}"


def render_stream(
    records: Iterable[Record],
    template: str | Mapping[str, str],
    too_long: TooLong | None = None,
    assistant_turns: AssistantTurns = "last",
    unfit: Unfit | None = None,
) -> Iterator[Row]:
    """One row a record, in order; records that lack what their template needs are left out and counted in the log.

    Args:
        template: a template's name; of a mixture, each source's name mapped to one.
        too_long: what to do with rows too long for the model; None means each template's default. In a mixture, a
            template that cannot be fitted that way uses its default, if another template can.
        assistant_turns: which of the assistant's turns in a conversation are trained; others than the last only where
            the base's own chat template renders the conversation.
        unfit: counts the records that are left out, in place of the log.

    Raises:
        SettingsError: no such template, or it takes another kind of record, or cannot be fitted that way, or trains
            the last turn alone.
    """
    names = {template} if isinstance(template, str) else set(template.values())
    templates = {name: find_template(name) for name in names}
    if assistant_turns == "all":
        _check_turns(templates)
    fitted = [each for each in templates.values() if too_long in each.too_long] or list(templates.values())
    policies = {name: _policy(each, too_long if each in fitted else None) for name, each in templates.items()}
    left_out = Unfit() if unfit is None else unfit
    for record in records:
        chosen = templates[template if isinstance(template, str) else template[record.source]]
        _check_kind(record, chosen)
        if chosen.fits(record):
            row = chosen.render(record)
            turns: AssistantTurns = assistant_turns if row.by_base else "last"
            yield replace(row, too_long=policies[chosen.name], assistant_turns=turns)
        else:
            left_out.count += 1
    if unfit is None and left_out.count:
        logger.warning("%s", left_out.message(template))


def fitting(records: Iterable[Record], template: str) -> list[Record]:
    """The records that have what the template needs; `render` makes a row of each."""
    chosen = find_template(template)
    return [record for record in records if not isinstance(record, chosen.takes) or chosen.fits(record)]


def _policy(template: Template, too_long: TooLong | None) -> TooLong:
    if too_long is None:
        return template.too_long[0]
    if too_long not in template.too_long:
        raise SettingsError(
            f"rows of the template {template.name!r} cannot be fitted by {too_long!r}",
            where="train.too_long",
            fix=f"one of {', '.join(template.too_long)}",
        )
    return too_long


def _check_turns(templates: Mapping[str, Template]) -> None:
    able = [name for name, template in TEMPLATES.items() if template.by_base]
    if not set(able) & set(templates):
        raise SettingsError(
            f"the template {min(templates)!r} does not train all of the assistant's turns",
            where="train.assistant_turns",
            fix=f"last, or data.template to one of {', '.join(able)}",
        )


def _check_kind(record: Record, template: Template) -> None:
    if not isinstance(record, template.takes):
        kind, taken = _with_article(type(record).__name__), _with_article(template.takes.__name__)
        fitting = [name for name, other in TEMPLATES.items() if isinstance(record, other.takes)]
        raise SettingsError(
            f"the template {template.name!r} takes {taken}, and record {record.uid} is {kind}",
            where="data.template",
            fix=f"templates for {kind}: {', '.join(fitting) or 'none'}",
        )


def render(records: Iterable[Record], template: str | Mapping[str, str], too_long: TooLong | None = None) -> list[Row]:
    """One row a record; see `render_stream`."""
    return list(render_stream(records, template, too_long))


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"

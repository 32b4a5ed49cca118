"""Records to rows by a template's name; a record of the wrong kind is an error that names both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lora_med.data.record import Record
from lora_med.errors import SettingsError
from lora_med.prompts.row import Row
from lora_med.prompts.templates import TEMPLATES, find_template


def render_stream(records: Iterable[Record], template: str) -> Iterator[Row]:
    """One row a record, as they come.

    Raises:
        SettingsError: no such template, or it takes another kind of record.
    """
    found = find_template(template)
    for record in records:
        if not isinstance(record, found.takes):
            kind = type(record).__name__
            fitting = [name for name, other in TEMPLATES.items() if isinstance(record, other.takes)]
            raise SettingsError(
                f"the template {template!r} takes a {found.takes.__name__}, and record {record.uid} is a {kind}",
                where="data.template",
                fix=f"templates for a {kind}: {', '.join(fitting) or 'none'}",
            )
        yield found.render(record)


def render(records: Iterable[Record], template: str) -> list[Row]:
    """One row a record; see `render_stream`."""
    return list(render_stream(records, template))

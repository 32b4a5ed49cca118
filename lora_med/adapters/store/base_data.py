"""What a base learned before: a merged model, or an export of one, has papers beside it that say so.

Whatever is made with such a base has learned from that data too, so the strictest access class of both holds for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import DataFacts
from lora_med.data.access import CLASSES, CREDENTIALED, Access, strictest
from lora_med.files import read_json

PAPERS = ("merge_certificate.json", "export.json")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaseData:
    """The data of the adapters that are merged into a base: strictest access class, sources and licenses."""

    access: Access
    sources: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()

    def joined(self, data: DataFacts) -> DataFacts:
        """The facts about an adapter's data together with these: sources as earlier ones, the strictest class."""
        own = data.source.split("+")
        earlier = [*data.earlier_sources, *(source for source in self.sources if source not in own)]
        licenses = [data.license, *self.licenses]
        return replace(
            data,
            access=strictest([data.access, self.access]),
            license="; ".join(dict.fromkeys(part for text in licenses for part in text.split("; "))),
            earlier_sources=list(dict.fromkeys(earlier)),
        )


def base_data(*places: Path | str) -> BaseData | None:
    """The data of a base by the papers in its folder, or beside its file; None where there are none.

    Papers that name no class that exists count as the strictest one.

    Args:
        places: the base as it was named, and its folder, which is another one for a base of the Hub.

    Raises:
        IntegrityError: a paper cannot be read.
    """
    folders = dict.fromkeys(folder.resolve() for place in places for folder in _folders(place))
    papers = [folder / name for folder in folders for name in PAPERS]
    found = [_data_in(paper) for paper in papers if paper.is_file()]
    if not found:
        return None
    return BaseData(
        strictest(one.access for one in found),
        tuple(dict.fromkeys(source for one in found for source in one.sources)),
        tuple(dict.fromkeys(text for one in found for text in one.licenses)),
    )


def base_access(*places: Path | str) -> Access | None:
    """The strictest access class of what a base learned; as `base_data`."""
    found = base_data(*places)
    return None if found is None else found.access


def with_base_data(data: DataFacts, *places: Path | str) -> DataFacts:
    """The facts about a new adapter's data, with those of its base; as `base_data`. A stricter class is logged."""
    found = base_data(*places)
    joined = data if found is None else found.joined(data)
    if joined.access != data.access:
        logger.warning(
            "the base holds what an adapter learned from %s data, so this adapter is handled as learned from it, too",
            joined.access,
        )
    return joined


def strictest_with_base(classes: Iterable[str], *places: Path | str) -> Access:
    """The strictest of these classes and of the base's; as `base_data`."""
    found = base_access(*places)
    return strictest([*classes, *([] if found is None else [found])])


def _data_in(paper: Path) -> BaseData:
    content = read_json(paper)
    data = content.get("data") if isinstance(content, dict) else None
    facts: dict[str, Any] = data if isinstance(data, dict) else {}
    earlier = facts.get("earlier_sources")
    sources = [*(earlier if isinstance(earlier, list) else []), *str(facts.get("source") or "").split("+")]
    license = facts.get("license")
    stated = facts.get("access")
    return BaseData(
        strictest([stated]) if stated in CLASSES else CREDENTIALED,
        tuple(source for source in sources if isinstance(source, str) and source),
        (license,) if isinstance(license, str) and license else (),
    )


def _folders(place: Path | str) -> list[Path]:
    """Where the papers of a base may be: in its folder, or beside its file."""
    with suppress(RuntimeError, OSError):  # no such user's home; a name too long for any file
        path = Path(place).expanduser()
        if path.is_dir():
            return [path]
        if path.is_file():
            return [path.parent, path.resolve().parent]
    return []

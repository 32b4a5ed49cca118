"""card.json: an adapter's identity, its base, its training data, and the hash of each of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lora_med.data.access import CLASSES
from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.files import read_json, readable
from lora_med.models.fingerprint import Fingerprint

CARD = "card.json"
FORMAT = 2
READ_FORMATS = (1, FORMAT)  # 1 has British spelling
FORMAT_1_NAMES = {"license": "licence", "quantization": "quantisation"}
SECRET = re.compile(r"(^|_)(token|secret|password|api_?key)$", re.IGNORECASE)
SOURCE_AND_PATH = re.compile(r"([a-z0-9_]+:)((?!//).+)")  # `pubmedqa:/data/test.json`, but no https://
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BaseIdentity:
    """The base of an adapter; `quantization` and `dtype` are those of the training.

    `origin` describes the file from which the base was made, such as a GGUF: its SHA-256, quantization, license, name.
    """

    name: str
    revision: str | None
    fingerprint: Fingerprint
    quantization: str
    dtype: str
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """The training data of the adapter: names and hashes only. `access` is the strictest class of the sources.

    `separation` lists, for each source and then for all together, what was removed from training to keep it separate
    from test data. `mixture` lists what each source contributed. `columns` lists, for each source of the user's own
    rows, which columns were used as what, which were not used, and what the group is. `earlier_sources` are the sources
    of the adapters from which this one continues.
    """

    source: str
    license: str
    access: str
    hashes: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    separation: list[dict[str, Any]] = field(default_factory=list)
    mixture: list[dict[str, Any]] = field(default_factory=list)
    earlier_sources: list[str] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.access not in CLASSES:
            raise SettingsError(
                f"access class {self.access!r} is not one of {', '.join(CLASSES)}", where="adapter.access"
            )


@dataclass(frozen=True)
class Card:
    """All facts about an adapter; `files` maps each file beside the card to its SHA-256.

    `parents` are the adapters from which it was composed: name, weight, hash of the card, source, template, data
    settings. `labels` are the tags of an adapter that tags tokens, in the order of its head's outputs. `tokens` maps
    each token that it trained to its id. Those that the base's tokenizer does not have are added to a copy of it.
    `memorization` is the result of its audit (store/memorization_bound.py), if there was one. `privacy` is what its
    training spent, if it had differential privacy.
    """

    name: str
    description: str
    base: BaseIdentity
    method: dict[str, Any]
    template: str
    data: DataFacts
    settings: dict[str, Any]
    scores: dict[str, Any]
    versions: dict[str, str]
    created: str
    files: dict[str, str]
    parents: list[dict[str, Any]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    memorization: dict[str, Any] = field(default_factory=dict)
    privacy: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of card.json, without what this adapter does not have: tokens, an audit, privacy, an origin."""
        content = {"format": FORMAT, **asdict(self)}
        for name in ("tokens", "memorization", "privacy"):
            if not content[name]:
                del content[name]
        if not self.base.origin:
            del content["base"]["origin"]
        return content


def read_card(folder: Path) -> Card:
    """The card of the adapter in `folder`.

    Raises:
        InputMissingError, IntegrityError: as `read_card_bytes` and `parse_card`.
    """
    return parse_card(read_card_bytes(folder), folder)


def read_card_bytes(folder: Path) -> bytes:
    """The bytes of the card in `folder`.

    Raises:
        InputMissingError: there is no card, so the folder is not a published adapter.
    """
    path = folder / CARD
    with readable(path):
        is_card = path.is_file()
    if not is_card:
        raise InputMissingError(
            f"no {CARD} in {folder.name!r}: lora_med did not publish an adapter there",
            where=str(folder),
            fix="lora-med adapters list shows the published adapters",
        )
    with readable(path):
        return path.read_bytes()


def parse_card(content: bytes, folder: Path) -> Card:
    """The card in the bytes `content`, which were read from the adapter's `folder`.

    Raises:
        IntegrityError: the card lacks a field, or a field has an impossible value.
    """
    path = folder / CARD
    raw = read_json(path, content)
    version = raw.get("format") if isinstance(raw, dict) else None
    if version not in READ_FORMATS:
        raise IntegrityError(
            f"the card has format {version!r}; this version of lora_med reads formats {READ_FORMATS}",
            where=str(path),
            fix="pip install --upgrade lora-med, or publish the adapter again",
        )
    try:
        card = _parse(raw)
    except (KeyError, TypeError, ValueError, AttributeError, SettingsError) as error:
        raise IntegrityError(
            f"the card cannot be read: {_reason(error)}", where=str(path), fix="restore it from a copy"
        ) from error
    for name, digest in card.files.items():
        if Path(name).name != name or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise IntegrityError(f"the card's entry for file {name!r} is not a name and a SHA-256", where=str(path))
    return card


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]


def _parse(raw: Mapping[str, Any]) -> Card:
    base, data = raw["base"], raw["data"]
    hashes = base["fingerprint"]
    return Card(
        name=_text(raw, "name"),
        description=_text(raw, "description"),
        base=BaseIdentity(
            name=_text(base, "name"),
            revision=base["revision"],
            fingerprint=Fingerprint(_text(hashes, "weights"), _text(hashes, "tokenizer"), _text(hashes, "template")),
            quantization=_text(base, _key("quantization", base)),
            dtype=_text(base, "dtype"),
            origin=dict(base.get("origin", {})),
        ),
        method=dict(raw["method"]),
        template=_text(raw, "template"),
        data=DataFacts(
            source=_text(data, "source"),
            license=_text(data, _key("license", data)),
            access=_text(data, "access"),
            hashes=dict(data["hashes"]),
            counts=dict(data["counts"]),
            separation=list(data.get("separation", [])),
            mixture=list(data.get("mixture", [])),
            earlier_sources=list(data.get("earlier_sources", [])),
            columns=list(data.get("columns", [])),
        ),
        settings=dict(raw["settings"]),
        scores=dict(raw["scores"]),
        versions=dict(raw["versions"]),
        created=_text(raw, "created"),
        files=dict(raw["files"]),
        parents=[dict(parent) for parent in raw.get("parents", [])],
        labels=[str(label) for label in raw.get("labels", [])],
        tokens=_token_ids(raw.get("tokens", {})),
        memorization=_audit(raw.get("memorization", {})),
        privacy=dict(raw.get("privacy", {})),
    )


def _audit(values: Mapping[str, Any]) -> dict[str, Any]:
    """The result of an audit; without its bound nobody could tell whether the adapter may be passed on."""
    if values and not isinstance(dict(values["bound"])["exceeded"], list):
        raise TypeError("'memorization.bound.exceeded' is not a list")
    return dict(values)


def _token_ids(values: Mapping[str, Any]) -> dict[str, int]:
    wrong = next(
        (token for token, number in values.items() if type(number) is not int or number < 0 or not token), None
    )
    if wrong is not None or len(set(values.values())) < len(values):
        raise ValueError("'tokens' does not map each token to an id of its own")
    return dict(values)


def _key(name: str, values: Mapping[str, Any]) -> str:
    """The key of a field in the spelling of the card's format."""
    older = FORMAT_1_NAMES[name]
    return older if name not in values and older in values else name


def _text(values: Mapping[str, Any], key: str) -> str:
    if not isinstance(values[key], str):
        raise TypeError(f"{key!r} is not text")
    return values[key]


def shareable(value: Any) -> Any:
    """`value` without machine paths and secrets: an absolute path keeps its last part, a secret is removed."""
    if isinstance(value, Mapping):
        return {str(key): shareable(inner) for key, inner in value.items() if not SECRET.search(str(key))}
    if isinstance(value, list | tuple | set | frozenset):
        return [shareable(inner) for inner in value]
    if isinstance(value, str | Path):
        return _without_folders(str(value))
    return value


def _without_folders(text: str) -> str:
    if "\n" in text:
        return text
    named = SOURCE_AND_PATH.fullmatch(text)
    if named:
        return named[1] + _without_folders(named[2])
    if PurePosixPath(text).is_absolute() or text.startswith("~"):
        return PurePosixPath(text).name
    return PureWindowsPath(text).name if PureWindowsPath(text).is_absolute() else text

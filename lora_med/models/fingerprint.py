"""The identity of a base: SHA-256 of its weights, its tokenizer and its chat template, from the files on disk.

A base loaded in 4 bits has the identity of its files, and so has one that is quantized on disk. Re-sharding, renaming
files or changing a file's metadata does not change the identity; one flipped bit in one weight does. Memory is
constant: one megabyte per thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError, LoraMedError
from lora_med.files import BLOCK_BYTES, read_json, sha256_file
from lora_med.models.files.file_cache import cache_file_for, cache_folder, cached_value
from lora_med.models.files.weight_files import Stored, read_headers

TOKENIZER_CONFIG = "tokenizer_config.json"
# cache folders for the digests of both; use a new name if what is hashed changes
WEIGHTS, TOKENIZERS = "fingerprints", "tokenizers"
ROLE_FILES = ("special_tokens_map.json", TOKENIZER_CONFIG)
TOKENIZER_FILES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "added_tokens.json")
RUNTIME_ONLY = ("truncation", "padding")  # state of the last call, which some versions save with the tokenizer
MOST_SEARCHED = 500  # cached bases that are searched for the base of an adapter
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256, hexadecimal, of each part of a base that an adapter relies on."""

    weights: str
    tokenizer: str
    template: str

    def differing(self, other: Fingerprint) -> list[str]:
        """Which of weights, tokenizer and template differ."""
        return [part for part, digest in asdict(self).items() if digest != getattr(other, part)]


def fingerprint(folder: Path, *, fresh: bool = False) -> Fingerprint:
    """The identity of the model in `folder`; digests are cached until a file changes.

    Args:
        fresh: read every file again and ignore the cache.

    Raises:
        InputMissingError: no safetensors weights there.
        IntegrityError: a weight file is truncated, or the tokenizer is not JSON.
    """
    return Fingerprint(weights_digest(folder, fresh=fresh), _tokenizer(folder, fresh=fresh), _template(folder))


def weights_digest(folder: Path, *, fresh: bool = False) -> str:
    """SHA-256 of the safetensors weights in `folder`, cached until a file changes; see `fingerprint`."""
    tensors = read_headers(folder)
    cache_file = cache_file_for((stored.file for stored in tensors.values()), WEIGHTS)
    return cached_value(
        "weights", cache_file, lambda: _digest_tensors(tensors), fresh=fresh, folder=str(folder.resolve())
    )


def folder_with(target: Fingerprint) -> Path | None:
    """A local folder that held this base when it was last hashed; its tokenizer and template are checked again."""
    newest = sorted(cache_folder(WEIGHTS).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for cache_file in newest[:MOST_SEARCHED]:
        with contextlib.suppress(LoraMedError, KeyError, TypeError, OSError):
            entry = read_json(cache_file)
            folder = Path(entry["folder"])
            if entry["weights"] != target.weights or not folder.is_dir():
                continue
            if Fingerprint(target.weights, _tokenizer(folder), _template(folder)) == target:
                return folder
    return None


def _digest_tensors(tensors: dict[str, Stored]) -> str:
    """SHA-256 over `name, dtype, shape, SHA-256 of the bytes` of each tensor, a line each, sorted by name."""
    ordered = [tensors[name] for name in sorted(tensors)]
    combined = hashlib.sha256()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for stored, digest in zip(ordered, pool.map(_digest_bytes, ordered), strict=True):
            combined.update(f"{json.dumps(stored.name)} {stored.dtype} {list(stored.shape)} {digest}\n".encode())
    return combined.hexdigest()


def _digest_bytes(stored: Stored) -> str:
    digest = hashlib.sha256()
    remaining = stored.size
    with open(stored.file, "rb") as handle:
        handle.seek(stored.start)
        while remaining and (block := handle.read(min(BLOCK_BYTES, remaining))):
            digest.update(block)
            remaining -= len(block)
    return digest.hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode()


def _tokenizer(folder: Path, *, fresh: bool = False) -> str:
    """The digest of the tokenizer; cached for a tokenizer.json, which takes half a second for each 50,000 words."""
    tokenizer_file = folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        return _digest_tokenizer(folder)
    files = [path for path in (tokenizer_file, *(folder / name for name in ROLE_FILES)) if path.is_file()]
    cache_file = cache_file_for(files, TOKENIZERS)
    return cached_value("tokenizer", cache_file, lambda: _digest_tokenizer(folder), fresh=fresh)


def _digest_tokenizer(folder: Path) -> str:
    """tokenizer.json without its runtime state (else the vocabulary files), and the special tokens' roles."""
    digest = hashlib.sha256(_canonical(_roles(folder)))
    tokenizer_file = folder / "tokenizer.json"
    if tokenizer_file.is_file():
        content = read_json(tokenizer_file)
        if not isinstance(content, dict):
            raise IntegrityError(
                "the tokenizer is not a JSON object", where=str(tokenizer_file), fix="copy or download it again"
            )
        digest.update(_canonical({key: value for key, value in content.items() if key not in RUNTIME_ONLY}))
    else:
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                digest.update(f"{name} {sha256_file(folder / name)}\n".encode())
    return digest.hexdigest()


def _roles(folder: Path) -> dict[str, str]:
    """Role -> token text, from whichever file and notation names it."""
    roles: dict[str, str] = {}
    for name in ROLE_FILES:
        for role in SPECIAL:
            token = _settings(folder, name).get(role)
            content = token.get("content") if isinstance(token, dict) else token
            if content is not None:
                roles[role] = str(content)
    return roles


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def template_text(folder: Path) -> str:
    """The chat template's source as transformers would take it, or '' if there is none.

    Raises:
        IntegrityError: it is not UTF-8.
    """
    template_file = folder / "chat_template.jinja"
    if template_file.is_file():
        try:
            return template_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise IntegrityError(
                "the template is not UTF-8", where=str(template_file), fix="copy or download it again"
            ) from error
    template = _settings(folder, TOKENIZER_CONFIG).get("chat_template") or ""
    return template if isinstance(template, str) else _canonical(template).decode()


def _template(folder: Path) -> str:
    return hashlib.sha256(template_text(folder).encode()).hexdigest()

"""The identity of a base: SHA-256 of its weights, its tokenizer and its chat template, from the files on disk.

A 4-bit load has the identity of its original. Re-sharding, renaming files or changing a file's metadata changes
nothing; one flipped bit in one weight does. Memory is constant: blocks of a megabyte per thread.
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
from lora_med.models.files.file_cache import memories, memory_for, remembered
from lora_med.models.files.weight_files import Stored, read_headers

TOKENIZER_CONFIG = "tokenizer_config.json"
# folders in which the digests of both are remembered; another name where what is hashed changes
WEIGHTS, TOKENIZERS = "fingerprints", "tokenizers"
ROLE_FILES = ("special_tokens_map.json", TOKENIZER_CONFIG)
TOKENIZER_FILES = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "added_tokens.json")
RUNTIME_ONLY = ("truncation", "padding")  # state of the last call, which some versions save with the tokenizer
MOST_REMEMBERED = 500  # bases that are looked through for the one an adapter belongs to
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256, hexadecimal, of each part of a base that an adapter relies on."""

    weights: str
    tokenizer: str
    template: str

    def differing(self, other: Fingerprint) -> list[str]:
        """Which of weights, tokenizer and template are not the same."""
        return [part for part, digest in asdict(self).items() if digest != getattr(other, part)]


def fingerprint(folder: Path, *, fresh: bool = False) -> Fingerprint:
    """The identity of the model in `folder`; what takes long to read is remembered until a file changes.

    Args:
        fresh: read all anew even if it is remembered.

    Raises:
        InputMissingError: no safetensors weights there.
        IntegrityError: a weight file is torn, or the tokenizer is no JSON.
    """
    return Fingerprint(weights_digest(folder, fresh=fresh), _tokenizer(folder, fresh=fresh), _template(folder))


def weights_digest(folder: Path, *, fresh: bool = False) -> str:
    """SHA-256 of the safetensors weights in `folder`, remembered until a file changes; see `fingerprint`."""
    tensors = read_headers(folder)
    memory = memory_for((stored.file for stored in tensors.values()), WEIGHTS)
    return remembered("weights", memory, lambda: _digest_tensors(tensors), fresh=fresh, folder=str(folder.resolve()))


def folder_with(wanted: Fingerprint) -> Path | None:
    """A folder of this machine that was once found to hold this base, and still does by its tokenizer and template."""
    newest = sorted(memories(WEIGHTS).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for memory in newest[:MOST_REMEMBERED]:
        with contextlib.suppress(LoraMedError, KeyError, TypeError, OSError):
            known = read_json(memory)
            folder = Path(known["folder"])
            if known["weights"] != wanted.weights or not folder.is_dir():
                continue
            if Fingerprint(wanted.weights, _tokenizer(folder), _template(folder)) == wanted:
                return folder
    return None


def _digest_tensors(tensors: dict[str, Stored]) -> str:
    """SHA-256 over `name, dtype, shape, SHA-256 of the bytes` of each tensor, a line each, sorted by name."""
    ordered = [tensors[name] for name in sorted(tensors)]
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for stored, digest in zip(ordered, pool.map(_digest_bytes, ordered), strict=True):
            whole.update(f"{json.dumps(stored.name)} {stored.dtype} {list(stored.shape)} {digest}\n".encode())
    return whole.hexdigest()


def _digest_bytes(stored: Stored) -> str:
    digest = hashlib.sha256()
    left = stored.size
    with open(stored.file, "rb") as handle:
        handle.seek(stored.start)
        while left and (block := handle.read(min(BLOCK_BYTES, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True).encode()


def _tokenizer(folder: Path, *, fresh: bool = False) -> str:
    """The digest of the tokenizer; of a tokenizer.json, which takes half a second for each 50,000 words, remembered."""
    whole = folder / "tokenizer.json"
    if not whole.is_file():
        return _digest_tokenizer(folder)
    files = [path for path in (whole, *(folder / name for name in ROLE_FILES)) if path.is_file()]
    memory = memory_for(files, TOKENIZERS)
    return remembered("tokenizer", memory, lambda: _digest_tokenizer(folder), fresh=fresh)


def _digest_tokenizer(folder: Path) -> str:
    """tokenizer.json without its runtime state (else the vocabulary files), and the special tokens' roles."""
    digest = hashlib.sha256(_canonical(_roles(folder)))
    whole = folder / "tokenizer.json"
    if whole.is_file():
        content = read_json(whole)
        if not isinstance(content, dict):
            raise IntegrityError("the tokenizer is no JSON object", where=str(whole), fix="copy or download it again")
        digest.update(_canonical({key: value for key, value in content.items() if key not in RUNTIME_ONLY}))
    else:
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                digest.update(f"{name} {sha256_file(folder / name)}\n".encode())
    return digest.hexdigest()


def _roles(folder: Path) -> dict[str, str]:
    """Role -> token text, whichever file and notation names it."""
    found: dict[str, str] = {}
    for name in ROLE_FILES:
        for role in SPECIAL:
            token = _settings(folder, name).get(role)
            content = token.get("content") if isinstance(token, dict) else token
            if content is not None:
                found[role] = str(content)
    return found


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}


def template_text(folder: Path) -> str:
    """The chat template's source as transformers would take it, or '' if there is none.

    Raises:
        IntegrityError: it is no UTF-8.
    """
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        try:
            return alone.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise IntegrityError(
                "the template is no UTF-8", where=str(alone), fix="copy or download it again"
            ) from error
    template = _settings(folder, TOKENIZER_CONFIG).get("chat_template") or ""
    return template if isinstance(template, str) else _canonical(template).decode()


def _template(folder: Path) -> str:
    return hashlib.sha256(template_text(folder).encode()).hexdigest()

"""Signed lists of files: who vouches for an adapter, a merged model, an export or a report. No network is needed.

A signature is an in-toto statement (https://in-toto.io/Statement/v1) with the SHA-256 of each file of a folder, in a
DSSE envelope (https://github.com/secure-systems-lab/dsse), signed with Ed25519. Both are what Sigstore's tools use.
The envelope is a file of the folder and takes further signatures over the same list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_med.errors import DependencyMissingError, InputMissingError, IntegrityError, OutputError, SettingsError
from lora_med.files import atomic_stream, read_json, readable, sha256_file, write_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURES = "signatures.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:lora_med:signed-folder:1"
OTHERS = (stat.S_IRWXG, stat.S_IRWXO)
PAPERS = {
    "card.json": "adapter",
    "merge_certificate.json": "merged model",
    "export.json": "export",
    "report.json": "report",
}


@dataclass(frozen=True)
class SignedFolder:
    """What a valid signature says: the kind of folder, when it was signed, and its files' SHA-256 by name."""

    kind: str
    signed: str
    files: dict[str, str]
    key_id: str


def new_keys(private: Path, public: Path) -> str:
    """Write a new pair of keys as PEM files, the private one for its owner alone; returns the public key's id.

    Raises:
        OutputError: one of the files exists.
        DependencyMissingError: the package cryptography is not installed.
    """
    ed25519, serialization = _library()
    for path in (private, public):
        if path.exists():
            raise OutputError("a key may be there already", where=str(path), fix="name files that do not exist")
    key = ed25519.Ed25519PrivateKey.generate()
    encoding, no_encryption = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_encryption)
    with atomic_stream(private, private=True) as stream:
        stream.write(secret)
    with atomic_stream(public) as stream:
        stream.write(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    return key_id(key.public_key())


def key_id(public: Ed25519PublicKey) -> str:
    """SHA-256 of the public key's DER bytes: the name of a key in an envelope."""
    _, serialization = _library()
    encoded = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def sign(folder: Path, key_file: Path) -> SignedFolder:
    """Sign all files of a folder; a list that is there and still true gets one more signature.

    Raises:
        InputMissingError: the folder has no card, certificate, export record or report, or the key is not there.
        IntegrityError: the folder was signed before, and a file has changed since.
        SettingsError: the key is not an Ed25519 private key without a passphrase.
    """
    key, kind = _private_key(key_file), kind_of(folder)
    path = folder / SIGNATURES
    if path.is_file():
        envelope, statement = _envelope(path)
        problems = _differences(statement["files"], folder)
        if problems:
            raise IntegrityError(
                f"the folder was signed, and since then {problems[0]}",
                where=str(folder),
                fix=f"remove {SIGNATURES} if the change is meant, then sign again",
            )
    else:
        envelope, statement = _new_envelope(folder, kind)
    own = key_id(key.public_key())
    others = [entry for entry in envelope["signatures"] if entry["keyid"] != own]
    signature = key.sign(_to_sign(base64.b64decode(envelope["payload"])))
    envelope["signatures"] = [*others, {"keyid": own, "sig": base64.b64encode(signature).decode()}]
    write_json(path, envelope, private=not any(stat.S_IMODE(folder.stat().st_mode) & bits for bits in OTHERS))
    return SignedFolder(statement["kind"], statement["signed"], statement["files"], own)


def check_signature(folder: Path, key_file: Path) -> SignedFolder:
    """What the owner of a public key has signed about a folder, after all its files were hashed again.

    Raises:
        InputMissingError: the folder is not signed, or the key is not there.
        IntegrityError: not signed with this key, or the signature is wrong, or a file was changed, removed or added.
        SettingsError: the key is not an Ed25519 public key.
    """
    public = _public_key(key_file)
    path = folder / SIGNATURES
    if not path.is_file():
        raise InputMissingError("not signed", where=str(folder), fix=f"lora-med sign add {folder} --key PRIVATE.pem")
    envelope, statement = _envelope(path)
    own = key_id(public)
    signatures = [entry["sig"] for entry in envelope["signatures"] if entry["keyid"] == own]
    if not signatures:
        raise IntegrityError("not signed with this key", where=str(path), fix="ask the signer for the public key")
    if not any(_is_valid(public, envelope["payload"], signature) for signature in signatures):
        raise IntegrityError("the signature is wrong: the list of files was changed after it", where=str(path))
    problems = _differences(statement["files"], folder)
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise IntegrityError(f"{problems[0]}{more}", where=str(folder), fix="get the folder again from its signer")
    return SignedFolder(statement["kind"], statement["signed"], statement["files"], own)


def changed_since(folder: Path) -> list[str]:
    """What of a signed folder is no longer as its list has it; whose list that is needs `check_signature`.

    Raises:
        InputMissingError, IntegrityError: the envelope cannot be read.
    """
    return _differences(_envelope(folder / SIGNATURES)[1]["files"], folder)


def kind_of(folder: Path) -> str:
    """What a folder is, by the paper in it.

    Raises:
        InputMissingError: it has none of `PAPERS`.
    """
    kinds = [kind for paper, kind in PAPERS.items() if (folder / paper).is_file()]
    if not kinds:
        raise InputMissingError(
            f"the folder has none of {', '.join(PAPERS)}", where=str(folder), fix="name a folder that lora-med made"
        )
    return kinds[0]


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 by name of every file below the folder but the envelope; a link is refused."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise IntegrityError("a link cannot be signed", where=str(path), fix="put the file in its place")
        if path.is_file() and path.name != SIGNATURES:
            hashes[path.relative_to(folder).as_posix()] = sha256_file(path)
    return hashes


def _differences(signed: dict[str, str], folder: Path) -> list[str]:
    """What is no longer as signed, the papers first."""
    present = _files(folder)
    names = sorted({*signed, *present}, key=lambda name: (name not in PAPERS, name))
    changed = {name: "was changed" for name in signed.keys() & present.keys() if signed[name] != present[name]}
    changed |= dict.fromkeys(signed.keys() - present.keys(), "is missing")
    changed |= dict.fromkeys(present.keys() - signed.keys(), "was added")
    return [f"{name} {changed[name]}" for name in names if name in changed]


def _new_envelope(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    statement = {"kind": kind, "signed": datetime.now(UTC).isoformat(timespec="seconds"), "files": _files(folder)}
    subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in statement["files"].items()]
    predicate = {"kind": kind, "signed": statement["signed"]}
    content = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    payload = base64.b64encode(json.dumps(content, ensure_ascii=True, sort_keys=True).encode()).decode()
    return {"payloadType": PAYLOAD_TYPE, "payload": payload, "signatures": []}, statement


def _envelope(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The envelope, and the kind, time and files of its statement; nothing in it is trusted yet."""
    envelope = read_json(path)
    try:
        content = json.loads(base64.b64decode(envelope["payload"], validate=True))
        signatures = [{"keyid": str(entry["keyid"]), "sig": str(entry["sig"])} for entry in envelope["signatures"]]
        files = {str(entry["name"]): str(entry["digest"]["sha256"]) for entry in content["subject"]}
        statement = {"kind": str(content["predicate"]["kind"]), "signed": str(content["predicate"]["signed"])}
        known = (envelope["payloadType"], content["_type"], content["predicateType"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError("not an envelope of signatures", where=str(path)) from error
    if known != (PAYLOAD_TYPE, STATEMENT, PREDICATE):
        raise IntegrityError(f"signs something else: {known[2]!r}", where=str(path))
    return {**envelope, "signatures": signatures}, {**statement, "files": files}


def _to_sign(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _is_valid(public: Ed25519PublicKey, payload: str, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(base64.b64decode(signature, validate=True), _to_sign(base64.b64decode(payload)))
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _private_key(path: Path) -> Ed25519PrivateKey:
    ed25519, serialization = _library()
    try:
        key = serialization.load_pem_private_key(_key_bytes(path), None)
    except (ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise _bad_key(path, "private") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _bad_key(path, "private")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    ed25519, serialization = _library()
    try:
        key = serialization.load_pem_public_key(_key_bytes(path))
    except ValueError as error:
        raise _bad_key(path, "public") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _bad_key(path, "public")
    return key


def _key_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise InputMissingError("no such key", where=str(path), fix="lora-med sign keys PRIVATE.pem PUBLIC.pem")
    with readable(path):
        return path.read_bytes()


def _bad_key(path: Path, half: str) -> SettingsError:
    return SettingsError(
        f"not an Ed25519 {half} key in PEM without a passphrase",
        where=str(path),
        fix="lora-med sign keys PRIVATE.pem PUBLIC.pem",
    )


def _library() -> Sequence[Any]:
    """cryptography's modules of Ed25519 and of key files."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise DependencyMissingError(
            "signatures need the package cryptography, which is not installed",
            where="lora-med sign",
            fix='pip install "lora-med[sign]"',
        ) from error
    return ed25519, serialization

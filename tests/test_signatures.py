"""Signed lists of files: a changed byte, paper or report is named, and the envelope is one that other tools know."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from lora_med.errors import InputMissingError, IntegrityError, OutputError, SettingsError
from lora_med.signatures import PAPERS, SIGNATURES, check_signature, new_keys, sign

pytest.importorskip("cryptography", reason="the extra sign is not installed")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    new_keys(private, public)
    return private, public


@pytest.fixture(params=PAPERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / request.param).write_text('{"access": "open"}', encoding="utf-8")
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "inner" / "page.html").write_text("<p>", encoding="utf-8")
    return folder


def test_what_was_signed_is_found_with_its_kind_and_hashes(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    signed = check_signature(folder, keys[1])
    assert signed.kind in PAPERS.values()
    assert signed.files["weights.bin"] == hashlib.sha256(bytes(range(256))).hexdigest()
    assert set(signed.files) == {"weights.bin", "inner/page.html", *(PAPERS.keys() & signed.files.keys())}


def test_each_changed_missing_and_added_file_is_named(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        content = (folder / name).read_bytes()
        if name == SIGNATURES:
            continue
        for position in (0, len(content) - 1):
            (folder / name).write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises(IntegrityError, match=f"{name} was changed"):
                check_signature(folder, keys[1])
        (folder / name).unlink()
        with pytest.raises(IntegrityError, match=f"{name} is missing"):
            check_signature(folder, keys[1])
        (folder / name).write_bytes(content)
    (folder / "more.bin").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"more\.bin was added"):
        check_signature(folder, keys[1])


def test_every_changed_byte_of_the_envelope_is_refused(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "card.json").write_text("{}", encoding="utf-8")
    sign(tmp_path / "card", keys[0])
    path = tmp_path / "card" / SIGNATURES
    content = path.read_bytes()
    before = json.loads(content)
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            check_signature(tmp_path / "card", keys[1])
        except (IntegrityError, InputMissingError):
            continue
        after = json.loads(path.read_bytes())  # a space or an escape: the same content, differently written
        assert (after["payload"], after["signatures"]) == (before["payload"], before["signatures"])


def test_a_list_that_was_replaced_and_hashed_again_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    (folder / "weights.bin").write_bytes(b"other")
    envelope = json.loads((folder / SIGNATURES).read_bytes())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    for entry in statement["subject"]:
        entry["digest"]["sha256"] = hashlib.sha256((folder / entry["name"]).read_bytes()).hexdigest()
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (folder / SIGNATURES).write_text(json.dumps(envelope), encoding="utf-8")
    with pytest.raises(IntegrityError, match="the signature is wrong"):
        check_signature(folder, keys[1])


def test_two_signers_vouch_for_one_list_and_a_third_does_not(
    folder: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    sign(folder, keys[0])
    others = [(tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem") for name in ("second", "third")]
    for private, public in others:
        new_keys(private, public)
    sign(folder, others[0][0])
    sign(folder, others[0][0])  # signing again replaces the own signature
    assert check_signature(folder, keys[1]).files == check_signature(folder, others[0][1]).files
    assert len(json.loads((folder / SIGNATURES).read_bytes())["signatures"]) == 2
    with pytest.raises(IntegrityError, match="not signed with this key"):
        check_signature(folder, others[1][1])


def test_a_signed_folder_that_changed_is_not_signed_again(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    (folder / "weights.bin").write_bytes(b"other")
    with pytest.raises(IntegrityError, match=r"since then weights\.bin was changed"):
        sign(folder, keys[0])


def test_the_envelope_verifies_by_the_rules_of_dsse_and_in_toto(folder: Path, keys: tuple[Path, Path]) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    sign(folder, keys[0])
    envelope: dict[str, Any] = json.loads((folder / SIGNATURES).read_bytes())
    body = base64.b64decode(envelope["payload"])
    encoded = f"DSSEv1 28 application/vnd.in-toto+json {len(body)} ".encode() + body  # by hand, from the protocol
    public: Any = load_pem_public_key(keys[1].read_bytes())
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded)
    statement = json.loads(body)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {"name", "digest"} == set(statement["subject"][0])


def test_wrong_keys_and_folders_are_named(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not an Ed25519 private key"):
        sign(folder, keys[1])
    with pytest.raises(SettingsError, match="not an Ed25519 public key"):
        check_signature(folder, keys[0])
    with pytest.raises(InputMissingError, match="no such key"):
        sign(folder, tmp_path / "none.pem")
    with pytest.raises(InputMissingError, match="not signed"):
        check_signature(folder, keys[1])
    with pytest.raises(InputMissingError, match="none of"):
        sign(tmp_path, keys[0])
    with pytest.raises(OutputError, match="may be there already"):
        new_keys(keys[0], tmp_path / "new.pem")
    (folder / "link").symlink_to(folder / "weights.bin")
    with pytest.raises(IntegrityError, match="a link cannot be signed"):
        sign(folder, keys[0])


def test_the_private_key_and_the_list_of_a_private_folder_are_the_owners_alone(
    folder: Path, keys: tuple[Path, Path]
) -> None:
    folder.chmod(0o700)
    sign(folder, keys[0])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (keys[0], folder / SIGNATURES)]
    assert modes == [0o600, 0o600]

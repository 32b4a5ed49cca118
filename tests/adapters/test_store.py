"""The store: atomic, four files, no facts about the machine; verify finds what changed."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.store.card import CARD, DataFacts, read_card, shareable
from lora_med.adapters.store.store import (
    CONFIG,
    README,
    WEIGHTS,
    cards,
    check_free,
    find_adapter,
    list_adapters,
    remove,
)
from lora_med.adapters.store.verify import verify
from lora_med.errors import InputMissingError, IntegrityError, LoraMedError, OutputError, SettingsError
from lora_med.models.base import Base, load_base
from tests.adapters.conftest import OPEN, put, train

FOUR = {WEIGHTS, CONFIG, README, CARD}


def outcomes(folder: Path, **options: Any) -> dict[str, str]:
    return {check.what: check.outcome for check in verify(folder, **options).checks}


def test_a_published_folder_holds_four_readable_files(shelf: Path) -> None:
    folder = shelf / "abstracts"
    assert {path.name for path in folder.iterdir()} == FOUR
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert list_adapters(shelf) == ["abstracts", "dora", "questions"]
    assert [path.name for path in shelf.iterdir() if path.name.startswith(".")] == []


def test_the_card_says_what_it_is_tied_to(shelf: Path, llama: Path, base: Base) -> None:
    card = read_card(shelf / "abstracts")
    assert card.base.fingerprint == base.fingerprint
    assert (card.base.name, card.base.quantization, card.base.dtype) == (llama.name, "none", base.dtype)
    assert (card.template, card.data) == ("text", OPEN)
    assert card.method["target_modules"] == sorted(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    assert {"torch", "peft", "python"} <= card.versions.keys()


def test_no_path_of_this_machine_and_no_secret_is_published(base: Base, tmp_path: Path) -> None:
    settings = {
        "model": {"base": str(base.folder)},
        "data": {
            "paths": ["/home/me/notes.csv", "data/*.xml.gz"],
            "window": "C:\\Users\\me\\notes.csv",
            "test_files": ["medqa:/home/me/test.jsonl", "bc5cdr:~/t.txt"],
        },
        "train": {"trainer_args": {"hub_token": "hf_secret", "max_new_tokens": 3}, "output_dir": "~/runs/x"},
    }
    folder = put(train(base, store=tmp_path), base, "mine", tmp_path, settings=settings)
    text = "".join((folder / name).read_text() for name in (CARD, CONFIG, README))
    for private in (str(base.folder), str(tmp_path), "/home", "Users", "hf_secret", "~/"):
        assert private not in text
    published = read_card(folder).settings
    assert published["data"] == {
        "paths": ["notes.csv", "data/*.xml.gz"],
        "window": "notes.csv",
        "test_files": ["medqa:test.jsonl", "bc5cdr:t.txt"],
    }
    assert published["train"]["trainer_args"] == {"max_new_tokens": 3}


def test_ordinary_values_are_left_alone() -> None:
    values = {"a": [1, 2.5, None, True], "text": "0.5 mg/ml", "url": "https://example.org/a", "b": {"c": "x/y"}}
    assert shareable(values) == values


def test_the_readme_is_a_hub_model_card(shelf: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(shelf / "abstracts" / README)
    metadata = card.data.to_dict()
    assert metadata["library_name"] == "peft"
    assert "base_model" not in metadata  # a local folder is no Hub id
    assert "lora-med generate --adapter abstracts" in card.text
    assert "Not a medical device" in card.text


def test_a_rank_16_adapter_of_micro_is_under_3_megabytes(tmp_path: Path) -> None:
    base = load_base("micro", quantization="4bit")
    folder = put(train(base, store=tmp_path, r=16, steps=1), base, "small", tmp_path)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3_000_000
    assert verify(folder).intact


def test_a_name_is_not_taken_twice_unless_asked(base: Base, tmp_path: Path) -> None:
    model = train(base, store=tmp_path)
    first = read_card(put(model, base, "mine", tmp_path, description="first"))
    with pytest.raises(OutputError, match="exists"):
        put(model, base, "mine", tmp_path)
    with pytest.raises(OutputError, match="exists"):
        check_free("mine", tmp_path)
    assert first.description == "first"
    assert read_card(put(model, base, "mine", tmp_path, description="second", overwrite=True)).description == "second"


def test_a_folder_that_is_no_adapter_is_never_replaced(base: Base, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds no adapter"):
        put(train(base, store=tmp_path), base, "mine", tmp_path, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["train", "values", "../x", "/tmp/x", "A", ".x"])
def test_a_name_that_could_not_be_attached_is_not_published(base: Base, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot name an adapter"):
        put(None, base, name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_not_published(base: Base, tmp_path: Path) -> None:
    model = train(base, store=tmp_path)
    with torch.no_grad():
        next(one for name, one in model.named_parameters() if "lora_B" in name)[0, 0] = float("nan")
    with pytest.raises(IntegrityError, match="NaN"):
        put(model, base, "mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_access_class_is_one_of_three() -> None:
    with pytest.raises(SettingsError, match="open, registered, credentialed"):
        DataFacts("x", "y", "public")


def test_a_kill_while_publishing_leaves_no_half_adapter(base: Base, tmp_path: Path) -> None:
    model = train(base, store=tmp_path)
    pid = os.fork()
    if pid == 0:  # die between the last file and the card
        import lora_med.adapters.store.store as room

        room.sha256_file = lambda path: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        put(model, base, "mine", tmp_path)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert list_adapters(tmp_path) == []
    put(model, base, "mine", tmp_path)
    assert list_adapters(tmp_path) == ["mine"]


def test_removing_takes_an_adapter_and_nothing_else(store: Path) -> None:
    remove("questions", store)
    assert list_adapters(store) == ["abstracts", "dora"]
    assert not (store / "questions").exists()
    with pytest.raises(InputMissingError, match="abstracts, dora"):
        find_adapter("questions", store)
    (store / "thesis").mkdir()
    with pytest.raises(InputMissingError):
        remove("thesis", store)
    assert (store / "thesis").exists()


def test_verify_passes_what_was_published(shelf: Path, llama: Path) -> None:
    for name in ("abstracts", "questions", "dora"):
        assert outcomes(shelf / name, base=str(llama)) == dict.fromkeys(
            ("card", "files", "hashes", "base", "tensors"), "ok"
        )


def test_verify_skips_a_base_that_is_not_here(shelf: Path) -> None:
    found = verify(shelf / "abstracts")
    assert {check.what: check.outcome for check in found.checks}["base"] == "skipped"
    assert found.intact


def test_verify_finds_a_flipped_bit(store: Path) -> None:
    path = store / "abstracts" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-50] ^= 4
    path.write_bytes(content)
    found = verify(store / "abstracts")
    assert not found.intact
    assert [check.what for check in found.checks if check.outcome == "wrong"] == ["hashes"]


def test_verify_finds_another_base(store: Path, twin: Path) -> None:
    assert outcomes(store / "abstracts", base=str(twin))["base"] == "wrong"


def test_verify_finds_a_file_that_does_not_belong(store: Path) -> None:
    (store / "abstracts" / "training_args.bin").write_bytes(b"pickle")
    assert outcomes(store / "abstracts")["files"] == "wrong"


def test_verify_finds_an_adapter_under_anothers_name(store: Path) -> None:
    (store / "abstracts").rename(store / "renamed")
    assert outcomes(store / "renamed")["card"] == "wrong"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 3}, "format 3"),
        ({"data": {"source": "x", "license": "y", "access": "everyone", "hashes": {}, "counts": {}}}, "access class"),
        ({"base": {}}, "missing"),
        ({"name": 3}, "not text"),
        ({"files": {"../../x": "0" * 64}}, "not a name and a SHA-256"),
        ({"files": {WEIGHTS: "short"}}, "not a name and a SHA-256"),
    ],
)
def test_a_card_that_cannot_be_is_refused(store: Path, changes: dict[str, Any], said: str) -> None:
    path = store / "abstracts" / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(IntegrityError, match=said):
        read_card(store / "abstracts")
    assert isinstance(cards(store)["abstracts"], LoraMedError)
    assert not isinstance(cards(store)["questions"], LoraMedError)


def test_a_card_of_format_1_is_read_in_its_own_spelling(store: Path) -> None:
    path = store / "abstracts" / CARD
    now = read_card(store / "abstracts")
    raw = json.loads(path.read_text())
    raw["format"] = 1
    raw["base"]["quantisation"] = raw["base"].pop("quantization")
    raw["data"]["licence"] = raw["data"].pop("license")
    path.write_text(json.dumps(raw))
    assert read_card(store / "abstracts") == now


def test_a_torn_card_is_refused(store: Path) -> None:
    (store / "abstracts" / CARD).write_text("{")
    with pytest.raises(IntegrityError, match="JSON"):
        read_card(store / "abstracts")


def test_a_cards_table_that_is_none_is_refused(store: Path) -> None:
    path = store / "abstracts" / CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), "method": ["rank"]}))
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_card(store / "abstracts")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, README])
def test_verify_finds_a_file_that_is_gone(name: str, store: Path) -> None:
    (store / "abstracts" / name).unlink()
    found = outcomes(store / "abstracts")
    assert (found["files"], found["hashes"]) == ("wrong", "wrong")


def test_a_link_to_an_adapter_elsewhere_is_not_half_removed(store: Path, tmp_path: Path) -> None:
    (store / "dora").rename(tmp_path / "elsewhere")
    (store / "dora").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="a link"):
        remove("dora", store)
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == FOUR

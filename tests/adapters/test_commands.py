"""lora-med adapters and lora-med generate, through the program's own entry."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.store.store import WEIGHTS
from lora_med.cli.main import run
from lora_med.models.base import load_base
from tests.adapters.conftest import OPEN, put, train


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def call_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, _ = call(capsys, *arguments, "--json")
    assert code == 0
    assert out.count("\n") == 1
    return json.loads(out)


def test_list_shows_every_adapter_and_those_with_a_broken_card(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store / "dora" / "card.json").write_text("{}")
    rows = {row["name"]: row for row in call_json(capsys, "adapters", "list", "--store", store)["adapters"]}
    assert list(rows) == ["abstracts", "dora", "questions"]
    assert (rows["abstracts"]["rank"], rows["abstracts"]["access"]) == (4, "open")
    assert "format None" in rows["dora"]["error"]
    code, out, _ = call(capsys, "adapters", "list", "--store", store)
    assert code == 0
    assert "abstracts" in out


def test_listing_loads_no_heavy_library(shelf: Path) -> None:
    code = (
        "import sys; from lora_med.cli.main import run; "
        f"run(['adapters', 'list', '--json', '--store', {str(shelf)!r}]); "
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_an_empty_store_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "adapters", "list", "--store", tmp_path / "none")[0] == 0


def test_show_prints_the_card(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_json(capsys, "adapters", "show", "abstracts", "--store", shelf)["data"]["source"] == "pubmed"
    code, _, err = call(capsys, "adapters", "show", "abstrcts", "--store", shelf)
    assert code == 66
    assert "did you mean 'abstracts'" in err


def test_verify_exits_76_when_a_byte_has_changed(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_json(capsys, "adapters", "verify", "abstracts", "--store", store)["whole"] is True
    path = store / "abstracts" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-50] ^= 4
    path.write_bytes(content)
    code, out, err = call(capsys, "adapters", "verify", "abstracts", "--store", store)
    assert code == 76
    assert "WRONG" in out
    assert "hashes" in err


def test_an_adapter_is_signed_by_name_and_verified_with_the_key(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cryptography", reason="the extra sign is not installed")
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    assert call(capsys, "sign", "keys", private, public)[0] == 0
    verify = ("adapters", "verify", "abstracts", "--store", store)
    assert call(capsys, *verify, "--key", public)[0] == 76  # nobody signed it yet
    signed = call_json(capsys, "sign", "add", "abstracts", "--store", store, "--key", private)
    assert signed["kind"] == "adapter"
    assert {WEIGHTS, "card.json"} <= signed["files"].keys()
    assert call_json(capsys, *verify)["whole"] is True
    assert call_json(capsys, *verify, "--key", public)["whole"] is True
    assert call_json(capsys, "sign", "check", store / "abstracts", "--key", public)["files"] == signed["files"]
    (store / "abstracts" / "README.md").write_text("other", encoding="utf-8")
    for key in ((), ("--key", public)):  # without the key the signed list is compared all the same
        code, out, err = call(capsys, *verify, *key)
        assert (code, "README.md was changed" in out) == (76, True)
    code, _, err = call(capsys, "sign", "check", "abstracts", "--store", store, "--key", public)
    assert (code, "README.md was changed" in err) == (76, True)


def test_remove_asks_without_yes(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "adapters", "remove", "dora", "--store", store)[0] != 0
    assert (store / "dora").exists()
    assert call_json(capsys, "adapters", "remove", "dora", "--store", store, "--yes") == {"removed": "dora"}
    assert not (store / "dora").exists()


def test_generate_writes_the_same_text_each_time(llama: Path, shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("generate", "--adapter", "abstracts", "--prompt", "The", "--base", llama, "--store", shelf)
    first = call_json(capsys, *command, "--max-new-tokens", 8)
    assert first["prompt_tokens"] == 4  # BOS and three bytes
    assert first["chat"] is False
    assert 0 < first["new_tokens"] <= 8
    assert call_json(capsys, *command, "--max-new-tokens", 8)["text"] == first["text"]
    code, out, _ = call(capsys, *command, "--max-new-tokens", 8)
    assert code == 0
    assert out.strip() == first["text"].strip()


def test_generate_takes_its_form_from_the_card(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = load_base(str(llama), quantization="none")
    put(train(base, store=tmp_path, steps=1), base, "talk", tmp_path, template="pair_chat", data=OPEN)
    command = ("generate", "--adapter", "talk", "--prompt", "The", "--base", llama, "--store", tmp_path)
    assert call_json(capsys, *command, "--max-new-tokens", 2)["chat"] is True
    plain = call_json(capsys, *command, "--max-new-tokens", 2, "--plain")
    assert (plain["chat"], plain["prompt_tokens"]) == (False, 4)


def test_sampling_follows_its_seed(llama: Path, shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("generate", "--adapter", "abstracts", "--prompt", "The", "--base", llama, "--store", shelf)
    texts = [
        call_json(capsys, *command, "--max-new-tokens", 9, "--temperature", 2, "--seed", seed)["text"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_generate_refuses_another_base_of_equal_shape(
    twin: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("generate", "--adapter", "abstracts", "--prompt", "The", "--base", twin, "--store", shelf)
    code, out, err = call(capsys, *command)
    assert (code, out) == (76, "")
    assert "E076-base-mismatch" in err


def test_generate_says_how_to_name_a_base_that_moved(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "generate", "--adapter", "abstracts", "--prompt", "The", "--store", shelf)
    assert code == 66
    assert "--base" in err


def test_a_prompt_longer_than_the_context_is_refused(
    llama: Path, shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("generate", "--adapter", "abstracts", "--prompt", "x" * 300, "--base", llama, "--store", shelf)
    code, _, err = call(capsys, *command)
    assert code == 2
    assert "301 tokens" in err


def test_an_answer_ends_where_the_context_does(llama: Path, shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("generate", "--adapter", "abstracts", "--prompt", "x" * 250, "--base", llama, "--store", shelf)
    assert call_json(capsys, *command)["new_tokens"] <= 256 - 251


def test_no_answer_to_a_question_is_a_no(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["adapters", "remove", "dora", "--store", str(store)]) == 2
    assert (store / "dora").exists()


def test_a_card_cannot_draw_on_the_list(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, changes in (("dora", {"template": "[/b]"}), ("questions", {"files": {"[/x]/y": ""}})):
        path = store / name / "card.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    code, out, _ = call(capsys, "adapters", "list", "--store", store)
    assert code == 0
    assert "[/b]" in out

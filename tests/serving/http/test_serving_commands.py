"""`lora-med serve` and `lora-med chat` as a user types them: what is refused before a base is loaded, and a talk."""

from __future__ import annotations

import io
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.models.base import load_base
from tests.adapters.conftest import OPEN, put, train
from tests.serving.conftest import Place
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def shop(llama_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The place with an adapter of credentialed data, one called like the base, and one of another base."""
    folder = tmp_path_factory.mktemp("shop")
    place = Place(llama_place.folder, folder / "store")
    base = place.base()
    for name, access in (("a", "open"), ("base", "open"), ("secret", "credentialed")):
        model = train(base, store=place.store, seed=3)
        put(model, base, name, place.store, data=replace(OPEN, access=access))
        base = place.base()
    twin = load_base(str(make_tiny("llama", folder / "twin", seed=7)), quantization="none")
    put(train(twin, store=place.store), twin, "foreign", place.store)
    return place


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("one-key-of-sixteen-letters\n")
    path.chmod(0o600)
    return path


def serve(shop: Place, *arguments: str) -> int:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    base = ["--base", str(shop.folder)] if "--adapter" in arguments else []
    code = run(["serve", "--store", str(shop.store), *base, "--port", "0", *arguments])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    return code


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "neither --adapter nor --base"),
        (["--adapter", "nobody"], 66, "no adapter named 'nobody'"),
        (["--adapter", "../a"], 2, "cannot name an adapter"),
        (["--adapter", "a", "--adapter", "a"], 2, "named twice"),
        (["--adapter", "base"], 2, "both called 'base'"),
        (["--adapter", "a", "--adapter", "foreign"], 76, "another base"),
        (["--adapter", "secret"], 77, "--api-key-file"),
        (["--adapter", "secret", "--permission", "Dr. Weber allows it, 3 May"], 77, "without a key"),
        (["--adapter", "a", "--host", "0.0.0.0"], 2, "need a key"),
        (["--adapter", "a", "--host", "ward3.example"], 2, "need a key"),
        (["--adapter", "a", "--host", ""], 2, "need a key"),
        (["--adapter", "a", "--api-key-file", "nowhere"], 66, "no such file"),
        (["--adapter", "a", "--allow-host", "https://ward3.example"], 2, "not the name of a host"),
        (["--adapter", "a", "--port", "70000"], 2, "65535"),
        (["--adapter", "a", "--max-batch", "0"], 2, "max-batch"),
        (["--base", "nowhere"], 66, "nowhere"),
    ],
)
def test_what_cannot_be_served_is_refused_before_a_base_is_loaded(
    arguments: list[str], code: int, message: str, shop: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(shop, *arguments) == code
    assert message in capsys.readouterr().err


def test_credentialed_data_needs_the_permission_besides_the_key(
    shop: Place, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve(shop, "--adapter", "secret", "--api-key-file", str(key_file)) == 77
    assert "--permission" in capsys.readouterr().err


def test_a_file_of_keys_that_others_can_read_is_refused(
    shop: Place, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file.chmod(0o644)
    for option in ("--api-key-file", "--admin-key-file"):
        assert serve(shop, "--adapter", "a", option, str(key_file)) == 77
        assert "chmod 600" in capsys.readouterr().err


def test_a_taken_port_is_named_before_a_base_is_loaded(shop: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert serve(shop, "--adapter", "a", "--port", port) == 73
    error = capsys.readouterr().err
    assert f"port {port}" in error and "is loaded" not in error


def test_the_missing_extra_is_named(
    shop: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else real(name))
    assert serve(shop, "--adapter", "a") == 69
    assert 'pip install "lora-med[serve]"' in capsys.readouterr().err


def talk(shop: Place, lines: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return run(["chat", "--store", str(shop.store), "--max-new-tokens", "6", "--base", str(shop.folder), *arguments])


def test_a_talk_remembers_its_turns_until_reset(
    shop: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk(shop, "Fever?\n\nSince when?\n/reset\nFever?\n", monkeypatch, "--adapter", "secret") == 0
    once = capsys.readouterr().out
    assert talk(shop, "Fever?\n", monkeypatch, "--adapter", "secret") == 0
    first = capsys.readouterr().out
    assert once.startswith(first) and once.endswith(first)
    assert len(once) > 2 * len(first)


def test_a_talk_goes_on_after_a_turn_that_does_not_fit(
    shop: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk(shop, "x" * 400 + "\nFever?\n", monkeypatch) == 0
    captured = capsys.readouterr()
    assert "may have 256 tokens" in captured.err
    assert captured.out.strip()

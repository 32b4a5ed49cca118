"""`lora-med merge` and recipes/merge_adapter.py as a user types them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from lora_med.cli.main import run
from lora_med.files import read_json
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    publish_random(make_tiny("llama", folder / "base", seed=1717), "plain", folder / "store")
    make_tiny("llama", folder / "other", seed=9)
    return folder


def arguments(home: Path, out: Path, base: str = "base") -> list[str]:
    return ["merge", "plain", "--out", str(out), "--base", str(home / base), "--store", str(home / "store")]


def test_json_is_the_certificate_alone(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments(home, tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("folder") == str(tmp_path / "out")
    assert said == read_json(tmp_path / "out/merge_certificate.json")


def test_the_table_shows_the_proof(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(home, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "other first choice" in said
    assert "the base's bytes" in said and "verified by probes and tensors" in " ".join(said.split())


def test_another_base_of_equal_shape_is_refused_with_76(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(home, tmp_path / "out", base="other")) == 76
    assert "was trained on another base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_base_that_only_the_card_names_is_asked_for(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["merge", "plain", "--out", str(tmp_path / "out"), "--store", str(home / "store")]) == 66
    said = capsys.readouterr().err
    assert "the base 'base' of adapter 'plain' is not here" in said and f"--base {home / 'base'}" in said


def test_a_misspelt_name_is_answered_with_the_near_one(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["merge", "plane", "--out", str(tmp_path / "out"), "--store", str(home / "store")]) == 66
    assert "did you mean 'plain'?" in capsys.readouterr().err


def test_the_command_that_a_merge_suggests_runs(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(home, tmp_path / "out")) == 0
    suggested = capsys.readouterr().out.partition("Next: lora-med ")[2].splitlines()[0]
    assert run([*shlex.split(suggested), "--max-new-tokens", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["adapter"] is None and answer["base"] == str(tmp_path / "out")


def test_the_adapter_may_be_named_by_option(home: Path, tmp_path: Path) -> None:
    first, _, *rest = arguments(home, tmp_path / "out")
    assert run([first, *rest, "--adapter", "plain", "--json"]) == 0

"""A private run: killed or stopped it ends as if nothing had happened, and its secret goes with its end."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from lora_med.config.privacy_settings import PrivacySettings
from lora_med.errors import SettingsError
from lora_med.training.private.accountant import ACCOUNTANT, choose_noise
from lora_med.training.private.noise_key import FILE, NoiseKey
from tests.training.private.private_runs import PATIENTS, make_private
from tests.training.support import fork, run_ranks, wait, weights

FINAL = "final.pt"
KEY = NoiseKey(b"s" * 32)


def train(folder: Path) -> None:
    """Sixteen steps with dropout, a checkpoint at each; the first secret is fixed, so that two runs compare."""
    trainer = make_private(folder, num_train_epochs=4, save_steps=1, dropout=0.2)
    trainer.key = KEY
    trainer.train()
    torch.save(weights(trainer), folder / FINAL)
    (folder / "privacy.json").write_text(json.dumps(trainer.privacy()))


def start(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return fork(lambda: train(folder), folder / "error.txt")


def newest_step(folder: Path) -> int:
    return max((int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoint-*/COMMIT.json")), default=0)


def wait_for_step(folder: Path, step: int) -> None:
    while newest_step(folder) < step:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("opacus")
    choose_noise(PrivacySettings(epsilon=1, delta=1e-2), patients=16, expected=4, steps=16)  # once for all forks
    folder = tmp_path_factory.mktemp("whole")
    assert wait(start(folder)) == 0, (folder / "error.txt").read_text()
    return folder


@pytest.mark.parametrize(
    "stops",
    [
        [(signal.SIGKILL, 2), (signal.SIGTERM, 6)],
        pytest.param([(signal.SIGKILL, step) for step in (1, 3, 4, 8)], marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_and_stopped_ends_in_the_same_adapter_and_spends_once(
    tmp_path: Path, whole: Path, stops: list[tuple[int, int]]
) -> None:
    for number, step in stops:
        child = start(tmp_path)
        wait_for_step(tmp_path, step)
        time.sleep(random.Random(step).uniform(0, 0.05))
        os.kill(child, number)
        assert wait(child) in (-signal.SIGKILL, 75)
        newest = tmp_path / f"checkpoint-{newest_step(tmp_path)}"
        assert (newest / FILE).stat().st_mode & 0o777 == 0o600
    assert wait(start(tmp_path)) == 0, (tmp_path / "error.txt").read_text()
    assert torch.equal(torch.load(tmp_path / FINAL), torch.load(whole / FINAL))
    spent = json.loads((tmp_path / "privacy.json").read_text())
    assert spent == json.loads((whole / "privacy.json").read_text())
    assert spent["steps"] == 16 and 0.99 < spent["epsilon"] <= 1 and spent["accountant"].startswith(ACCOUNTANT)


def test_no_secret_remains_when_the_run_has_ended(whole: Path) -> None:
    assert not list(whole.rglob(FILE))
    assert [path.name for path in whole.glob("checkpoint-*")] == ["checkpoint-16"]
    for path in whole.rglob("*"):
        assert path.is_dir() or b"s" * 32 not in path.read_bytes()


def test_a_run_that_had_ended_gives_its_adapter_and_spends_nothing_more(tmp_path: Path) -> None:
    first = make_private(tmp_path)
    first.train()
    again = make_private(tmp_path)
    assert again.train() is None
    assert torch.equal(weights(again), weights(first))
    assert again.privacy() == first.privacy() and again.privacy()["steps"] == 8


def test_two_runs_have_different_noise(tmp_path: Path) -> None:
    trained = []
    for name in ("one", "two"):
        trainer = make_private(tmp_path / name, max_steps=8)
        trainer.train()
        trained.append(weights(trainer))
    assert not torch.equal(*trained)


def test_other_patients_are_another_run(tmp_path: Path) -> None:
    make_private(tmp_path).train()
    others = list(PATIENTS)
    others[1], others[3] = others[3], others[1]
    with pytest.raises(SettingsError, match="the patient of each row"):
        make_private(tmp_path, patients=others).train()


def test_the_steps_of_an_epoch_take_each_patient_once_on_average(tmp_path: Path) -> None:
    trainer = make_private(tmp_path)
    assert trainer.mechanism.patients == 16 and trainer.mechanism.expected == 4
    assert trainer.steps_an_epoch == 4 and trainer.args.max_steps == 8


def test_what_is_trained_besides_linear_layers_is_refused_by_name(tmp_path: Path) -> None:
    trainer = make_private(tmp_path)
    trainer.model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(SettingsError, match=r"embed_tokens.weight is neither"):
        trainer.train()


def test_several_processes_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("opacus")
    assert run_ranks(2, lambda: make_private(tmp_path), tmp_path) == [2, 2]
    assert "takes one process, and this run has 2" in (tmp_path / "error-1.txt").read_text()

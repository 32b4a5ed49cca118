"""The adapter that a run chose beside step 0: by the loss, or by the answers to each item; the same after a resume."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lora_med.training.run.item_scores import add_answers, forget_after, read_answers
from lora_med.training.run.rising_loss import RisingLoss
from tests.training.support import make_trainer
from tests.training.test_task_eval import ScriptedTask


def test_the_loss_that_chose_is_beside_the_loss_at_step_0(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=4, eval_steps=2)
    trainer.train()
    chosen = trainer.scores()["validation"]
    start = next(entry["eval_loss"] for entry in trainer.state.log_history if entry["step"] == 0)
    assert chosen["start"] == start
    assert chosen["verdict"] == ("better" if chosen["eval_loss"] < start else "worse")
    assert "interval" not in chosen


def test_a_score_that_chose_has_the_interval_of_its_items(tmp_path: Path) -> None:
    task: Any = ScriptedTask([0.5, 0.25, 0.75])
    trainer = make_trainer(tmp_path, validation_task=task, max_steps=4)
    trainer.train()
    expected = {"eval_score": 0.75, "step": 4, "items": 3, "start": 0.5, "verdict": "cannot tell"}
    assert trainer.scores()["validation"] == {**expected, "interval": [-0.5, 0.75]}
    assert list(read_answers(tmp_path)) == [0, 2, 4]
    ended = make_trainer(tmp_path, validation_task=task, max_steps=4)
    ended.train()
    assert ended.scores() == trainer.scores()


def test_what_was_scored_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    for step in (0, 2, 4):
        add_answers(tmp_path, step, [(0.5, float(step))])
    with open(tmp_path / "validation_items.jsonl", "a") as handle:
        handle.write('{"step": 6, "ans')
    forget_after(tmp_path, 2)
    assert read_answers(tmp_path) == {0: [[0.5, 0.0]], 2: [[0.5, 2.0]]}
    forget_after(tmp_path, 0)
    assert read_answers(tmp_path) == {}


def warnings_of(losses: list[float], caplog: pytest.LogCaptureFixture, start: float | None = 3.0) -> list[str]:
    caplog.clear()
    callback, history = RisingLoss(), [] if start is None else [{"eval_loss": start, "step": 0}]
    with caplog.at_level(logging.WARNING):
        for step, loss in enumerate(losses, 1):
            history.append({"loss": loss, "step": step})
            state: Any = SimpleNamespace(log_history=history, global_step=step)
            callback.on_log(None, state, None, {"loss": loss})
    return [record.getMessage() for record in caplog.records]


def test_a_loss_that_stays_far_above_its_start_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    (warning,) = warnings_of([3.1, 8.0, 9.0, 8.5, 8.0, 7.0], caplog)
    assert "stays far above its start: 8.5000 at step 4 against 3.0000" in warning


def test_a_loss_that_rises_for_a_moment_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    assert warnings_of([3.1, 8.0, 3.2, 8.0, 8.0, 3.0], caplog) == []


def test_without_validation_the_first_logged_loss_is_the_start(caplog: pytest.LogCaptureFixture) -> None:
    assert len(warnings_of([3.0, 8.0, 9.0, 8.5], caplog, start=None)) == 1

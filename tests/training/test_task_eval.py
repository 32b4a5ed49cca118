"""A task scored while training: the steps do not notice it, and the adapter of the best score is the one left."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lora_med.config.data_settings import DataSettings
from lora_med.config.schema import EvaluateSettings
from lora_med.data.corpus import Corpus, open_corpus
from lora_med.errors import DivergedError, SettingsError
from lora_med.evaluation.eval_during_training import ValidationTask, validation_task
from lora_med.metrics.significance import Verdict
from lora_med.models.base import Base, load_base
from lora_med.training.run.callbacks import read_metrics
from lora_med.training.step.task_eval import undisturbed
from lora_med.training.trainer import AdapterTrainer
from tests.tiny import make_tiny
from tests.training.support import fork, make_base, make_trainer, run_ranks, wait, weights

SAMPLE = Path(__file__).parents[2] / "lora_med" / "assets" / "sample"
QA, TEXT = SAMPLE / "qa_sample.json", SAMPLE / "pubmed_sample.xml.gz"


def corpus_of(task: str) -> Corpus:
    source, path = ("pubmedqa", QA) if task == "choice" else ("pubmed", TEXT)
    return open_corpus(DataSettings(source=source, paths=[str(path)], validation_share=0.3, test_share=0.3))


def make_validation_task(base: Base, task: str = "choice", **settings: Any) -> ValidationTask:
    values = {"eval_steps": 3, "max_eval_samples": 12, **settings}
    made = validation_task(EvaluateSettings(**values), corpus_of(task), base, seed=1)
    assert made is not None
    return made


def losses(trainer: AdapterTrainer) -> list[tuple[int, float, float]]:
    return [
        (line["step"], line["loss"], line["grad_norm"]) for line in read_metrics(trainer.output_dir) if "loss" in line
    ]


@dataclass
class ScriptedTask:
    """A validation task whose scores are fixed, one for each scoring; it draws random numbers meanwhile."""

    fixed_scores: Sequence[float]
    metric: str = "score"
    lower_is_better: bool = False
    every: int = 2
    chooses: bool = True
    items: int = 3
    digest: str = "the same items"
    weights_at_scoring: list[torch.Tensor] = field(default_factory=list)

    def answers(self, model: Any, indices: Sequence[int]) -> list[float]:
        assert not any(module.training for module in model.modules())
        random.random(), np.random.rand(), torch.rand(1)
        trained = [weight.detach().flatten() for weight in model.parameters() if weight.requires_grad]
        self.weights_at_scoring.append(torch.cat(trained))
        return [float(index) for index in indices]

    def scores(self, answers: Sequence[float]) -> dict[str, float]:
        assert list(answers) == [0.0, 1.0, 2.0]
        return {"score": self.fixed_scores[len(self.weights_at_scoring) - 1]}

    def compare(self, before: Sequence[float], after: Sequence[float]) -> tuple[tuple[float, float] | None, Verdict]:
        assert list(before) == list(after) == [0.0, 1.0, 2.0]
        return (-0.5, 0.75), "cannot tell"


CASES: dict[str, dict[str, Any]] = {
    "padded": {},
    "packed": {"packing": True},
    "checkpointed": {"gradient_checkpointing": True},
    "accumulated": {"gradient_accumulation_steps": 2},
}


def check_unnoticed(folder: Path, bases: Callable[[], Base], task: str, **settings: Any) -> None:
    """Train with dropout, scored at every step and never; all losses, gradient norms and last weights are equal."""
    values = {"logging_steps": 1, "num_train_epochs": 1, **settings}
    plain = make_trainer(folder / "plain", base=bases(), **values)
    plain.train()
    base = bases()
    watched = make_trainer(
        folder / "scored", base=base, validation_task=make_validation_task(base, task, eval_steps=1), **values
    )
    watched.train()
    last = f"checkpoint-{plain.state.max_steps}"
    one, other = (load_file(folder / name / last / "adapter_model.safetensors") for name in ("plain", "scored"))
    assert losses(watched) == losses(plain)
    assert all(torch.equal(one[name], other[name]) for name in one)
    scored = [line["step"] for line in read_metrics(folder / "scored") if "eval_items" in line]
    assert scored == list(range(plain.state.max_steps + 1))


@pytest.mark.parametrize("task", ["choice", "text"])
@pytest.mark.parametrize("case", CASES)
def test_training_is_bit_identical_to_a_run_without_scores(case: str, task: str, tmp_path: Path) -> None:
    check_unnoticed(tmp_path, lambda: make_base(context=4096), task, **CASES[case])


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_so_it_is_on_a_quantized_base(quantization: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = make_tiny("llama", tmp_path / "base", context=4096)
    check_unnoticed(tmp_path, lambda: load_base(str(folder), quantization=quantization, dtype="bfloat16"), "choice")


def test_no_four_bit_layer_is_left_to_be_repacked_by_a_scoring(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.nn.modules import Linear4bit

    base = load_base(str(make_tiny("llama", tmp_path / "base", context=4096)), quantization="4bit", dtype="bfloat16")
    trainer = make_trainer(tmp_path / "run", base=base, validation_task=make_validation_task(base))
    layers = [module for module in trainer.model.modules() if isinstance(module, Linear4bit)]
    assert layers
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_random_numbers_and_modes_are_put_back(tmp_path: Path) -> None:
    plain = make_trainer(tmp_path / "plain", logging_steps=1, num_train_epochs=1)
    plain.train()
    watched = make_trainer(
        tmp_path / "scored", logging_steps=1, num_train_epochs=1, validation_task=ScriptedTask([0.5] * 9, every=1)
    )
    watched.train()
    assert losses(watched) == losses(plain)


def test_every_random_state_and_each_modules_mode_is_restored() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval()).train(True)
    model[1].eval()

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    with pytest.raises(DivergedError), undisturbed(model):
        assert not any(module.training for module in model.modules())
        draw()
        raise DivergedError("an error on the way")
    assert draw() == expected
    assert [module.training for module in model.modules()] == [True, True, False]


def test_the_first_of_the_best_is_published_and_the_base_does_not_count(tmp_path: Path) -> None:
    task = ScriptedTask([0.9, 0.2, 0.5, 0.5, 0.1, 0.3, 0.4, 0.2, 0.1])  # steps 0, 2, 4, ..., 16
    trainer = make_trainer(tmp_path, validation_task=task, save_total_limit=1)
    trainer.train()
    assert trainer.scores()["validation"].items() >= {"eval_score": 0.5, "step": 4, "items": 3, "start": 0.9}.items()
    assert torch.equal(weights(trainer), task.weights_at_scoring[2])
    names = [path.name for path in tmp_path.glob("checkpoint-*")]
    assert sorted(names) == ["checkpoint-16", "checkpoint-4"]
    assert json.loads((tmp_path / "checkpoint-16" / "COMMIT.json").read_text())["best"] == "checkpoint-4"
    again = make_trainer(tmp_path, validation_task=ScriptedTask([]), save_total_limit=1)
    assert again.train() is None
    assert torch.equal(weights(again), task.weights_at_scoring[2])
    assert again.scores() == trainer.scores()


def test_the_log_and_the_metrics_tell_each_score_and_what_it_took(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        make_trainer(tmp_path, validation_task=ScriptedTask([0.25, 0.5]), max_steps=2).train()
    assert "score 0.2500 on 3 validation items in 0.0 s" in caplog.text
    scored = [line for line in read_metrics(tmp_path) if "eval_items" in line]
    assert [(line["step"], line["eval_score"]) for line in scored] == [(0, 0.25), (2, 0.5)]
    assert all(0 <= line["eval_seconds"] < 5 for line in scored)


def test_a_lower_score_is_the_better_one_where_it_says_so(tmp_path: Path) -> None:
    task = ScriptedTask([0.0, 0.2, 0.5, 0.1, 0.1, 0.3, 0.4, 0.2, 0.7], lower_is_better=True)
    trainer = make_trainer(tmp_path, validation_task=task)
    trainer.train()
    assert trainer.scores()["validation"].items() >= {"eval_score": 0.1, "step": 6, "items": 3, "start": 0.0}.items()


def test_scores_that_choose_nothing_leave_the_choice_to_the_validation_loss(tmp_path: Path) -> None:
    plain = make_trainer(tmp_path / "plain")
    plain.train()
    watched = make_trainer(tmp_path / "scored", validation_task=ScriptedTask([0.9, *range(8)], chooses=False))
    watched.train()
    assert watched.scores() == plain.scores()
    assert torch.equal(weights(watched), weights(plain))


def test_patience_counts_the_scores_that_choose(tmp_path: Path) -> None:
    task = ScriptedTask([0.9, 0.2, 0.5, 0.5, 0.4, 0.3])
    trainer = make_trainer(tmp_path, validation_task=task, early_stopping_patience=2, eval_steps=1)
    trainer.train()
    assert trainer.state.global_step == 8  # 0.5 at step 4, no better at 6 and 8
    assert trainer.scores()["validation"]["step"] == 4


def test_a_learning_rate_too_high_leaves_the_adapter_from_before_it_got_worse(tmp_path: Path) -> None:
    base = make_base(context=4096)
    rate = {"learning_rate": 5.0, "lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.9}
    task = make_validation_task(base, "text", eval_steps=2, metric_for_best_model="nll_per_token")
    trainer = make_trainer(tmp_path, base=base, validation_task=task, **rate)
    trainer.train()
    scores = {
        line["step"]: line["eval_nll_per_token"] for line in read_metrics(tmp_path) if "eval_nll_per_token" in line
    }
    lowest = min((score, step) for step, score in scores.items() if step)
    assert lowest[1] < 16
    assert scores[16] > lowest[0]
    chosen = {"eval_nll_per_token": lowest[0], "step": lowest[1], "items": task.items, "verdict": "better"}
    assert trainer.scores()["validation"].items() >= chosen.items()
    model = trainer.model.get_base_model().eval()
    assert task.scores(task.answers(model, range(task.items)))["nll_per_token"] == pytest.approx(lowest[0], rel=1e-6)


FINAL = "final.pt"


def start(folder: Path, base: Base, task: ValidationTask) -> int:
    """A run with real scores in a forked process, which writes its final weights and scores.

    The items come ready, as a fork must not use a tokenizer whose threads were its parent's.
    """
    folder.mkdir(exist_ok=True)

    def work() -> None:
        options: dict[str, Any] = {"logging_steps": 1, "save_steps": 3, "learning_rate": 0.05}
        trainer = make_trainer(folder, base=base, validation_task=task, **options)
        trainer.train()
        torch.save((weights(trainer), trainer.scores()), folder / FINAL)

    return fork(work, folder / "error.txt")


def last_step(folder: Path) -> int:
    """The last step in the metrics of a run, 0 before there is one."""
    return max((line["step"] for line in read_metrics(folder)), default=0)


def test_a_killed_run_keeps_its_best_and_ends_in_the_same_adapter(tmp_path: Path) -> None:
    base = make_base(context=4096)
    task = make_validation_task(base, "text", eval_steps=2)
    assert wait(start(tmp_path / "whole", base, task)) == 0, (tmp_path / "whole" / "error.txt").read_text()
    folder = tmp_path / "killed"
    for step in (1, 5, 11):  # checkpoints are at 3, 6, 9, ...
        child = start(folder, base, task)
        while last_step(folder) < step:
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL, (folder / "error.txt").read_text()
    assert wait(start(folder, base, task)) == 0, (folder / "error.txt").read_text()
    expected, found = (torch.load(tmp_path / name / FINAL) for name in ("whole", "killed"))
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]
    curves = [
        [(line["step"], line["eval_bits_per_byte"]) for line in read_metrics(tmp_path / name) if "eval_items" in line]
        for name in ("whole", "killed")
    ]
    assert curves[0] == curves[1]


def test_a_run_does_not_go_on_with_another_score_or_other_items(tmp_path: Path) -> None:
    make_trainer(tmp_path, validation_task=ScriptedTask([0.1, 0.2]), max_steps=2).train()
    changed = replace(ScriptedTask([0.1, 0.2]), metric="other", digest="other items")
    with pytest.raises(SettingsError, match="metric_for_best_model: score then, other now") as caught:
        make_trainer(tmp_path, validation_task=changed, max_steps=2).train()
    assert "the items to choose by (SHA-256): the same items then, other items now" in str(caught.value)
    with pytest.raises(SettingsError, match="metric_for_best_model: score then, not set now"):
        make_trainer(tmp_path, max_steps=2).train()


def test_a_score_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the validation score is not finite at step"):
        make_trainer(tmp_path, validation_task=ScriptedTask([0.1, 0.2, float("nan")])).train()


def test_two_processes_share_the_items_and_have_the_scores_of_one(tmp_path: Path) -> None:
    base = make_base(context=4096)
    task = make_validation_task(base, "text", eval_steps=4, max_eval_samples=5)

    def work(folder: Path, size: int) -> None:
        seen: list[int] = []

        def counted(model: Any, indices: Sequence[int]) -> list[Any]:
            seen.extend(indices)
            return task.answer_items(model, indices)

        options: dict[str, Any] = {"per_device_train_batch_size": size, "dropout": 0.0, "max_steps": 8}
        trainer = make_trainer(folder, base=base, validation_task=replace(task, answer_items=counted), **options)
        trainer.train()
        (folder / f"seen-{trainer.share.rank}.json").write_text(json.dumps([sorted(set(seen)), trainer.scores()]))

    for processes in (1, 2):
        folder = tmp_path / str(processes)
        codes = run_ranks(processes, lambda folder=folder, size=4 // processes: work(folder, size), folder)
        assert codes == [0] * processes, (folder / "error-0.txt").read_text()
    curves = [
        [line["eval_bits_per_byte"] for line in read_metrics(tmp_path / name) if "eval_items" in line]
        for name in ("1", "2")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    first, second = (json.loads((tmp_path / "2" / f"seen-{rank}.json").read_text()) for rank in (0, 1))
    assert (first[0], second[0]) == ([0, 2, 4], [1, 3])
    assert first[1] == second[1]


def test_what_one_process_cannot_score_stops_both(tmp_path: Path) -> None:
    def work() -> None:
        task = ScriptedTask([0.1] * 9)
        if os.environ["RANK"] == "1":

            def broken(model: Any, indices: Sequence[int]) -> list[float]:
                raise DivergedError("2 of 3 rows are not finite")

            task.answers = broken  # type: ignore[method-assign]
        make_trainer(tmp_path, validation_task=task, per_device_train_batch_size=2).train()

    assert run_ranks(2, work, tmp_path) == [78, 78]

"""Task files for lm-evaluation-harness: what they hold, what they refuse, and that they give our numbers there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from lora_med.cli.main import run
from lora_med.data.heldout_records import HeldOutRecords
from lora_med.data.record import Pair, Passage, Question
from lora_med.errors import NotPermittedError, SettingsError
from lora_med.evaluation.eval_options import EvalOptions
from lora_med.evaluation.runner import evaluate
from lora_med.models.base import load_base
from lora_med.workflows.lm_eval_export import write_harness, write_readme
from tests.tiny import make_tiny

QUESTIONS = [
    Question(
        f"q{n}", f"q{n}", "pubmedqa", f"Does {n} help?", ("yes", "no")[n % 2], (f"Aim {n}.",), ("yes", "no", "maybe")
    )
    for n in range(12)
]
PASSAGES = [Passage(f"p{n}", f"p{n}", "custom", f"Fever for {n} days, 37.{n} µg – naïve.") for n in range(8)]
HELD_QUESTIONS = HeldOutRecords(tuple(QUESTIONS), "open", "pubmedqa")
HELD_PASSAGES = HeldOutRecords(tuple(PASSAGES), "open", "custom")


def test_questions_hold_prompt_options_and_the_right_one(tmp_path: Path) -> None:
    task = write_harness(HELD_QUESTIONS, tmp_path, template="pubmedqa")
    first = json.loads(task.items_file.read_text().splitlines()[1])
    assert first["prompt"] == "Abstract: Aim 1.\nQuestion: Does 1 help?\nAnswer:"
    assert (first["choices"], first["gold"]) == ([" yes", " no", " maybe"], 1)
    settings = yaml.safe_load(task.yaml.read_text())
    assert settings["task"] == task.name == "lora_med_pubmedqa_pubmedqa_test"
    assert (tmp_path / settings["dataset_kwargs"]["data_files"]["test"]) == task.items_file
    assert task.name in write_readme([task], tmp_path).read_text()


def test_what_may_not_be_handed_on_or_has_no_form_there_is_refused(tmp_path: Path) -> None:
    secret = HeldOutRecords(tuple(PASSAGES), access="credentialed", source="custom")
    with pytest.raises(NotPermittedError, match="data use agreement"):
        write_harness(secret, tmp_path, template="text")
    with pytest.raises(SettingsError, match="conversation"):
        write_harness(HELD_QUESTIONS, tmp_path, template="pubmedqa_chat")
    pairs = HeldOutRecords((Pair("a", "a", "custom", "in", "out"),), "open", "custom")
    with pytest.raises(SettingsError, match="no form"):
        write_harness(pairs, tmp_path, template="pair")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_one_task_for_each_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "harness", "--task", "general", "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == [{"name": "lora_med_general_ending_test", "items": 355}]
    assert (tmp_path / "out/README.md").is_file()
    assert run(["eval", "harness", "--task", "chess", "--out", str(tmp_path / "out")]) == 2


def test_lm_eval_finds_our_numbers_in_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.models.huggingface import HFLM  # type: ignore[reportMissingImports]
    from lm_eval.tasks import TaskManager  # type: ignore[reportMissingImports]

    base = load_base(str(make_tiny("llama", tmp_path / "base")), quantization="none", dtype="float32")
    out = tmp_path / "out"
    tasks = [
        write_harness(HELD_QUESTIONS, out, template="pubmedqa"),
        write_harness(HELD_PASSAGES, out, template="text"),
    ]
    monkeypatch.chdir(out)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    manager = TaskManager(include_path=os.fspath(out), include_defaults=False)

    def theirs(place: int, **arguments: object) -> dict[str, float]:
        model = HFLM(pretrained=base.model, tokenizer=base.tokenizer, batch_size=4, device="cpu", **arguments)
        name = tasks[place].name
        return lm_eval.simple_evaluate(model=model, tasks=[name], task_manager=manager, bootstrap_iters=0)["results"][
            name
        ]

    def ours(heldout: HeldOutRecords, template: str) -> float:
        found = evaluate(base, [], heldout, EvalOptions(template, samples=0, bootstrap_samples=20))
        return found.subjects[0].values[found.verdict_by.name].value

    assert theirs(0)["acc,none"] == pytest.approx(ours(HELD_QUESTIONS, "pubmedqa"))
    bits = theirs(1, add_bos_token=False)["bits_per_byte,none"]
    assert bits == pytest.approx(ours(HELD_PASSAGES, "text"), rel=1e-4)

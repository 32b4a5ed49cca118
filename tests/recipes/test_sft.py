"""The two training recipes on the sample corpus and a tiny base: data in, a published adapter out."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.store import find_adapter
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.errors import InputMissingError, OutputError, SettingsError
from lora_med.training.run.callbacks import read_metrics
from lora_med.workflows import train, train_tags, train_text
from tests.tiny import make_tiny

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "lora_med" / "assets" / "sample"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


def recipe(name: str) -> Any:
    if str(ROOT / "recipes") not in sys.path:  # as Python itself has it for a script
        sys.path.insert(0, str(ROOT / "recipes"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def overrides(base: Path, folder: Path, *extra: str) -> list[str]:
    return [
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        f"train.output_dir={folder / 'run'}",
        "train.max_steps=2",
        "train.logging_steps=1",
        "train.per_device_train_batch_size=2",
        "train.max_length=2048",
        "data.max_records=16",
        "lora.r=4",
        "adapter.name=mine",
        f"adapter.store={folder / 'adapters'}",
        *extra,
    ]


def task(base: Path, folder: Path, *extra: str) -> Settings:
    qa = [
        "data.source=pubmedqa",
        f"data.paths=[{SAMPLE / 'qa_sample.json'}]",
        "data.validation_share=0.2",
        "data.test_share=0.2",
    ]
    return parse(None, [*qa, *overrides(base, folder, *extra)])


def text(base: Path, folder: Path, *extra: str) -> Settings:
    pubmed = [f"data.paths=[{SAMPLE / 'pubmed_sample.xml.gz'}]", "data.validation_share=0.2", "train.packing=true"]
    return parse(None, [*pubmed, *overrides(base, folder, *extra)])


def test_the_task_recipe_publishes_an_adapter_that_knows_where_it_comes_from(base: Path, tmp_path: Path) -> None:
    recipe("sft_task").main(task(base, tmp_path))
    card = read_card(find_adapter("mine", tmp_path / "adapters"))
    assert card.template == "pubmedqa"
    assert (card.data.source, card.data.access) == ("pubmedqa", "open")
    assert list(card.data.hashes) == ["qa_sample.json"]
    assert card.base.quantization == "none"
    assert card.scores["validation"]["step"] == 2
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["settings"]["lora"]["r"] == 4
    assert run["data"]["hashes"] == card.data.hashes
    assert run["lengths"]["training"]["trained_tokens"] > 0
    assert any("attention" in choice for choice in run["choices"])
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "loss" in line] == [1, 2]


def test_the_card_says_which_score_and_step_chose_the_adapter(base: Path, tmp_path: Path) -> None:
    recipe("sft_task").main(task(base, tmp_path, "evaluate.eval_steps=1", "evaluate.metric_for_best_model=macro_f1"))
    scores = {line["step"]: line["eval_macro_f1"] for line in read_metrics(tmp_path / "run") if "eval_items" in line}
    assert sorted(scores) == [0, 1, 2]
    found = read_card(find_adapter("mine", tmp_path / "adapters")).scores["validation"]
    best = max(scores[1], scores[2])
    assert found["eval_macro_f1"] == best
    assert found["step"] == (1 if scores[1] == best else 2)
    assert found["items"] == read_card(find_adapter("mine", tmp_path / "adapters")).data.counts["validation"]


def test_a_score_that_the_task_lacks_is_found_before_the_model_is_loaded(tmp_path: Path) -> None:
    wrong = task(tmp_path / "nowhere", tmp_path, "evaluate.eval_steps=1", "evaluate.metric_for_best_model=accurate")
    with pytest.raises(SettingsError, match="did you mean 'accuracy'"):
        recipe("sft_task").main(wrong)


def test_the_text_recipe_packs_a_stream(base: Path, tmp_path: Path) -> None:
    recipe("sft_pubmed").main(text(base, tmp_path, "data.streaming=true"))
    card = read_card(find_adapter("mine", tmp_path / "adapters"))
    assert card.template == "text"
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["lengths"]["training"]["streamed"] is True
    known = json.loads((tmp_path / "run" / "checkpoint-2" / "COMMIT.json").read_text())["identity"]
    assert len(known["the streamed data (SHA-256 of settings, files and code)"]) == 64


def test_the_same_command_publishes_again_without_training_again(base: Path, tmp_path: Path) -> None:
    settings = text(base, tmp_path, "adapter.overwrite=true")
    recipe("sft_pubmed").main(settings)
    weights = tmp_path / "adapters" / "mine" / "adapter_model.safetensors"
    first = weights.read_bytes()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    recipe("sft_pubmed").main(settings)
    assert weights.read_bytes() == first
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics


def test_a_run_that_continues_an_adapter_knows_when_that_one_is_another(base: Path, tmp_path: Path) -> None:
    """Its name is the same; what was trained further is not."""
    parent, child = tmp_path / "parent", ["adapter.name=next", "lora.continue_from=mine", "adapter.overwrite=true"]
    store = f"adapter.store={tmp_path / 'adapters'}"
    recipe("sft_pubmed").main(text(base, parent, store))
    recipe("sft_pubmed").main(text(base, tmp_path, *child))
    other = ["train.learning_rate=1e-2", f"train.output_dir={parent}/2", "adapter.overwrite=true"]
    recipe("sft_pubmed").main(text(base, parent, store, *other))
    with pytest.raises(SettingsError, match=r"lora\.continue_from"):
        recipe("sft_pubmed").main(text(base, tmp_path, *child))


@pytest.mark.parametrize("name", ["sft_task", "sft_pubmed"])
def test_what_is_cheap_to_find_out_is_found_before_the_model_is_loaded(tmp_path: Path, name: str) -> None:
    nowhere = tmp_path / "nowhere"
    settings = task(nowhere, tmp_path) if name == "sft_task" else text(nowhere, tmp_path)
    with pytest.raises(InputMissingError, match="nowhere"):
        recipe(name).main(settings)
    taken = tmp_path / "adapters" / "mine"
    taken.mkdir(parents=True)
    (taken / "card.json").write_text("{}")
    with pytest.raises(OutputError, match="'mine' exists"):
        recipe(name).main(settings)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_credentialed_rows_are_never_shown_and_the_adapter_stays_credentialed(
    base: Path, tmp_path: Path, capsys: Any
) -> None:
    recipe("sft_task").main(task(base, tmp_path, "adapter.access=credentialed"))
    assert "Abstract:" not in capsys.readouterr().err
    assert read_card(find_adapter("mine", tmp_path / "adapters")).data.access == "credentialed"


@pytest.mark.parametrize("name", ["sft_task", "sft_pubmed"])
def test_training_recipes_do_not_open_the_test_part(name: str) -> None:
    assert "open_data" in inspect.getsource(recipe(name).main)
    called = inspect.getsource(train) + inspect.getsource(train_text) + inspect.getsource(train_tags)
    assert "open_corpus" in called
    assert "heldout" not in called


@pytest.mark.slow
def test_accelerate_launches_two_processes_with_the_curve_of_one(base: Path, tmp_path: Path) -> None:
    curves = []
    for processes, size in ((1, 2), (2, 1)):
        folder = tmp_path / str(processes)
        launcher = [sys.executable, "-m", "accelerate.commands.launch", f"--num_processes={processes}"]
        launcher += ["--cpu"] if processes == 1 else [f"--config_file={ROOT / 'recipes/accelerate/cpu.yaml'}"]
        extra = [f"train.per_device_train_batch_size={size}", "lora.lora_dropout=0"]
        qa = ["data.source=pubmedqa", f"data.paths=[{SAMPLE / 'qa_sample.json'}]"]
        command = [*launcher, str(ROOT / "recipes" / "sft_task.py"), *qa, *overrides(base, folder, *extra)]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        run = json.loads((folder / "run" / "run.json").read_text())
        assert run["processes"] == processes
        curves.append(
            [(line["step"], line.get("loss", line.get("eval_loss"))) for line in read_metrics(folder / "run")]
        )
    for (step, loss), (other_step, other) in zip(*curves, strict=True):
        assert step == other_step
        assert abs(loss - other) < 1e-4

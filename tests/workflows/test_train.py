"""lora_med.train: the five calls on files, on rows in memory, with a LoraConfig, with a loaded base, and for tags."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig

import lora_med
from lora_med.adapters.store.card import Card, read_card
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.record import Question
from lora_med.errors import DataError, PreflightError, SettingsError, WorseThanBaseError
from lora_med.models.base import load_base
from tests.tiny import make_tiny
from tests.tiny_families import make_family

ROWS = [{"prompt": f"What treats illness {n}?", "completion": f" Remedy {n} does."} for n in range(12)]
MORE = [{"prompt": f"What causes illness {n}?", "completion": f" Agent {n} does."} for n in range(20, 24)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"))


def settings(base: Path, folder: Path, *extra: str) -> Settings:
    return parse(
        None,
        [
            f"model.base={base}",
            "model.load_in_4bit=false",
            "model.dtype=float32",
            "data.source=custom",
            "adapter.access=open",
            f"train.output_dir={folder / 'run'}",
            "train.max_steps=2",
            "train.per_device_train_batch_size=2",
            "lora.r=4",
            "adapter.name=mine",
            f"adapter.store={folder / 'adapters'}",
            *extra,
        ],
    )


def published(folder: Path) -> tuple[Card, bytes]:
    adapter = folder / "adapters" / "mine"
    return read_card(adapter), (adapter / "adapter_model.safetensors").read_bytes()


def test_rows_in_memory_train_the_adapter_that_the_same_files_train(base: Path, tmp_path: Path) -> None:
    """A list of dicts, a Dataset and a folder with train.jsonl and validation.jsonl are one and the same data."""
    files = tmp_path / "data"
    files.mkdir()
    for name, rows in (("train", ROWS), ("validation", MORE)):
        (files / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lora_med.train(settings(base, tmp_path / "files", f"data.paths=[{files}]"))
    lora_med.train(settings(base, tmp_path / "dicts"), train=ROWS, validation=MORE)
    datasets: Any = Dataset.from_list(ROWS), Dataset.from_list(MORE)
    folder = lora_med.train(settings(base, tmp_path / "datasets"), train=datasets[0], validation=datasets[1])
    assert folder == tmp_path / "datasets" / "adapters" / "mine"
    cards, weights = zip(*(published(tmp_path / one) for one in ("files", "dicts", "datasets")), strict=True)
    assert weights[0] == weights[1] == weights[2]
    assert [card.data.counts["train"] for card in cards] == [12, 12, 12]
    assert [card.data.counts["validation"] for card in cards] == [4, 4, 4]
    assert list(cards[1].data.hashes) == ["train (in memory)", "validation (in memory)"]
    assert cards[1].data.hashes == cards[2].data.hashes


def test_train_alone_is_split_by_group(base: Path, tmp_path: Path) -> None:
    lora_med.train(settings(base, tmp_path, "data.validation_share=0.3", "data.test_share=0"), train=ROWS)
    counts = published(tmp_path)[0].data.counts
    assert counts["train"] + counts["validation"] == 12
    assert counts["validation"] > 0


def test_other_rows_are_another_run(base: Path, tmp_path: Path) -> None:
    lora_med.train(settings(base, tmp_path), train=ROWS, validation=MORE)
    changed = [*ROWS[:-1], {"prompt": "What treats illness 11?", "completion": " Nothing does."}]
    with pytest.raises(SettingsError, match="train \\(in memory\\)"):
        lora_med.train(settings(base, tmp_path, "adapter.overwrite=true"), train=changed, validation=MORE)


def test_records_are_taken_as_they_are(base: Path, tmp_path: Path) -> None:
    records = [
        Question(f"q{n}", f"g{n}", "custom", f"Does drug {n} help?", ("yes", "no")[n % 2], (), ("yes", "no"))
        for n in range(12)
    ]
    lora_med.train(settings(base, tmp_path), train=records[:9], validation=records[9:])
    assert published(tmp_path)[0].template == "question_chat_v2"


def test_records_of_a_credentialed_source_stay_credentialed(base: Path, tmp_path: Path) -> None:
    """Their own source must be named, and it brings its access class."""
    from lora_med.data.record import Passage

    notes = [Passage(f"n{n}", f"p{n}", "mimic3", f"Note {n}", f"The patient number {n} is well.") for n in range(9)]
    with pytest.raises(SettingsError, match="mimic3"):
        lora_med.train(settings(base, tmp_path), train=notes)
    lora_med.train(settings(base, tmp_path, "data.source=mimic3"), train=notes[:7], validation=notes[7:])
    card, _ = published(tmp_path)
    assert card.data.access == "credentialed"
    assert (tmp_path / "run" / "run.json").stat().st_mode & 0o077 == 0


def test_an_adapter_on_a_base_merged_of_credentialed_data_is_credentialed(base: Path, tmp_path: Path) -> None:
    merged = Path(shutil.copytree(base, tmp_path / "merged"))
    data = {"source": "mimic", "earlier_sources": [], "license": "PhysioNet", "access": "credentialed"}
    (merged / "merge_certificate.json").write_text(json.dumps({"data": data}))
    lora_med.train(settings(merged, tmp_path), train=ROWS, validation=MORE)
    card, _ = published(tmp_path)
    assert (card.data.access, card.data.earlier_sources) == ("credentialed", ["mimic"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["access"] == "credentialed"
    for path in (tmp_path / "run" / "run.json", tmp_path / "adapters" / "mine" / "card.json"):
        assert path.stat().st_mode & 0o077 == 0


def test_a_lora_config_says_what_the_section_lora_says(base: Path, tmp_path: Path) -> None:
    lora_med.train(settings(base, tmp_path / "section", "lora.lora_alpha=8"), train=ROWS, validation=MORE)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.05, target_modules="all-linear")
    lora_med.train(settings(base, tmp_path / "config", "lora.r=16"), train=ROWS, validation=MORE, lora=config)
    assert published(tmp_path / "section")[1] == published(tmp_path / "config")[1]
    assert published(tmp_path / "config")[0].settings["lora"]["r"] == 4


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (LoraConfig(bias="all"), "bias='all'"),
        (LoraConfig(modules_to_save=["lm_head"]), r"modules_to_save=\['lm_head'\]"),
        (LoraConfig(target_modules=r".*\.q_proj"), "a pattern"),
        (LoraConfig(task_type="SEQ_CLS"), "SEQ_CLS"),
        (LoraConfig(lora_bias=True), "lora_bias=True"),
        (LoraConfig(target_parameters=["experts.down_proj"]), "lora.target_experts=true in the settings"),
        ({"r": 8}, "cannot be a dict"),
    ],
)
def test_what_cannot_be_honored_is_refused_by_name(base: Path, tmp_path: Path, config: Any, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        lora_med.train(settings(base, tmp_path), train=ROWS, lora=config)
    assert not (tmp_path / "run").exists()


def test_a_lora_config_leaves_the_experts_to_the_settings(tmp_path: Path) -> None:
    mixture = make_family("mixtral", tmp_path / "mixtral")
    wanted = settings(mixture, tmp_path, "lora.target_experts=true", "train.max_steps=1")
    lora_med.train(wanted, train=ROWS, validation=MORE, lora=LoraConfig(r=2, target_modules=["q_proj"]))
    card = published(tmp_path)[0]
    assert card.method["target_parameters"] == ["experts.down_proj", "experts.gate_up_proj"]
    assert (card.method["r"], card.settings["lora"]["lora_dropout"]) == (2, 0)


def test_a_loaded_base_takes_the_place_of_the_settings(base: Path, tmp_path: Path) -> None:
    lora_med.train(settings(base, tmp_path / "name"), train=ROWS, validation=MORE)
    loaded = load_base(str(base), quantization="none", dtype="float32")
    elsewhere = settings(tmp_path / "nowhere", tmp_path / "object")
    lora_med.train(elsewhere, train=ROWS, validation=MORE, base=loaded)
    (card, weights), (_, named) = published(tmp_path / "object"), published(tmp_path / "name")
    assert weights == named
    assert card.base.fingerprint == loaded.fingerprint
    assert card.base.name == base.name
    assert card.settings["model"]["base"] == base.name  # not the folder of the settings, which is nowhere


def test_packing_is_off_where_packed_documents_would_see_each_other(tmp_path: Path) -> None:
    """Falcon has an attention of its own, chosen by itself; an attention set by hand is refused as before."""
    falcon = make_family("falcon", tmp_path / "falcon")
    for name, packing in (("packed", "true"), ("padded", "false")):
        run_settings = settings(falcon, tmp_path / name, f"train.packing={packing}", "train.max_length=128")
        lora_med.train(run_settings, train=ROWS, validation=MORE)
    (card, weights), (_, padded) = published(tmp_path / "packed"), published(tmp_path / "padded")
    assert weights == padded and card.settings["train"]["packing"] is False
    recorded = json.loads((tmp_path / "packed" / "run" / "run.json").read_text())
    assert recorded["settings"]["train"]["packing"] is False
    by_hand = settings(falcon, tmp_path / "hand", "train.packing=true", "model.attn_implementation=sdpa")
    with pytest.raises(SettingsError, match="see each other"):
        lora_med.train(by_hand, train=ROWS, validation=MORE)


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        ("text", SettingsError, "cannot be a str"),
        ([], DataError, "holds no rows"),
        ([{"prompt": "a", "completion": "b"}, 3], SettingsError, "dict, int"),
    ],
)
def test_rows_that_are_none_are_refused(base: Path, tmp_path: Path, rows: Any, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        lora_med.train(settings(base, tmp_path), train=rows)


def test_rows_and_paths_together_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.paths"):
        lora_med.train(settings(base, tmp_path, "data.paths=[a.jsonl]"), train=ROWS)


def test_a_bad_row_is_named_by_its_number(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3"):
        lora_med.train(settings(base, tmp_path), train=[*ROWS[:2], {"prompt": "a"}, *ROWS[2:]], validation=MORE)


def test_the_same_call_trains_tags(tmp_path: Path) -> None:
    base = make_tiny("llama", tmp_path / "base")
    tagging = parse(
        "micro_tags",
        [
            f"model.base={base}",
            "model.load_in_4bit=false",
            "data.max_records=30",
            f"train.output_dir={tmp_path / 'run'}",
            "train.max_steps=2",
            f"adapter.store={tmp_path / 'adapters'}",
        ],
    )
    card = read_card(lora_med.train(tagging))
    assert card.template == "tags"
    assert set(card.labels) == {"O", "B-Chemical", "I-Chemical", "B-Disease", "I-Disease"}
    assert "entities (validation)" in card.scores


@pytest.mark.slow
def test_accelerate_launches_the_module_on_two_processes(base: Path, tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", f"--config_file={config}"]
    values = settings(base, tmp_path).model_dump(mode="json")
    overrides = [
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        *(f"train.{key}={values['train'][key]}" for key in ("output_dir", "max_steps", "per_device_train_batch_size")),
        f"adapter.store={tmp_path / 'adapters'}",
        "adapter.name=mine",
        "lora.lora_dropout=0",
        "data.max_records=40",
    ]
    command = [*launcher, "-m", "lora_med", "train", "--config", "micro_title", *overrides]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert published(tmp_path)[0].template == "title"
    assert done.stdout.count("published:") == 1


def test_rows_that_nobody_classed_are_not_trained_on(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The question comes before a model is loaded, for rows in memory as for those of a file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    nowhere = "model.base=/nowhere"
    given: list[tuple[Settings, dict[str, Any]]] = [
        (settings(base, tmp_path / "a", nowhere, "adapter.access=null", f"data.paths=[{path}]"), {}),
        (settings(base, tmp_path / "b", nowhere, "adapter.access=null"), {"train": ROWS, "validation": MORE}),
    ]
    for chosen, rows in given:
        with pytest.raises(SettingsError, match="'custom' has no access class until you state one") as caught:
            lora_med.train(chosen, **rows)
        assert all(f"adapter.access={name}" in caught.value.what for name in ("open", "registered", "credentialed"))
    assert "illness" not in "".join(capfd.readouterr())
    command = ["train", "data.source=custom", f"data.paths=[{path}]", nowhere, f"train.output_dir={tmp_path / 'c'}"]
    assert run(command) == 2
    assert "adapter.access=open (anyone may read the data)" in capfd.readouterr().err


def test_the_readme_of_an_adapter_says_the_class_that_was_stated(base: Path, tmp_path: Path) -> None:
    for access, said in (("open", "Learned from open data."), ("credentialed", "Learned from credentialed data")):
        folder = lora_med.train(
            settings(base, tmp_path / access, f"adapter.access={access}"), train=ROWS, validation=MORE
        )
        assert said in (folder / "README.md").read_text()
        assert read_card(folder).data.access == access
        assert ((tmp_path / access / "run" / "run.json").stat().st_mode & 0o077 == 0) == (access == "credentialed")


def test_an_adapter_that_is_worse_than_its_base_is_published_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm = ["train.learning_rate=0.3", "train.max_steps=6", "train.eval_steps=6", "data.max_records=60"]
    harm += [f"train.output_dir={tmp_path / 'run'}", f"adapter.store={tmp_path / 'adapters'}"]
    with pytest.raises(WorseThanBaseError, match="on validation it is worse than its base") as caught:
        lora_med.train(parse("quickstart_pubmed", harm))
    assert caught.value.exit_code == 78
    assert not (tmp_path / "adapters").exists()
    assert json.loads((tmp_path / "run/run.json").read_text())["scores"]["validation"]["verdict"] == "worse"
    folder = lora_med.train(parse("quickstart_pubmed", [*harm, "adapter.publish_worse=true"]))
    chosen = read_card(folder).scores["validation"]
    assert chosen["verdict"] == "worse" and chosen["eval_loss"] > chosen["start"]
    assert "worse than its base" in (folder / "README.md").read_text()
    assert run(["adapters", "list", "--store", str(folder.parent)]) == 0
    assert f"worse: {chosen['eval_loss']:.2f} against {chosen['start']:.2f}" in capsys.readouterr().out


def test_without_a_validation_split_the_last_adapter_is_published(base: Path, tmp_path: Path) -> None:
    wanted = ["data.validation_share=0", "data.test_share=0"]
    lora_med.train(settings(base, tmp_path / "text", *wanted), train=ROWS)
    assert published(tmp_path / "text")[0].scores == {}
    tagged = [{"text": f"Fever {n} came.", "entities": [{"start": 0, "end": 5, "type": "Sign"}]} for n in range(12)]
    lora_med.train(settings(base, tmp_path / "tags", *wanted, "lora.task_type=TOKEN_CLS"), train=tagged)
    assert published(tmp_path / "tags")[0].labels


def test_a_validation_split_that_is_empty_by_chance_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="there are no rows") as caught:
        lora_med.train(settings(base, tmp_path, "data.validation_share=0.001", "data.test_share=0"), train=ROWS)
    assert "data.validation_share" in (caught.value.fix or "")

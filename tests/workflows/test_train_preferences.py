"""train.method=dpo: from a file of preferences to a card, on the base or on a parent, and what it refuses by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lora_med
from lora_med.adapters.store.card import read_card
from lora_med.cli.main import run
from lora_med.config.parse import parse
from lora_med.config.schema import Settings
from lora_med.data.shapes.preferences import mined_by
from lora_med.errors import DataError, SettingsError
from tests.tiny import make_tiny

ROWS = [
    {"prompt": f"What treats illness {n}?", "chosen": f" Remedy {n} does.", "rejected": " Nothing does."}
    for n in range(16)
]
SFT = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"))


def write(folder: Path, rows: list[dict[str, Any]], name: str = "pairs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(base: Path, folder: Path, *extra: str) -> list[str]:
    return [
        f"model.base={base}",
        "model.load_in_4bit=false",
        "model.dtype=float32",
        "data.source=custom",
        "data.validation_share=0.25",
        "data.test_share=0",
        "adapter.access=open",
        f"train.output_dir={folder / 'run'}",
        "train.max_steps=2",
        "train.eval_steps=1",
        "train.learning_rate=1e-3",
        "train.max_length=128",
        "lora.r=4",
        "adapter.name=mine",
        f"adapter.store={folder / 'adapters'}",
        *extra,
    ]


def settings(base: Path, folder: Path, *extra: str) -> Settings:
    return parse(None, words(base, folder, "train.method=dpo", *extra))


def test_the_command_trains_from_a_file_and_the_card_tells_how(base: Path, tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path, [*ROWS, ROWS[0], ROWS[1] | {"rejected": ROWS[1]["chosen"]}])
    arguments = words(base, tmp_path, "train.method=dpo", f"data.paths=[{path}]", "train.batch=auto")
    assert run(["train", "--json", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["adapter"] == "mine"
    card = read_card(tmp_path / "adapters" / "mine")
    assert (card.settings["train"]["method"], card.settings["train"]["beta"]) == ("dpo", 0.1)
    assert card.settings["lora"]["lora_dropout"] == 0
    assert card.data.counts["dropped: same_answer"] == 1
    assert card.data.counts["dropped: duplicate"] == 1
    preferences = card.scores["preferences (validation)"]
    assert preferences["reference"] == "the base, without an adapter"
    assert preferences["pairs"] == card.data.counts["validation"] > 0
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())
    assert recorded["reference"] == "the base, without an adapter"
    assert recorded["lengths"]["training"]["rows"] == card.data.counts["train"]
    assert not list(tmp_path.rglob("ref"))
    assert run(["train", "--json", *arguments, "adapter.overwrite=true"]) == 0  # the run had ended: the same scores
    assert read_card(tmp_path / "adapters" / "mine").scores == card.scores


def test_a_parent_is_the_reference_and_another_parent_is_another_run(base: Path, tmp_path: Path) -> None:
    parent = ("adapter.name=parent", f"train.output_dir={tmp_path / 'parent'}", "adapter.overwrite=true")
    lora_med.train(parse(None, words(base, tmp_path, *parent)), train=SFT[:12], validation=SFT[12:])
    chosen = settings(base, tmp_path, "lora.continue_from=parent", "lora.lora_dropout=0")
    lora_med.train(chosen, train=ROWS[:12], validation=ROWS[12:])
    digest = read_card(tmp_path / "adapters" / "parent").files["adapter_model.safetensors"]
    card = read_card(tmp_path / "adapters" / "mine")
    assert (
        card.scores["preferences (validation)"]["reference"] == f"the adapter parent, SHA-256 of its weights {digest}"
    )
    start = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert (start["step"], start["eval_preference_accuracy"], start["eval_reward_margin"]) == (0, 0.5, 0.0)
    other = (*parent, f"train.output_dir={tmp_path / 'other'}", "train.seed=7")
    lora_med.train(parse(None, words(base, tmp_path, *other)), train=SFT[:12], validation=SFT[12:])
    again = settings(base, tmp_path, "lora.continue_from=parent", "adapter.overwrite=true", "train.max_steps=3")
    with pytest.raises(SettingsError, match="continue_from"):
        lora_med.train(again, train=ROWS[:12], validation=ROWS[12:])


def test_preferences_with_sft_and_other_rows_with_dpo_are_refused_before_a_base_is_loaded(tmp_path: Path) -> None:
    nowhere = tmp_path / "no base"
    with pytest.raises(SettingsError, match=r"(?s)train\.method is sft.*completion: chosen"):
        lora_med.train(parse(None, words(nowhere, tmp_path, f"data.paths=[{write(tmp_path, ROWS)}]")))
    with pytest.raises(DataError, match="no pairs of a chosen and a rejected answer"):
        lora_med.train(settings(nowhere, tmp_path, f"data.paths=[{write(tmp_path, SFT, 'sft.jsonl')}]"))


@pytest.mark.parametrize(
    "setting",
    [
        "train.packing=true",
        "train.share_context=true",
        "train.cache_frozen=true",
        "train.assistant_turns=all",
        "train.too_long=trim_context",
        "train.trainer_args.neftune_noise_alpha=5",
        "data.streaming=true",
        "evaluate.eval_steps=5",
        "lora.task_type=TOKEN_CLS",
        "lora.lora_dropout=0.1",
        "lora.init_lora_weights=pissa",
        'lora.trainable_tokens=["<note>"]',
    ],
)
def test_what_the_method_cannot_be_combined_with_is_refused_by_name(setting: str) -> None:
    name = setting.partition("=")[0].removeprefix("train.trainer_args.")
    with pytest.raises(SettingsError, match=f"method dpo cannot be combined with .*{name}"):
        parse(None, ["train.method=dpo", setting])
    parse(None, [setting] if "metric" not in setting else [])  # each by itself is a setting like another


def test_the_method_has_defaults_of_its_own_and_a_value_wins_over_them() -> None:
    plain, ours = parse(None, []), parse(None, ["train.method=dpo"])
    assert (plain.train.learning_rate, plain.lora.lora_dropout) == (2e-4, 0.05)
    assert (ours.train.learning_rate, ours.lora.lora_dropout) == (2e-5, 0.0)
    assert parse(None, ["train.method=dpo", "train.learning_rate=1e-3"]).train.learning_rate == 1e-3
    assert Settings.model_validate(ours.model_dump()) == ours
    with pytest.raises(SettingsError, match=r"train\.beta 0\.3 \(it is of method dpo"):
        parse(None, ["train.beta=0.3"])


def test_a_lora_config_with_dropout_is_refused_too(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear")
    with pytest.raises(SettingsError, match=r"lora_dropout 0\.1"):
        lora_med.train(settings(base, tmp_path), train=ROWS, lora=config)


def test_the_card_states_that_a_check_made_the_pairs(base: Path, tmp_path: Path) -> None:
    rows = [row | {"mined_by": mined_by("faithfulness")} for row in ROWS]
    lora_med.train(settings(base, tmp_path, f"data.paths=[{write(tmp_path, rows)}]"))
    (columns,) = read_card(tmp_path / "adapters" / "mine").data.columns
    assert columns["remarks"] == [
        "pairs made by faithfulness: this check is never the score of what learns from these pairs"
    ]


def test_an_earlier_checkpoint_of_sft_still_resumes(base: Path, tmp_path: Path) -> None:
    """The identity of a run with method sft has no field of the method, as that of earlier versions."""
    lora_med.train(parse(None, words(base, tmp_path)), train=SFT[:12], validation=SFT[12:])
    commit = json.loads((tmp_path / "run" / "checkpoint-2" / "COMMIT.json").read_text())
    assert not {"train.method", "train.beta"} & set(commit["identity"])


def test_the_plan_counts_the_reference_and_both_answers(base: Path, tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path, ROWS)
    common = words(base, tmp_path, f"data.paths=[{path}]", "lora.lora_dropout=0", "train.max_steps=4")
    assert run(["plan", "--json", *common, "train.method=dpo"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert ours["as_set"]["bytes"]["reference"] == ours["as_set"]["bytes"]["adapters"] > 0
    assert 8 <= ours["rows"] < len(ROWS)  # without the held-out pairs
    # A token a letter, the beginning and the end.
    documents = [len(row["prompt"] + row[side]) + 2 for row in ROWS for side in ("chosen", "rejected")]
    assert min(documents) * 2 * ours["rows"] <= ours["tokens_an_epoch"] <= max(documents) * 2 * ours["rows"]
    assert run(["plan", *common, "train.method=dpo", "--sharded", "--processes", "2"]) == 2
    assert "in shards" in capsys.readouterr().err


def test_without_a_validation_split_preferences_are_learned_too(base: Path, tmp_path: Path) -> None:
    path = write(tmp_path, ROWS)
    given = settings(base, tmp_path, f"data.paths=[{path}]", "data.validation_share=0", "train.eval_steps=null")
    lora_med.train(given)
    assert read_card(tmp_path / "adapters" / "mine").settings["train"]["method"] == "dpo"

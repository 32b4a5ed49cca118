"""What the processes of a run compare before the first step, and how a difference is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_med.config.parse import parse
from lora_med.processes.agreement import MOST_LINES, disagreement
from lora_med.processes.launch import Place
from lora_med.training.run_agreement import MAY_DIFFER, settled
from tests.processes.machines import SAMPLE, start
from tests.tiny import make_tiny

ALPHA, BETA = Place(0, "alpha", "alpha/0", 0), Place(1, "beta", "beta/1", 0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


def test_the_message_names_the_field_both_values_and_who_has_which() -> None:
    facts = [{"train.learning_rate": 2e-3, "train.seed": 42}, {"train.learning_rate": 1e-5, "train.seed": 42}]
    error = disagreement(facts, [ALPHA, BETA], fix="")
    assert "train.learning_rate: 0.002 in process 0 on alpha; 1e-05 in process 1 on beta" in error.what
    assert "seed" not in error.what
    assert error.exit_code == 76


def test_processes_with_one_value_are_named_together() -> None:
    places = [Place(number, "alpha", "alpha/0", number) for number in range(5)] + [BETA]
    error = disagreement([{"r": 8}] * 5 + [{"r": 4}], places, fix="")
    assert "r: 8 in processes 0, 1, 2 and 2 more on alpha; 4 in process 1 on beta" in error.what


def test_hashes_are_short_and_a_missing_fact_is_named() -> None:
    error = disagreement([{"base": "ab" * 32, "only": 1}, {"base": "cd" * 32}], [ALPHA, BETA], fix="")
    assert f"base: {'ab' * 6} in process 0 on alpha; {'cd' * 6} in process 1 on beta" in error.what
    assert "only: 1 in process 0 on alpha; not set in process 1 on beta" in error.what


def test_long_values_and_many_differences_are_cut() -> None:
    error = disagreement(
        [{f"f{number}": ["x" * 500, side] for number in range(40)} for side in (0, 1)], [ALPHA, BETA], fix=""
    )
    assert len(error.what) < 3000
    assert f"and {40 - MOST_LINES} more" in error.what


def test_every_setting_is_compared_or_has_its_reason() -> None:
    settings = parse(None, [])
    names = {
        f"{section}.{field}" if isinstance(values, dict) else section
        for section, values in settings.model_dump().items()
        for field in (values if isinstance(values, dict) else [""])
    }
    assert set(MAY_DIFFER) <= names
    assert names - set(MAY_DIFFER) <= set(settled(settings))
    assert all(len(reason) > 10 for reason in MAY_DIFFER.values())


def test_what_is_compared_does_not_grow_with_the_data(tmp_path: Path) -> None:
    few = settled(parse(None, ["data.paths=[a.xml]"]))
    many = settled(parse(None, [f"data.paths=[{','.join(f'{number}.xml' for number in range(1000))}]"]))
    assert few == many
    assert len(json.dumps(few)) < 10_000


@pytest.mark.parametrize(
    ("own", "named"),
    [
        (["train.learning_rate=1e-5"], "train.learning_rate: 0.0002 in process 0 on {}; 1e-05 in process 1 on {}"),
        (["data.paths=[{shorter}]"], "data file 1 (SHA-256): "),
        pytest.param(
            ["adapter.access=credentialed"],
            "access class of the data: open in process 0 on {}; credentialed in ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["model.dtype=bfloat16"],
            "base: number format: float32 in process 0 on {}; bfloat16 in process 1 on {}",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["model.attn_implementation=eager"],
            "base: attention: lora_med_sdpa in process 0 on {}; eager in ",
            marks=pytest.mark.slow,
        ),
        (["model.base={other}"], "base: weights (SHA-256): "),
    ],
    ids=["settings", "data", "access", "number format", "attention", "base"],
)
def test_a_difference_ends_both_machines_with_one_message(
    base: Path, tmp_path: Path, own: list[str], named: str
) -> None:
    rows = json.loads(SAMPLE.read_text())
    shorter = tmp_path / "qa_sample.json"
    shorter.write_text(json.dumps({key: rows[key] for key in list(rows)[:-1]}))
    other = make_tiny("llama", tmp_path / "other", context=4096, seed=7) if "{other}" in own[0] else tmp_path
    own = [text.format(shorter=shorter, other=other) for text in own]
    machines = start(base, tmp_path, own=((), own))
    assert machines.wait() == [76, 76]
    host = machines[0].said.partition("process 0 on ")[2].split(";")[0].split()[0]
    for machine in machines.every:
        assert named.format(host, host) in machine.said
        assert machine.said.count("E076-disagreement") == 1
    assert machines[0].status() == "failed"


@pytest.mark.slow
def test_files_in_other_folders_and_outputs_of_their_own_may_differ(base: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy.json"
    elsewhere.write_bytes(SAMPLE.read_bytes())
    machines = start(base, tmp_path, "train.max_steps=1", own=((), [f"data.paths=[{elsewhere}]"]))
    assert machines.wait() == [0, 0], machines[0].said

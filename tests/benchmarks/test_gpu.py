"""benchmarks/gpu.py, rehearsed on the CPU with a tiny shape: each kind of part, the order, and the page of results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _scripts_can_be_imported() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield


def options(folder: Path, **more: Any) -> dict[str, Any]:
    common = {"shape": "tiny", "folder": str(folder), "quantization": "none", "arm": "ours", "packing": False}
    return {**common, "batch": 2, "steps": 3, "rounds": 1, **more}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import gpu_arm

    folder = tmp_path_factory.mktemp("models") / "tiny"
    assert gpu_arm.model(options(folder))["bytes"] > 1_000_000
    return folder


def test_one_batch_has_the_loss_and_gradient_of_trl(tiny: Path) -> None:
    import gpu_arm

    check = gpu_arm.equal(options(tiny))
    assert check["loss_difference"] < 1e-5 and check["gradient_difference"] < 1e-4


def test_the_kernels_are_those_of_their_references(tiny: Path) -> None:
    import gpu_arm

    kernels = gpu_arm.kernels(options(tiny))["kernels"]
    assert [row["name"].partition(" ")[0].strip(",") for row in kernels] == ["attention", "loss", *2 * ["adapters"]]
    assert all(row["error"] < 0.02 and row["ours_ms"] > 0 < row["reference_ms"] for row in kernels)


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_both_arms_begin_with_the_same_loss(tiny: Path, quantization: str) -> None:
    import gpu_arm

    ours, theirs = (gpu_arm.speed(options(tiny, arm=arm, quantization=quantization)) for arm in ("ours", "trl-best"))
    assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=0.01)
    assert ours["tokens"] == theirs["tokens"] > 0
    assert ours["planned_mb"] > 0


def test_packed_rows_hold_several_documents(tiny: Path) -> None:
    import gpu_arm

    separate, packed = (gpu_arm.speed(options(tiny, packing=packing)) for packing in (False, True))
    assert packed["tokens"] > 2 * separate["tokens"]


def test_scores_are_those_of_the_pure_passes(tiny: Path) -> None:
    import gpu_arm

    result = gpu_arm.evaluate(options(tiny))
    assert result["largest_difference"] < 0.05
    assert result["written_tokens_per_second"] > 0


def test_the_page_names_what_is_not_done_and_voids_a_ratio_of_other_losses() -> None:
    import gpu_table

    ours = {"tokens_per_second": 300.0, "losses": [2.0], "peak_mb": 100, "planned_mb": 110}
    theirs = {"tokens_per_second": 200.0, "losses": [2.01], "peak_mb": 150}
    results = {
        "speed_8b_4bit_separate_ours": ours,
        "speed_8b_4bit_separate_trl-best": theirs,
        "speed_1b_none_separate_ours": ours,
        "speed_1b_none_separate_trl-best": {**theirs, "losses": [2.5]},
        "tests": {"outcomes": {"a::b": "passed", "a::c": "failure"}},
        "equal": {"error": "out of\nmemory"},
    }
    names = [*results, "profile_8b_4bit"]
    text = gpu_table.table({"gpu": "a GPU", "cuda": "13", "machine": "m"}, results, names, rehearsed=False)
    assert "| 8b | NF4 | separate | 300 | 100 | 110 (+10%) | 200 | 150 | 1.50 | equal (error 5.0e-03) |" in text
    assert "1.50 | NOT EQUAL: the ratio is void (error 2.0e-01)" in text
    assert "1 of 2 passed" in text and "- a::c: failure" in text
    assert "- not done: equal: out of memory" in text
    assert "- not done: profile_8b_4bit: not run: the time was over" in text


def test_a_part_that_is_done_is_not_run_again_and_none_begins_when_the_time_is_over(tmp_path: Path) -> None:
    import gpu

    planned = [part for part in gpu.parts(tmp_path, rehearse=True, steps=3) if part.kind in ("equal", "kernels")]
    assert [part.name for part in planned] == ["equal", "kernels"]
    (tmp_path / "equal.json").write_text(json.dumps({"cosine": 1.0}), encoding="utf-8")
    assert gpu.run_parts(planned, tmp_path, minutes=0.0) == {"equal": {"cosine": 1.0}}
    assert not (tmp_path / "kernels.json").exists()


def test_a_part_that_fails_leaves_its_error(tmp_path: Path) -> None:
    import gpu

    result = gpu.carry_out(gpu.Part("x", "no such kind"), tmp_path, 100.0)
    assert "KeyError" in result["error"]


def test_without_a_gpu_the_command_ends_with_what_is_needed() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, str(SCRIPTS / "gpu.py")], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 1
    assert run.stderr.startswith("no GPU: torch sees no CUDA device")


@pytest.mark.slow
def test_the_whole_command_is_rehearsed(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "gpu.py"), "--rehearse", "--out", str(tmp_path / "out"), "--minutes", "40"]
    run = subprocess.run([*command, "--models", str(tmp_path / "models")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "A rehearsal" in text and "not done" not in text

"""The quickstart from end to end, its trainings cut to two steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MICRO = ROOT / "lora_med/assets/micro/model.safetensors"
pytestmark = pytest.mark.timeout(900)  # a minute of computing, however busy the machine


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a whole quickstart, begun over the remains of another, and what it printed."""
    if not MICRO.is_file():
        pytest.skip("the embedded base is not here")
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "out/merged").mkdir(parents=True)
    (folder / "out/merged/model.safetensors").write_text("of an earlier quickstart")
    overrides = [
        f"adapter.store={folder / 'store'}",
        "train.max_steps=2",
        "train.logging_steps=1",
        "evaluate.max_items=6",
        "evaluate.bootstrap_samples=200",
        "data.max_records=60",
        "train.max_length=256",
        "train.per_device_train_batch_size=2",
    ]
    command = [sys.executable, "recipes/quickstart.py", "--out", str(folder / "out"), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=880, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, ran.stdout


def check_results(folder: Path) -> None:
    content = json.loads((folder / "out/report.json").read_text())
    names = [entry["subjects"][1]["adapter"] for entry in content["evaluations"]]
    assert [entry["scoring"] for entry in content["evaluations"]] == ["text", "choice"]
    for name in names:
        assert json.loads((folder / "store" / name / "card.json").read_text())["scores"]
    assert [swap["adapter"] for swap in content["swaps"] if swap["changed"] and swap["restored"]] == names
    certificate = json.loads((folder / "out/merged/merge_certificate.json").read_text())
    assert content["merges"] == [certificate]
    assert not (folder / "out/merged/adapter_config.json").exists()


def check_page(folder: Path) -> None:
    page = (folder / "out/report.html").read_text()
    assert page.count("<svg") >= 4
    for heading in (
        "Training",
        "Text: pubmed",
        "Questions: pubmedqa",
        "Swapping",
        "Merge, verified",
        "Sizes and times",
    ):
        assert heading in page


def test_it_leaves_two_adapters_a_merged_model_and_a_report_and_says_where(done: tuple[Path, str]) -> None:
    """One test, as each worker that has a part of it would run a quickstart of its own."""
    folder, said = done
    check_results(folder)
    check_page(folder)
    assert f"report: {folder / 'out/report.html'}" in said
    assert "lora-med generate --adapter" in said

"""merge_adapter from a published adapter to a proved model folder, and all that it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.adapters.runtime.attach import attach
from lora_med.errors import BaseMismatchError, IntegrityError, OutputError, SettingsError
from lora_med.files import read_json, sha256_file
from lora_med.folders import sweep_folders
from lora_med.merge import merge as merging
from lora_med.merge.merge import merge_adapter
from lora_med.merge.proof.logits import Agreement, Tolerance, compare
from lora_med.models.base import load_base
from lora_med.models.fingerprint import fingerprint
from tests.evaluation.published import publish_random
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another of equal shape, and adapters of the first; read only."""
    folder = tmp_path_factory.mktemp("merge")
    make_tiny("llama", folder / "base", shard="60KB")
    make_tiny("llama", folder / "other", seed=9)
    publish_random(folder / "base", "plain", folder / "store", access="registered")
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_merged_folder_is_a_proved_model(home: Path, tmp_path: Path) -> None:
    merge = merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store")
    assert leftovers(tmp_path) == ["out"]
    assert not (tmp_path / "out/adapter_config.json").exists()
    certificate = read_json(tmp_path / "out/merge_certificate.json")
    assert certificate == merge.certificate
    assert certificate["probe"]["mean_kl"] < 1e-6 < certificate["probe"]["adapter_effect_kl"]
    assert certificate["probe"]["same_first_choice"] > 0.99
    wanted = {"source": "custom", "earlier_sources": [], "license": "CC BY 4.0", "access": "registered"}
    assert certificate["data"] == wanted
    for name, digest in certificate["merged"]["files"].items():
        assert sha256_file(tmp_path / "out" / name) == digest
    before, after = fingerprint(home / "base"), fingerprint(tmp_path / "out")
    assert after.weights == certificate["merged"]["fingerprint"]["weights"] != before.weights
    assert (after.tokenizer, after.template) == (before.tokenizer, before.template)


def test_the_merged_model_answers_as_base_plus_adapter(home: Path, tmp_path: Path) -> None:
    merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store")
    merged = load_base(str(tmp_path / "out"), quantization="none", dtype="float32")
    base = load_base(str(home / "base"), quantization="none", dtype="float32")
    ids = torch.tensor([merged.tokenizer("Chest pain for two days.")["input_ids"]])
    with torch.no_grad():
        bare = base.model(input_ids=ids).logits.clone()
        adapted = attach(base, "plain", home / "store")(input_ids=ids).logits
        found = merged.model(input_ids=ids).logits
    assert torch.allclose(found, adapted, atol=1e-4)
    assert not torch.allclose(found, bare, atol=1e-2)


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_other_families_and_methods_merge_within_tolerance(family: str, tmp_path: Path) -> None:
    make_tiny(family, tmp_path / "base")
    publish_random(tmp_path / "base", "dora", tmp_path / "store", use_dora=True, rank_pattern={".*1.*proj": 2})
    merge = merge_adapter("dora", tmp_path / "out", base=str(tmp_path / "base"), store=tmp_path / "store")
    assert merge.certificate["adapter"]["method"] == "DoRA"
    assert merge.certificate["probe"]["mean_kl"] < 1e-6


def test_an_adapter_trained_on_4_bits_is_merged_into_the_full_precision_original(home: Path, tmp_path: Path) -> None:
    publish_random(home / "base", "four", tmp_path / "store", quantization="4bit")
    merge = merge_adapter("four", tmp_path / "out", base=str(home / "base"), store=tmp_path / "store")
    assert merge.certificate["adapter"]["trained_on"] == "4bit"
    assert merge.certificate["probe"]["mean_kl"] < 1e-6


def test_bf16_output_is_within_its_wider_tolerance(home: Path, tmp_path: Path) -> None:
    merge = merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store", dtype="bfloat16")
    assert read_json(tmp_path / "out/config.json")["dtype"] == "bfloat16"
    assert 1e-9 < merge.certificate["probe"]["mean_kl"] < merge.certificate["tolerance"]["mean_kl"]


def test_a_base_of_equal_shape_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseMismatchError) as caught:
        merge_adapter("plain", tmp_path / "out", base=str(home / "other"), store=home / "store")
    assert caught.value.exit_code == 76
    assert leftovers(tmp_path) == []


def test_a_changed_adapter_is_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "store", tmp_path / "store")
    path = tmp_path / "store/plain/adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="not the file that was published"):
        merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=tmp_path / "store")
    assert leftovers(tmp_path) == ["store"]


def test_a_folder_that_is_not_empty_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/adapter_config.json").write_text("{}")
    with pytest.raises(OutputError, match="not empty"):
        merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store")
    assert leftovers(tmp_path / "out") == ["adapter_config.json"]


def test_a_merge_outside_the_tolerance_is_refused_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    strict = Tolerance(mean_kl=1e-15, share_of_effect=1.0, negligible=1.0)
    with pytest.raises(IntegrityError, match="is not base \\+ adapter"):
        merge_adapter(
            "plain", tmp_path / "out", base=str(home / "base"), store=home / "store", dtype="bfloat16", tolerance=strict
        )
    assert leftovers(tmp_path) == []


def test_a_wrong_sum_is_caught_by_the_proof(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof stands on its own: with every update scaled by half in the plan, it refuses."""
    from dataclasses import replace

    whole = merging.plan_merge

    def halved(*given: Any) -> Any:
        plan = whole(*given)
        outputs = {
            name: replace(one, low_rank=replace(one.low_rank, scale=one.low_rank.scale / 2)) if one.low_rank else one
            for name, one in plan.outputs.items()
        }
        return replace(plan, outputs=outputs)

    monkeypatch.setattr(merging, "plan_merge", halved)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(IntegrityError, match="is not base"):
            merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store", dtype=dtype)


def test_an_unknown_dtype_names_those_there_are(home: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="bfloat16"):
        merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store", dtype="bfloat61")


def test_a_kill_leaves_no_model_and_the_next_merge_sweeps(home: Path, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        merging.fold = lambda *_, **__: time.sleep(60)  # type: ignore[assignment]
        merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store")
        os._exit(1)
    deadline = time.monotonic() + 60
    while not leftovers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    sweep_folders(tmp_path / "out")
    assert len(leftovers(tmp_path)) == 1, "a merge that lives is not swept"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not (tmp_path / "out").exists()
    merge_adapter("plain", tmp_path / "out", base=str(home / "base"), store=home / "store")
    assert leftovers(tmp_path) == ["out"]


def test_the_figures_of_the_proof_by_hand() -> None:
    adapted = [torch.tensor([[0.0, 0.0]])]
    merged = [torch.log(torch.tensor([[0.25, 0.75]]))]
    found = compare(adapted, merged, merged)
    assert found.mean_kl == pytest.approx(0.5 * (torch.log(torch.tensor(2.0)) + torch.log(torch.tensor(2 / 3))).item())
    assert found.largest_logit_difference == pytest.approx(1.386294, abs=1e-5)
    assert found.adapter_effect_kl == pytest.approx(found.mean_kl)


@pytest.mark.parametrize(
    ("mean_kl", "effect", "kept"),
    [
        (1e-5, 1.0, True),  # one in 100,000 of the effect
        (2e-3, 1.0, False),  # over the limit, though 0.2% of the effect
        (9e-4, 2e-3, False),  # nearly half of what the adapter does is lost
        (9e-5, 1e-5, True),  # the adapter does nothing, and neither does the rounding
    ],
)
def test_a_merge_passes_under_the_limit_and_near_the_adapters_effect(mean_kl: float, effect: float, kept: bool) -> None:
    found = Agreement(1, 0.0, mean_kl, mean_kl, 1.0, 0, effect)
    assert found.within(Tolerance(mean_kl=1e-3, share_of_effect=0.05, negligible=1e-4)) == kept

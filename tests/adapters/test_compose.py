"""Combining adapters: one at weight 1 is itself, sums are exact, and the error of a truncation is reported."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_med.adapters.algebra.combine import ties
from lora_med.adapters.algebra.compose import compose
from lora_med.adapters.algebra.deltas import delta_of, open_base, read_updates
from lora_med.adapters.algebra.diff import diff
from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.store.card import read_card
from lora_med.cli.main import run
from lora_med.errors import BaseMismatchError, IntegrityError, LoraMedError, SettingsError
from lora_med.files import read_json, sha256_file
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import load_base
from lora_med.workflows.heldout_settings import heldout_settings
from tests.adapters.conftest import logits
from tests.evaluation.published import publish_random
from tests.merge.test_variants import make_variant
from tests.tiny import make_tiny

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {}),
    "rslora": ("llama", {"use_rslora": True}),
    "patterns": ("llama", {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"o_proj": 5.0}}),
    "dora": ("qwen3", {"use_dora": True}),
    "dora, rslora": ("llama", {"use_dora": True, "use_rslora": True}),
    "gpt2": ("gpt2", {}),
    "gpt2, dora": ("gpt2", {"use_dora": True}),
}


def changes(name: str, store: Path, base: Path) -> dict[str, torch.Tensor]:
    """Each layer's exact change, (outputs, inputs), by the formulas of LoRA and DoRA written out."""
    weights = open_base(base)
    found = {}
    for layer, update in read_updates(store / name).items():
        weight = weights.read(update)
        found[layer] = delta_of(update, weight).dense(weight)
    return found


def adapted_logits(name: str, store: Path, base: Path) -> torch.Tensor:
    return logits(attach(load_base(str(base), quantization="none", dtype="float32"), name, store))


@pytest.mark.parametrize("method", ["linear", "svd", "concat", "ties", "dare"])
@pytest.mark.parametrize("kind", SHAPES)
def test_one_adapter_at_weight_1_is_itself(kind: str, method: str, tmp_path: Path) -> None:
    family, options = SHAPES[kind]
    base, store = make_tiny(family, tmp_path / "base"), tmp_path / "store"
    publish_random(base, "one", store, **options)
    made = compose("same", [("one", 1.0)], method=method, density=1.0, base=str(base), store=store)
    assert made.error < 1e-6
    before, after = changes("one", store, base), changes("same", store, base)
    for layer, change in before.items():
        assert (after[layer] - change).norm() / change.norm() < 1e-6, layer
    assert torch.allclose(adapted_logits("same", store, base), adapted_logits("one", store, base), atol=2e-5)


@pytest.mark.parametrize("kind", ["lora bias", "lora bias, gpt2", "embedding", "embedding, DoRA", "head, tied"])
def test_adopted_kinds_at_weight_1_are_themselves(kind: str, tmp_path: Path) -> None:
    base, adapter, expected = make_variant(kind, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adopt(adapter, base=str(base), name="one", store=tmp_path / "store", origin=Origin(access="open"))
        assert compose("same", [("one", 1.0)], base=str(base), store=tmp_path / "store").error < 1e-6
        model = attach(load_base(str(base), quantization="none", dtype="float32"), "same", tmp_path / "store")
        with torch.no_grad():
            found = model(input_ids=torch.tensor([[1, 5, 7, 60, 70, 80, 5, 90]])).logits
    assert torch.allclose(found, expected, atol=2e-5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with LoRAs `a` and `b`, of which b is rsLoRA and lacks layers, and a DoRA `d`."""
    folder = tmp_path_factory.mktemp("compose")
    base = make_tiny("llama", folder / "base")
    data = {"data": {"source": "custom", "paths": ["x.jsonl"], "split_seed": 5}}
    publish_random(base, "a", folder / "store", seed=1, settings=data)
    publish_random(
        base, "b", folder / "store", seed=2, source="pubmed", access="registered", use_rslora=True,
        target_modules=["q_proj", "o_proj"], settings={"data": {"source": "pubmed", "paths": ["y.xml"]}},
    )  # fmt: skip
    publish_random(base, "d", folder / "store", seed=3, use_dora=True)
    publish_random(make_tiny("llama", folder / "twin", seed=8), "stranger", folder / "store")
    return folder


@pytest.mark.parametrize("second", ["b", "d"])
@pytest.mark.parametrize("method", ["linear", "concat"])
def test_a_weighted_sum_is_exact(method: str, second: str, home: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.symlink_to(home / "store")
    name = f"sum-{method}-{second}"
    made = compose(name, [("a", 0.7), (second, -0.2)], method=method, base=str(home / "base"), store=store)
    assert made.error < 1e-6
    first, other = (changes(one, store, home / "base") for one in ("a", second))
    for layer, change in changes(name, store, home / "base").items():
        wanted = 0.7 * first[layer] - 0.2 * other.get(layer, torch.zeros(1))
        assert (change - wanted).norm() / wanted.norm() < 1e-6, layer
    merged = merge_adapter(name, tmp_path / "merged", base=str(home / "base"), store=store)
    assert merged.certificate["probe"]["mean_kl"] < 1e-6


def test_a_rank_reduction_is_the_nearest_and_its_error_is_reported(home: Path) -> None:
    parents = [("a", 0.5), ("b", 0.5)]
    made = compose("cut", parents, method="svd", rank=3, base=str(home / "base"), store=home / "store")
    first, other = (changes(one, home / "store", home / "base") for one in ("a", "b"))
    lost = whole = 0.0
    for layer in made.errors:
        wanted = 0.5 * first[layer] + 0.5 * other.get(layer, torch.zeros(1))
        values = torch.linalg.svdvals(wanted)
        lost, whole = lost + float(values[3:].square().sum()), whole + float(values.square().sum())
        assert made.errors[layer] == pytest.approx(float(values[3:].norm() / values.norm()), rel=1e-3, abs=1e-6)
    assert made.error == pytest.approx(math.sqrt(lost / whole), rel=1e-3)
    assert made.card.method["r"] == 3


def test_ties_keeps_the_large_and_the_side_that_weighs_more() -> None:
    one = torch.tensor([[4.0, -1.0, 0.5, 3.0]])
    other = torch.tensor([[-1.0, -2.0, 0.1, 5.0]])
    # half of each stays: 4, 3 and -2, 5; no entry is disputed but the last, on which both agree
    found = ties([(0.5, one), (0.5, other)], 0.5)
    assert torch.allclose(found, torch.tensor([[4.0, -2.0, 0.0, 4.0]]))
    disputed = ties([(0.6, torch.tensor([[2.0]])), (0.4, torch.tensor([[-2.0]]))], 1.0)
    assert torch.allclose(disputed, torch.tensor([[2.0]]))


def test_dare_is_the_same_for_the_same_seed_and_right_on_average(home: Path) -> None:
    made = [
        compose(f"dare{n}", [("a", 1.0)], method="dare", density=0.5, rank=64, seed=seed, base=str(home / "base"),
                store=home / "store")
        for n, seed in enumerate((7, 7, 8))
    ]  # fmt: skip
    digests = [one.card.files["adapter_model.safetensors"] for one in made]
    assert digests[0] == digests[1] != digests[2]
    layer = "model.layers.0.mlp.up_proj"
    before, after = (changes(name, home / "store", home / "base")[layer] for name in ("a", "dare0"))
    kept = after.abs() > 1e-5
    assert 0.45 < kept.double().mean() < 0.55
    assert torch.allclose(after[kept], 2 * before[kept], atol=1e-5)


def test_the_card_names_the_parents_and_takes_the_strictest_class(home: Path) -> None:
    made = compose("family", [("a", 0.5), ("b", 0.5)], base=str(home / "base"), store=home / "store")
    card = read_card(made.folder)
    assert card.data.access == "registered"
    assert card.data.source == "custom+pubmed"
    assert [(one["name"], one["weight"]) for one in card.parents] == [("a", 0.5), ("b", 0.5)]
    assert heldout_settings([card]).split_seed == 5
    assert heldout_settings([card], source="pubmed").paths == ["y.xml"]
    with pytest.raises(SettingsError, match="another split"):
        heldout_settings([card], overrides=["data.split_seed=6"])
    again = compose("grandchild", [("family", 1.0)], base=str(home / "base"), store=home / "store")
    assert heldout_settings([again.card]).split_seed == 5


@pytest.mark.parametrize(
    ("parents", "options", "error", "said"),
    [
        ([("a", 1.0), ("stranger", 1.0)], {}, BaseMismatchError, "different bases"),
        ([("a", 1.0)], {"method": "mean"}, SettingsError, "known: "),
        ([], {}, SettingsError, "no adapter"),
        ([("a", 0.0)], {}, SettingsError, "weight of 0"),
        ([("a", float("nan"))], {}, SettingsError, "weight of nan"),
        ([("a", 1e200)], {}, SettingsError, r"weight of 1e\+200"),
        ([("a", 1.0)], {"method": "dare", "seed": 1 << 70}, SettingsError, "seed"),
        ([("a", 1.0)], {"density": 0.0}, SettingsError, "density"),
        ([("a", 1.0)], {"method": "concat", "rank": 2}, SettingsError, "rank 2 with concat"),
        ([("d", 300.0)], {}, SettingsError, "by zero or less"),
        ([("zz", 1.0)], {}, LoraMedError, "no adapter named 'zz'"),
    ],
)
def test_what_cannot_be_combined_is_refused(
    parents: list[tuple[str, float]], options: dict[str, Any], error: type[Exception], said: str, home: Path
) -> None:
    with pytest.raises(error, match=said):
        compose("new", parents, base=str(home / "base"), store=home / "store", **options)
    assert not (home / "store/new").exists()


def test_the_base_given_must_be_the_parents(home: Path) -> None:
    with pytest.raises(BaseMismatchError):
        compose("new", [("a", 1.0)], base=str(home / "twin"), store=home / "store")


@pytest.mark.parametrize("second", ["b", "d"])
def test_diff_gives_norms_and_angles_of_the_changes(second: str, home: Path) -> None:
    found = diff(home / "store/a", home / f"store/{second}", base=str(home / "base"))
    first, other = (changes(one, home / "store", home / "base") for one in ("a", second))
    for one in found.layers:
        left = first[one.layer]
        right = other.get(one.layer, torch.zeros_like(left))
        assert one.first == pytest.approx(float(left.norm()))
        assert one.second == pytest.approx(float(right.norm()))
        assert one.difference == pytest.approx(float((left - right).norm()))
        if one.layer in other:
            assert one.cosine == pytest.approx(float((left * right).sum() / left.norm() / right.norm()))
        else:
            assert one.cosine is None
    with pytest.raises(BaseMismatchError):
        diff(home / "store/a", home / "store/stranger")


def test_the_commands_tell_what_was_lost_and_what_differs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--store", str(home / "store"), "--base", str(home / "base")]
    assert run(["adapters", "compose", "shown", "--from", "a:0.7", "b:0.3", *store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["error"] < 1e-6
    assert run(["adapters", "compose", "cut2", "--from", "a", "--from", "b", "--rank", "2", *store]) == 0
    assert "error of the rank reduction" in capsys.readouterr().out
    assert run(["adapters", "compose", "x", "--from", "a:much", *store]) == 2
    capsys.readouterr()
    assert run(["adapters", "diff", "a", "shown", *store, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert 0 < said["whole"]["cosine"] < 1 and len(said["layers"]) == 14
    assert run(["adapters", "diff", "a", "b", *store]) == 0
    shown = capsys.readouterr().out
    assert "cosine" in shown and "model.layers.0.self_attn.q_proj" in shown  # a pipe is 80 characters wide


def test_an_adapter_without_a_layer_counts_as_one_that_leaves_it_alone(home: Path, tmp_path: Path) -> None:
    """TIES means over those that say something: a layer that is absent says as little as a layer of zeros."""
    base, store = home / "base", tmp_path / "store"
    for name, layers in (("few", ["q_proj"]), ("all", ["q_proj", "up_proj"])):
        publish_random(base, name, store, seed=4, target_modules=layers)
    folder = tmp_path / "zeros"
    shutil.copytree(store / "all", folder)
    few, tensors = load_file(store / "few/adapter_model.safetensors"), load_file(folder / "adapter_model.safetensors")
    said = {key: few.get(key, torch.zeros_like(one)) for key, one in tensors.items()}
    save_file(said, folder / "adapter_model.safetensors")
    adopt(folder, base=str(base), name="zeros", store=store, origin=Origin(access="open"))
    found = []
    for name in ("few", "zeros"):
        parents = [("all", 0.5), (name, 0.5)]
        compose(f"with-{name}", parents, method="ties", density=1.0, rank=64, base=str(base), store=store)
        found.append(changes(f"with-{name}", store, base))
    for layer, change in found[0].items():
        assert torch.allclose(change, found[1][layer], atol=1e-6), layer


def test_a_bias_and_an_embedding_are_not_combined_for_peft_has_no_bias_there(tmp_path: Path) -> None:
    base = make_tiny("gpt2", tmp_path / "base")
    kinds: dict[str, dict[str, Any]] = {
        "biased": {"target_modules": ["c_attn"], "lora_bias": True},
        "wte": {"target_modules": ["wte"]},
    }
    for name, options in kinds.items():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", fan_in_fan_out=True, **options))
            adapted.save_pretrained(str(tmp_path / name))
        adopt(tmp_path / name, base=str(base), name=name, store=tmp_path / "store", origin=Origin(access="open"))
    with pytest.raises(SettingsError, match="an embedding cannot be combined"):
        compose("both", [("biased", 1.0), ("wte", 1.0)], base=str(base), store=tmp_path / "store")
    assert not (tmp_path / "store/both").exists()


def test_a_parent_that_is_not_finite_is_refused(home: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(home / "store/a", store / "a")
    path, card = store / "a/adapter_model.safetensors", store / "a/card.json"
    tensors = load_file(path)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, path)
    facts = read_json(card)
    facts["files"]["adapter_model.safetensors"] = sha256_file(path)
    card.write_text(json.dumps(facts))
    with pytest.raises(IntegrityError, match="not finite"):
        compose("new", [("a", 1.0)], base=str(home / "base"), store=store)
    shutil.copytree(store / "a", store / "b")
    with pytest.raises(IntegrityError, match="not finite"):
        diff(store / "a", store / "b")


def test_a_base_that_is_elsewhere_is_asked_for_by_its_option(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["compose", "new", "--from", "a"], ["diff", "a", "d"]):
        assert run(["adapters", *command, "--store", str(home / "store")]) == 66
        assert "--base" in capsys.readouterr().err

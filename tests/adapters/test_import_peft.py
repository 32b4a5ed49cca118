"""Adapters made elsewhere: adopted bit-identical, or refused before PEFT sees them; none of their code is run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lora_med.adapters.foreign.import_peft import Origin, adopt
from lora_med.adapters.runtime.attach import attach
from lora_med.adapters.runtime.pool import AdapterPool
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.adapters.store.card import read_card
from lora_med.adapters.store.verify import verify
from lora_med.cli.main import run
from lora_med.errors import InputMissingError, IntegrityError, LoraMedError, SettingsError
from lora_med.files import read_json
from lora_med.models.base import load_base
from lora_med.models.fingerprint import fingerprint
from tests.merge.test_variants import VARIANTS, make_variant
from tests.merge.test_variants import logits as said
from tests.tiny import make_tiny

LONE_BIASES = ("all biases", "adapted biases")  # of the base itself: they can be merged, but not attached
UNFIT = (*LONE_BIASES, "resized", "resized, tied")


@pytest.mark.parametrize("kind", [kind for kind in VARIANTS if kind not in UNFIT])
def test_what_is_adopted_says_what_the_trained_model_said(kind: str, tmp_path: Path) -> None:
    """As PEFT held it in memory: what it saves with `ensure_weight_tying` it does not read back alike itself."""
    base, adapter, expected = make_variant(kind, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adopted = adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", origin=Origin(access="open"))
        found = said(attach(load_base(str(base), quantization="none", dtype="float32"), "theirs", tmp_path / "store"))
    assert torch.allclose(found, expected, atol=2e-6)
    card = read_card(adopted.folder)
    assert card.base.fingerprint == fingerprint(base)
    assert verify(adopted.folder, str(base)).intact


@pytest.mark.parametrize("kind", UNFIT)
def test_an_adapter_that_brings_a_changed_base_is_refused(kind: str, tmp_path: Path) -> None:
    base, adapter, _ = make_variant(kind, tmp_path)
    with pytest.raises(SettingsError, match="which is not the base's"):
        adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.fixture
def theirs(llama: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    lora = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(str(tmp_path / "theirs"))
    return tmp_path / "theirs"


def change(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**read_json(path), **values}))


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "IA3"),
    "another task": ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
    "NaN alpha": ({"lora_alpha": float("nan")}, "lora_alpha nan"),
    "endless alpha": ({"lora_alpha": 1e300}, "lora_alpha 1e"),
    "negative alpha": ({"alpha_pattern": {"q_proj": -3}}, "lora_alpha -3"),
    "alpha as text": ({"lora_alpha": "16"}, "lora_alpha 16"),
    "absurd rank": ({"r": 10**9}, "rank 1000000000"),
    "rank nought": ({"rank_pattern": {"q_proj": 0}}, "rank 0"),
    "rank as truth": ({"r": True}, "rank True"),
    "patterns that are a list": ({"rank_pattern": ["q_proj"]}, "rank_pattern is not an object"),
    "a pattern that runs for ever": ({"alpha_pattern": {"(a+)+$": 3}}, "not a layer's name"),
    "a layer that is a path": ({"modules_to_save": ["../../x"]}, "not a layer's name"),
    "layers that are no list": ({"modules_to_save": {"a": 1}}, "modules_to_save is not a list"),
    "replicated layers": ({"layer_replication": [[0, 2]]}, "layer_replication"),
    "a moved base": ({"init_lora_weights": "pissa"}, "pissa"),
    "a moved base in capitals": ({"init_lora_weights": "OLoRA"}, "OLoRA"),
    "one layer that is not a list": ({"modules_to_save": 3}, "modules_to_save is not a list"),
    "truth for a list of layers": ({"modules_to_save": True}, "modules_to_save is not a list"),
    "a pattern that ends in an escape": ({"alpha_pattern": {"q_proj\\": 3}}, "not a layer's name"),
    "a pattern that repeats nothing": ({"rank_pattern": {"*q_proj": 4}}, "not a layer's name"),
    "a pattern that refers to nothing": ({"rank_pattern": {"\\7": 4}}, "not a layer's name"),
    "rsLoRA as text": ({"use_rslora": "false"}, "use_rslora"),
    "rsLoRA as a number": ({"use_rslora": 1}, "use_rslora"),
    "dropout that is no number": ({"lora_dropout": float("nan")}, "lora_dropout nan"),
    "dropout over 1": ({"lora_dropout": 5}, "lora_dropout 5"),
    "dropout as text": ({"lora_dropout": "0.1"}, "lora_dropout 0.1"),
    "a setting that writes to the terminal": ({"\x1b[2Jx": 1}, r"\\x1b"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_settings_are_refused_before_peft_sees_them(
    kind: str, theirs: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, said = HOSTILE[kind]
    change(theirs, **values)
    monkeypatch.setattr(LoraConfig, "__init__", lambda *_, **__: pytest.fail("PEFT was called"))
    with pytest.raises(LoraMedError, match=said):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
DAMAGE: dict[str, tuple[Any, str]] = {
    "a tensor less": (lambda t: [t.pop(f"{Q0}.lora_A.weight"), t.pop(f"{Q0}.lora_B.weight")], "missing|does not fit"),
    "half an update": (lambda t: t.pop(f"{Q0}.lora_B.weight"), "half of the update"),
    "a tensor more": (lambda t: t.update({f"{Q0}.extra": torch.zeros(2)}), "base|use"),
    "another width": (lambda t: t.update({f"{Q0}.lora_A.weight": torch.zeros(4, 60)}), "of another shape"),
    "not a number": (lambda t: t[f"{Q0}.lora_A.weight"].fill_(float("inf")), "NaN or infinity"),
    "whole numbers": (lambda t: t.update({f"{Q0}.lora_A.weight": torch.zeros(4, 64, dtype=torch.int8)}), "I8"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_tensors_that_do_not_fit_are_refused(kind: str, theirs: Path, llama: Path, tmp_path: Path) -> None:
    edit, said = DAMAGE[kind]
    tensors = load_file(theirs / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, theirs / "adapter_model.safetensors")
    if kind == "a tensor less":  # a layer without an update is another choice of layers: it is adopted as that
        assert adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store").card.method[
            "target_modules"
        ] == ["model.layers.1.self_attn.q_proj"]
        return
    with pytest.raises(LoraMedError, match=said):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_pickle_is_not_opened(theirs: Path, llama: Path, tmp_path: Path) -> None:
    (theirs / "adapter_model.safetensors").rename(theirs / "adapter_model.bin")
    with pytest.raises(InputMissingError, match="pickle"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


def test_another_base_than_the_adapters_is_refused_by_its_shapes(theirs: Path, tmp_path: Path) -> None:
    make_tiny("gpt2", tmp_path / "gpt2")
    with pytest.raises(IntegrityError, match="does not fit"):
        adopt(theirs, base=str(tmp_path / "gpt2"), name="theirs", store=tmp_path / "store")


def test_the_command_says_what_it_cannot_know(
    theirs: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(theirs, base_model_name_or_path="/home/them/secret/mistral-7b")
    store = ["--store", str(tmp_path / "store")]
    assert run(["adapters", "adopt", str(theirs), "--base", str(llama), *store, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert any("mistral-7b" in remark for remark in printed["remarks"]) and "secret" not in json.dumps(printed)
    assert printed["card"]["data"]["access"] == "credentialed"
    assert run(["adapters", "adopt", str(theirs), "--base", str(llama), *store]) == 73
    again = ["--overwrite", "--access", "open", "--name", "theirs"]
    assert run(["adapters", "adopt", str(theirs), "--base", str(llama), *store, *again]) == 0
    assert read_card(tmp_path / "store/theirs").data.access == "open"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("lora bias", "biases"),
        ("saved norms", "whole layers"),
        ("head, tied", "at the ends"),
        ("embedding", "at the ends"),
    ],
)
def test_what_is_more_than_updates_of_inner_layers_is_no_adapter_to_swap(kind: str, what: str, tmp_path: Path) -> None:
    base, adapter, _ = make_variant(kind, tmp_path)
    adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", origin=Origin(access="open"))
    loaded = load_base(str(base), quantization="none")
    with pytest.raises(SettingsError, match=f"{what}.* cannot be swapped"):
        load_many(loaded, ["theirs"], tmp_path / "store")
    with pytest.raises(SettingsError, match="cannot be swapped"), AdapterPool(loaded, tmp_path / "store") as pool:
        pool.hold(["theirs"])


@pytest.mark.parametrize("kind", ["tokens", "tokens, tied"])
def test_trained_tokens_are_swapped_and_give_pefts_logits(kind: str, tmp_path: Path) -> None:
    base, adapter, expected = make_variant(kind, tmp_path)
    adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", origin=Origin(access="open"))
    loaded = load_base(str(base), quantization="none", dtype="float32")
    with load_many(loaded, ["theirs"], tmp_path / "store") as pool, use(pool, "theirs") as model:
        assert torch.allclose(said(model), expected, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"peft_type": "LORA", "r": ' + "1" * 5000 + "}"], ids=["deep", "long"]
)
def test_settings_that_no_parser_can_hold_are_not_json(text: str, theirs: Path, llama: Path, tmp_path: Path) -> None:
    (theirs / "adapter_config.json").write_text(text)
    with pytest.raises(IntegrityError, match="not valid JSON"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


def test_a_version_that_is_none_is_not_passed_on(theirs: Path, llama: Path, tmp_path: Path) -> None:
    for number, strange in enumerate(("\ud800", "x" * 5000, "/home/them/peft", {"a": 1})):
        change(theirs, peft_version=strange)
        adopted = adopt(theirs, base=str(llama), name=f"theirs-{number}", store=tmp_path / "store")
        assert adopted.card.versions["peft of origin"] == "unknown"


def rewrite(folder: Path, **tensors: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), **{name: tensor.contiguous() for name, tensor in tensors.items()}}, path)


@pytest.mark.parametrize("second", ["lora_embedding_A", "lora_magnitude_vector.weight"])
def test_a_part_that_is_there_twice_is_refused(second: str, theirs: Path, llama: Path, tmp_path: Path) -> None:
    rewrite(theirs, **{f"{Q0}.{second}": torch.ones(4, 64), f"{Q0}.lora_magnitude_vector": torch.ones(64)})
    with pytest.raises(IntegrityError, match="twice, under two names"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


def test_a_layers_name_as_long_as_a_file_is_refused_before_a_pattern_meets_it(
    theirs: Path, llama: Path, tmp_path: Path
) -> None:
    change(theirs, alpha_pattern={r"\w*\w*_x": 3})
    rewrite(theirs, **{f"base_model.model.{'a' * 20_000}.lora_A.weight": torch.ones(4, 64)})
    with pytest.raises(IntegrityError, match="a name of 20,031 characters"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


@pytest.mark.parametrize(
    ("saved", "tensor"), [("norm", torch.tensor(1.0)), ("norm", torch.ones(0))], ids=["a single number", "nothing"]
)
def test_a_tensor_of_no_rows_is_of_another_shape(
    saved: str, tensor: torch.Tensor, theirs: Path, llama: Path, tmp_path: Path
) -> None:
    change(theirs, modules_to_save=[saved])
    rewrite(theirs, **{f"base_model.model.model.{saved}.weight": tensor})
    with pytest.raises(IntegrityError, match="of another shape"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


@pytest.mark.parametrize("ids", [[5, 264], [True, 7], []])
def test_trained_tokens_that_the_base_has_not_are_refused(ids: list[int], tmp_path: Path) -> None:
    base, adapter, _ = make_variant("tokens", tmp_path)
    change(adapter, trainable_token_indices=ids)
    if not ids:
        delta = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
        change(adapter, trainable_token_indices={"embed_tokens": []})
        rewrite(adapter, **{delta: torch.ones(0, 64)})
    with pytest.raises(IntegrityError, match="token"):
        adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("trained_on", ["fp4", "4", ""])
def test_how_the_base_was_quantized_is_one_of_three(trained_on: str) -> None:
    with pytest.raises(SettingsError, match="none, 8bit, 4bit"):
        Origin(trained_on=trained_on)


@pytest.mark.parametrize("kind", ["saved norms", "saved head", "saved embedding, tied"])
def test_whole_layers_are_attached_to_a_base_of_half_precision_as_peft_does(kind: str, tmp_path: Path) -> None:
    base, adapter, _ = make_variant(kind, tmp_path)
    adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store", origin=Origin(access="open"))
    found = said(attach(load_base(str(base), quantization="none", dtype="bfloat16"), "theirs", tmp_path / "store"))
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
    assert torch.equal(found, said(theirs))


@pytest.mark.parametrize("saved", ["q_proj", "self_attn"])
def test_a_layer_both_whole_and_updated_is_refused(saved: str, theirs: Path, llama: Path, tmp_path: Path) -> None:
    """PEFT attaches no update inside a layer that modules_to_save replaces."""
    change(theirs, modules_to_save=[saved])
    rewrite(theirs, **{f"{Q0}.weight": torch.ones(64, 64)})
    with pytest.raises(IntegrityError, match="in full and as an update"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


def test_numbers_that_float32_cannot_hold_are_refused(theirs: Path, llama: Path, tmp_path: Path) -> None:
    rewrite(theirs, **{f"{Q0}.lora_A.weight": torch.full((4, 64), 1e200, dtype=torch.float64)})
    with pytest.raises(IntegrityError, match="NaN or infinity"):
        adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store")


@pytest.mark.parametrize("kind", ["saved head", "tokens"])
def test_an_adapter_without_an_update_is_refused_as_that(kind: str, tmp_path: Path) -> None:
    base, adapter, _ = make_variant(kind, tmp_path)
    path = adapter / "adapter_model.safetensors"
    save_file({name: one for name, one in load_file(path).items() if "lora_" not in name}, path)
    with pytest.raises(SettingsError, match="updates no layer"):
        adopt(adapter, base=str(base), name="theirs", store=tmp_path / "store")


def test_a_template_that_nobody_knows_is_not_put_on_a_card(
    theirs: Path, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["adapters", "adopt", str(theirs), "--base", str(llama), "--store", str(tmp_path / "store")]
    assert run([*command, "--template", "txet"]) == 2
    assert "'text'" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("named", ["C:\\Users\\secret\\mistral-7b", "/home/secret/mistral-7b", "secret/mistral-7b"])
def test_of_the_base_that_was_named_only_the_last_part_is_repeated(
    named: str, theirs: Path, llama: Path, tmp_path: Path
) -> None:
    change(theirs, base_model_name_or_path=named)
    remarks = adopt(theirs, base=str(llama), name="theirs", store=tmp_path / "store").remarks
    assert "'mistral-7b'" in remarks[0] and "secret" not in remarks[0]

"""Exports to GGUF, heard in llama.cpp itself: run where its converter and xllamacpp are installed."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.errors import IntegrityError, LoraMedError, SettingsError
from lora_med.export.gguf import export_gguf as export_room
from lora_med.export.gguf.converter import convert_model, find_converter
from lora_med.export.gguf.export_gguf import export_gguf
from lora_med.export.gguf.llama_server import loaded
from lora_med.export.gguf.number_types import write_as
from lora_med.export.gguf.pretokenizer import choose_pre_tokenizer, first_that_agrees, tokenizer_kind
from lora_med.export.ollama import export_ollama
from lora_med.files import read_json, sha256_file
from lora_med.models.base import load_base
from lora_med.models.files.resolve import ASSETS
from tests.evaluation.published import publish_random
from tests.export.engines import FAMILIES, make_engine_base, merging_tokenizer

engine = pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytest.importorskip("sentencepiece")


def converter_is_here() -> bool:
    with contextlib.suppress(LoraMedError):
        return bool(find_converter())
    return False


needs_converter = pytest.mark.skipif(not converter_is_here(), reason="run `lora-med export setup` first")


def make_home(folder: Path, family: str, **lora: Any) -> dict[str, Any]:
    tokenizer = merging_tokenizer(pattern=None) if family == "gpt2" else merging_tokenizer()
    make_engine_base(family, folder / "base", tokenizer=tokenizer)
    publish_random(folder / "base", "plain", folder / "store", **lora)
    return {"base": str(folder / "base"), "store": folder / "store"}


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_and_adapter_answer_in_llama_cpp_as_with_us(family: str, tmp_path: Path) -> None:
    """Patterns, rsLoRA and (gpt2) a square transposed layer are what a wrong scale or layout would show in."""
    ends = ["c_attn", "c_proj"] if family == "gpt2" else ["q_proj", "k_proj", "o_proj", "down_proj"]
    where = make_home(
        tmp_path,
        family,
        target_modules=ends,
        rank_pattern={ends[-1]: 2},
        alpha_pattern={ends[0]: 3.0},
        use_rslora=True,
    )
    merged = export_gguf("plain", tmp_path / "merged", formats=("f16", "q8_0", "q4_0"), **where).facts
    assert merged["proof"]["float32"]["largest_difference"] < 1e-2
    assert merged["proof"]["chats"] == 3
    assert merged["tokenizer"]["pre_tokenizer"] == ("gpt-2" if family == "gpt2" else "llama-bpe")
    apart = [merged["formats"][name]["mean_difference"] for name in ("f16", "q8_0", "q4_0")]
    assert apart == sorted(apart)
    for name, file in merged["files"].items():
        assert sha256_file(tmp_path / "merged" / name) == file["sha256"]
    swapped = export_gguf("plain", tmp_path / "swappable", part="swappable", formats=("q8_0",), **where).facts
    proof = swapped["proof"]
    assert max(proof[one]["largest_difference"] for one in ("adapter_off", "adapter_on", "adapter_off_again")) < 1e-2
    assert abs(proof["adapter_on"]["our_nll"] - proof["adapter_off"]["our_nll"]) > 1e-3, "the adapter does something"
    assert sorted(swapped["files"]) == ["base-q8_0.gguf", "plain-adapter.gguf"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "merged", "store", "swappable"]


@pytest.mark.slow
@needs_converter
def test_a_wrong_scale_is_detected_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What llama.cpp makes of rsLoRA without our correction: twice as small at rank 4."""
    where = make_home(tmp_path, "llama", use_rslora=True)
    monkeypatch.setattr("lora_med.export.gguf.adapter_folder.correction", lambda *_: 1.0)
    with pytest.raises(IntegrityError, match="does not answer as base \\+ adapter") as caught:
        export_gguf("plain", tmp_path / "out", part="adapter", **where)
    assert caught.value.exit_code == 76
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "store"]


@pytest.mark.slow
@needs_converter
def test_ollama_gets_the_base_s_template_and_stops_and_private_files(tmp_path: Path) -> None:
    make_engine_base("llama", tmp_path / "base")
    publish_random(tmp_path / "base", "plain", tmp_path / "store", access="credentialed")
    where = {"base": str(tmp_path / "base"), "store": tmp_path / "store"}
    found = export_ollama("plain", tmp_path / "out", part="swappable", **where)
    text = (tmp_path / "out/Modelfile").read_text()
    assert text.startswith("FROM ./base-q8_0.gguf\nADAPTER ./plain-adapter.gguf\nTEMPLATE ")
    assert 'PARAMETER stop "<|end_of_text|>"\nPARAMETER stop "<|im_end|>"\nPARAMETER num_ctx 256\n' in text
    assert found.facts["template"] == "chatml"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


@pytest.mark.slow
@needs_converter
def test_llama_cpp_writes_what_transformers_writes(tmp_path: Path) -> None:
    where = make_home(tmp_path, "qwen3")
    export_gguf("plain", tmp_path / "out", formats=("f32",), **where)
    from lora_med.adapters.runtime.attach import attach

    base = load_base(where["base"], quantization="none", dtype="float32", attention="sdpa")
    ids = base.tokenizer("Chest pain for two days.")["input_ids"]
    ours = attach(base, "plain", where["store"]).generate(
        input_ids=torch.tensor([ids]), max_new_tokens=16, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    with loaded(tmp_path / "out/plain-f32.gguf", context=256, exact=True) as server:
        theirs = server.generate(ids, 16)
    assert theirs == ours[0, len(ids) :].tolist()[: len(theirs)]
    assert len(theirs) >= 8


@needs_converter
def test_the_pre_tokenizer_of_micro_is_found_and_a_strange_one_refused(tmp_path: Path) -> None:
    converter = find_converter()
    micro = load_base("micro", quantization="none", dtype="float32").tokenizer
    assert convert_model(converter, ASSETS / "micro", tmp_path / "micro.gguf", vocabulary_only=True) is None
    assert choose_pre_tokenizer(micro, tmp_path / "micro.gguf", None) == "llama-bpe"
    with pytest.raises(SettingsError, match="under its own name 'gpt-2'"):
        choose_pre_tokenizer(micro, tmp_path / "micro.gguf", "gpt-2")


@needs_converter
def test_a_sentencepiece_vocabulary_without_its_scores_is_cut_alike(tmp_path: Path) -> None:
    """Merges of tokenizer.json alone, bytes as a way out; the converter leaves every score equal."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from lora_med.merge.proof.logits import PROBES

    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    inner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.train_from_iterator(PROBES, trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False))
    state = json.loads(inner.to_str())
    state["added_tokens"] = [one for one in state["added_tokens"] if not one["content"].startswith("<0x")]
    inner = Tokenizer.from_str(json.dumps(state))
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=4096
    )
    base = make_engine_base("llama", tmp_path / "base", tokenizer=tokenizer)
    known = convert_model(find_converter(), base, tmp_path / "words.gguf", vocabulary_only=True)
    assert tokenizer_kind(tmp_path / "words.gguf") == "llama"
    assert choose_pre_tokenizer(tokenizer, tmp_path / "words.gguf", known) is None


def test_the_first_name_that_agrees_is_taken_and_one_not_known_is_passed_over() -> None:
    cuts = {"absent": None, "wrong": [[1], [2]], "right": [[1], [3]], "also": [[1], [3]]}
    assert first_that_agrees(["absent", "wrong", "right", "also"], lambda name: cuts[str(name)], [[1], [3]]) == (
        "right",
    )
    assert first_that_agrees(["absent", "wrong"], lambda name: cuts[str(name)], [[1], [3]]) is None
    assert first_that_agrees([None], lambda _: [[1]], [[1]]) == (None,)


def write_small(path: Path) -> dict[str, Any]:
    import numpy

    numbers = numpy.random.default_rng(0).normal(size=(6, 64)).astype(numpy.float32)
    writer = engine.GGUFWriter(path, arch="llama")
    writer.add_block_count(1)
    writer.add_file_type(0)
    writer.add_string("tokenizer.ggml.pre", "default")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    tensors = {
        "token_embd.weight": numbers,
        "blk.0.attn_q.weight": numbers * 3,
        "blk.0.ffn_up.weight": numbers[:, :48] * 2,
        "output_norm.weight": numbers[0],
    }
    for name, tensor in tensors.items():
        writer.add_tensor(name, numpy.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_rounded_weights_are_within_half_a_step_and_norms_untouched(tmp_path: Path) -> None:
    tensors = write_small(tmp_path / "whole.gguf")
    counts = write_as(tmp_path / "whole.gguf", tmp_path / "q4.gguf", "q4_0", pre="llama-bpe")
    assert counts == {"F16": 1, "F32": 1, "Q4_0": 1, "Q8_0": 1}
    reader = engine.GGUFReader(tmp_path / "q4.gguf")
    assert reader.get_field("tokenizer.ggml.pre").contents() == "llama-bpe"
    assert reader.get_field("tokenizer.ggml.tokens").contents() == ["a", "b"]
    assert reader.get_field("general.file_type").contents() == 2  # llama.cpp's number for mostly Q4_0
    found = {one.name: engine.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    # Of a block's largest number, Q8_0 has 127 steps to either side and Q4_0 has 8.
    for name, steps in (("token_embd.weight", 127), ("blk.0.attn_q.weight", 8)):
        wanted = tensors[name].reshape(6, 2, 32)
        step = abs(wanted).max(-1, keepdims=True) / steps
        slack = 1.02 if steps == 127 else 2.02  # Q4_0 has no step for the largest number of the other sign
        assert (abs(found[name].reshape(6, 2, 32) - wanted) <= slack * step / 2).all()
    assert (found["output_norm.weight"] == tensors["output_norm.weight"]).all()


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"not a model at all, but long enough to hold a header")
    with pytest.raises(IntegrityError, match="not a GGUF"):
        write_as(tmp_path / "a.gguf", tmp_path / "b.gguf", "f16")


def test_a_wrong_part_or_type_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'merged'"):
        export_room.export_gguf("plain", tmp_path / "out", part="mergd", store=tmp_path)
    with pytest.raises(SettingsError, match="did you mean 'q8_0'"):
        export_room.export_gguf("plain", tmp_path / "out", formats=("q8",), store=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_export_says_what_went_in(tmp_path: Path) -> None:
    if not converter_is_here():
        pytest.skip("run `lora-med export setup` first")
    where = make_home(tmp_path, "llama")
    export_gguf("plain", tmp_path / "out", formats=("q8_0",), **where)
    facts = read_json(tmp_path / "out/export.json")
    assert facts["adapter"]["files"] == read_json(tmp_path / "store/plain/card.json")["files"]
    assert facts["converter"]["sha256"] == find_converter().digest
    assert str(tmp_path) not in (tmp_path / "out/export.json").read_text()

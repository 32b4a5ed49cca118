"""New tokens from the settings to a published adapter, its use, its merge, and the model of PEFT alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

import lora_med
from lora_med.adapters.runtime.attach import attach, detach
from lora_med.adapters.runtime.swap import load_many, use
from lora_med.adapters.store.verify import verify
from lora_med.cli.main import run
from lora_med.data.record import Pair
from lora_med.errors import SettingsError
from lora_med.files import read_json
from lora_med.merge.merge import merge_adapter
from lora_med.models.base import Base, load_base
from lora_med.models.tokens.numbering import with_tokens
from lora_med.prompts.encoder import Encoder
from tests.tiny import make_tiny
from tests.tiny_families import make_family
from tests.training.support import run_ranks

NEW = ["<note>", "<plan>", "<d>", "<e>"]  # the tiny tokenizer ends at 260, the tiny embedding at 263
ROWS = [
    {"prompt": f"<note> Is {n} even?", "completion": " <plan> no" if n % 2 else " <plan> yes <d>"} for n in range(24)
]
TEXT = "<note> Is 3 even? <plan> yes <d>"
EMBEDDING = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
HEAD = "base_model.model.lm_head.token_adapter.trainable_tokens_delta"


def train(base: Path, folder: Path, name: str, *more: str, tokens: list[str] | None = None) -> Path:
    settings = [
        *(f"model.base={base}", "model.dtype=float32", "data.source=custom", "adapter.access=open"),
        *(f"adapter.name={name}", f"adapter.store={folder / 'store'}", f"train.output_dir={folder / name}"),
        *("train.max_steps=4", "train.learning_rate=0.01", "lora.lora_dropout=0", "data.validation_share=0.2"),
        f"lora.trainable_tokens={json.dumps(NEW if tokens is None else tokens)}",
        *(() if any("4bit" in setting for setting in more) else ("model.load_in_4bit=false",)),
        *more,
    ]
    return lora_med.train(lora_med.parse(None, settings), train=ROWS)


def bare(base: Path) -> Base:
    return load_base(str(base), quantization="none", dtype="float32")


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and the adapter `notes` with four new tokens: three free rows of the embedding, and one more."""
    folder = tmp_path_factory.mktemp("home")
    make_tiny("llama", folder / "base", tie=request.param)
    train(folder / "base", folder, "notes")
    train(folder / "base", folder, "plain", tokens=[])
    return folder


def test_the_adapter_holds_the_rows_of_the_tokens_alone(home: Path) -> None:
    card = lora_med.read_card(home / "store/notes")
    assert card.tokens == {"<note>": 261, "<plan>": 262, "<d>": 263, "<e>": 264}
    tensors = load_file(home / "store/notes/adapter_model.safetensors")
    tied = read_json(home / "base/config.json")["tie_word_embeddings"]
    rows = {name: tuple(tensor.shape) for name, tensor in tensors.items() if "lora_" not in name}
    assert rows == ({EMBEDDING: (4, 64)} if tied else {EMBEDDING: (4, 64), HEAD: (4, 64)})
    assert "tokens" not in read_json(home / "store/plain/card.json")
    assert all(check.outcome == "ok" for check in verify(home / "store/notes", str(home / "base")).checks)


def test_a_row_starts_as_the_mean_of_its_pieces_and_the_used_ones_move(home: Path) -> None:
    base = bare(home / "base")
    pieces = base.tokenizer("<e>", add_special_tokens=False)["input_ids"]
    assert len(pieces) == 3
    mean = base.model.get_input_embeddings().weight[pieces].mean(0)
    rows = load_file(home / "store/notes/adapter_model.safetensors")[EMBEDDING]
    tied = base.model.get_output_embeddings().weight is base.model.get_input_embeddings().weight
    if not tied:  # no row held <e>, and only a head that is tied is moved by what was not there
        assert torch.allclose(rows[3], mean, atol=1e-7)
    note = base.tokenizer("<note>", add_special_tokens=False)["input_ids"]
    assert not torch.allclose(rows[0], base.model.get_input_embeddings().weight[note].mean(0), atol=1e-4)


def test_an_attached_adapter_brings_its_tokens_and_detaching_takes_them_away(home: Path) -> None:
    base = bare(home / "base")
    ids = [1, 50, 60, 70]
    before = logits(base.model, ids)
    model = attach(base, "notes", home / "store")
    assert base.tokenizer("<note> ok <e>", add_special_tokens=False)["input_ids"][:1] == [261]
    assert base.tokenizer.decode([261, 264]) == "<note><e>"
    assert logits(model, ids).shape == (4, 265)
    detach(model)
    assert "<note>" not in base.tokenizer.get_vocab()
    assert torch.equal(logits(base.model, ids), before)


def test_peft_alone_by_the_lines_of_the_readme_gives_the_same_logits(home: Path, tmp_path: Path) -> None:
    base = bare(home / "base")
    model = attach(base, "notes", home / "store")
    ids = base.tokenizer(TEXT)["input_ids"]
    expected = logits(model, ids)
    lines = (home / "store/notes/README.md").read_text().partition("```python\n")[2].partition("```")[0]
    lines = lines.replace('"base"', repr(str(home / "base"))).replace('"notes"', repr(str(home / "store/notes")))
    names: dict[str, Any] = {}
    exec(lines, names)
    assert names["tokenizer"](TEXT)["input_ids"] == ids
    assert torch.allclose(logits(names["model"].eval(), ids), expected, atol=1e-5)


def test_in_a_pool_each_row_has_its_own_adapters_rows_of_the_tokens(home: Path) -> None:
    base = bare(home / "base")
    plain = logits(base.model, [1, 50, 60, 70])
    attached = attach(base, "notes", home / "store")
    ids = base.tokenizer(TEXT)["input_ids"]
    expected, short = logits(attached, ids), logits(attached, [1, 50, 60, 70])
    detach(attached)
    with load_many(base, ["notes", "plain"], home / "store") as pool:
        assert base.tokenizer(TEXT)["input_ids"] == ids
        with use(pool, "notes") as model:
            assert torch.allclose(logits(model, ids), expected, atol=1e-5)
        with use(pool, ["notes", None, "plain"]) as model, torch.no_grad():
            together = model(input_ids=torch.tensor([ids] * 3), use_cache=False).logits
        assert torch.allclose(together[0], expected, atol=1e-5)
        with use(pool, ["notes", None]) as model, torch.no_grad():
            apart = model(input_ids=torch.tensor([[1, 50, 60, 70]] * 2), use_cache=False).logits
        assert torch.allclose(apart[0], short, atol=1e-5)
        assert torch.allclose(apart[1, :, :264], plain, atol=1e-5)
        assert torch.softmax(together[1:], -1)[..., 264].max() == 0, "what an adapter does not have is never predicted"
    assert "<note>" not in base.tokenizer.get_vocab()
    assert torch.equal(logits(base.model, [1, 50, 60, 70]), plain)


def test_the_merged_folder_is_what_peft_merges_and_reads_the_tokens(home: Path, tmp_path: Path) -> None:
    merge_adapter("notes", tmp_path / "merged", base=str(home / "base"), store=home / "store")
    certificate = read_json(tmp_path / "merged/merge_certificate.json")
    assert certificate["verified_by"] == ["probes", "tensors"] and certificate["probe"]["mean_kl"] < 1e-9
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert [tokenizer.convert_tokens_to_ids(token) for token in NEW] == [261, 262, 263, 264]
    assert read_json(tmp_path / "merged/config.json")["vocab_size"] == 265
    base = transformers.AutoModelForCausalLM.from_pretrained(home / "base")
    base.resize_token_embeddings(265)
    theirs: Any = PeftModel.from_pretrained(base, home / "store/notes")
    ids = tokenizer(TEXT)["input_ids"]
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(ours, ids), logits(theirs.merge_and_unload().eval(), ids), atol=1e-5)
    again = load_base(str(tmp_path / "merged"), quantization="none")
    assert again.tokenizer(TEXT)["input_ids"] == ids
    assert Encoder(again.tokenizer).ordinary(["<note>"]) == [[261]], "in a further training it is no control token"


def test_a_merge_proved_by_tensors_alone_adds_the_same_row(home: Path, tmp_path: Path) -> None:
    merge_adapter("notes", tmp_path / "a", base=str(home / "base"), store=home / "store")
    merge_adapter("notes", tmp_path / "b", base=str(home / "base"), store=home / "store", verify="tensors")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    rows = load_file(home / "store/notes/adapter_model.safetensors")[EMBEDDING]
    assert torch.equal(first["model.embed_tokens.weight"][261:265], rows)


def test_generation_and_evaluation_use_the_tokens(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    options = ["--store", str(home / "store"), "--base", str(home / "base"), "--max-new-tokens", "2", "--json"]
    assert run(["generate", "--adapter", "notes", "--prompt", "<note> a", *options]) == 0
    with_token = json.loads(capsys.readouterr().out)["prompt_tokens"]
    assert run(["generate", "--adapter", "plain", "--prompt", "<note> a", *options]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] - with_token == len("<note>") - 1
    records = tuple(Pair(f"r{n}", f"r{n}", "custom", row["prompt"], row["completion"]) for n, row in enumerate(ROWS))
    held_out = lora_med.HeldOutRecords(records, "open", "custom")
    settings = lora_med.EvalOptions(template="pair", max_items=6, bootstrap_samples=20, store=home / "store")
    found = lora_med.evaluate(bare(home / "base"), ["notes", "plain"], held_out, settings)
    assert [subject.name for subject in found.subjects] == ["base", "notes", "plain"]


def test_a_run_with_tokens_that_was_stopped_resumes_bit_identically(home: Path, tmp_path: Path) -> None:
    more = ("train.save_steps=2", "train.save_total_limit=9")
    whole = train(home / "base", tmp_path / "whole", "whole", *more)
    saved = load_file(tmp_path / "whole/whole/checkpoint-2/adapter_model.safetensors")
    assert saved[EMBEDDING].shape == (4, 64) and saved[EMBEDDING].dtype == torch.float32
    shutil.copytree(tmp_path / "whole/whole", tmp_path / "again/whole")
    shutil.rmtree(tmp_path / "again/whole/checkpoint-4")
    again = train(home / "base", tmp_path / "again", "whole", *more)
    assert (whole / "adapter_model.safetensors").read_bytes() == (again / "adapter_model.safetensors").read_bytes()


def test_another_list_of_tokens_is_another_run(home: Path, tmp_path: Path) -> None:
    train(home / "base", tmp_path, "mine", "train.save_steps=2")
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(SettingsError, match=r"lora\.trainable_tokens"):
        train(home / "base", tmp_path, "mine", "train.save_steps=2", tokens=["<note>", "<other>"])


def test_training_goes_on_with_the_same_tokens_and_is_refused_with_others(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "store", tmp_path / "store")
    further = train(home / "base", tmp_path, "further", "lora.continue_from=notes", "adapter.publish_worse=true")
    assert lora_med.read_card(further).tokens == lora_med.read_card(home / "store/notes").tokens
    with pytest.raises(
        SettingsError, match="its trained tokens are <note>, <plan>, <d>, <e>, those of the settings <note>"
    ):
        train(home / "base", tmp_path, "other", "lora.continue_from=notes", tokens=["<note>"])


def test_two_processes_train_the_rows_that_one_trains(home: Path, tmp_path: Path) -> None:
    sizes = ["train.per_device_train_batch_size=4", "train.gradient_accumulation_steps=1"]
    one = train(home / "base", tmp_path, "one", *sizes)
    half = ["train.per_device_train_batch_size=2", "train.gradient_accumulation_steps=1"]
    assert run_ranks(2, lambda: train(home / "base", tmp_path, "two", *half), tmp_path / "ranks") == [0, 0]
    first, second = (load_file(place / "adapter_model.safetensors") for place in (one, tmp_path / "store/two"))
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_tokens_on_a_4_bit_base_are_trained_and_merged_into_the_original(home: Path, tmp_path: Path) -> None:
    train(home / "base", tmp_path, "four", "model.load_in_4bit=true")
    merged = merge_adapter("four", tmp_path / "merged", base=str(home / "base"), store=tmp_path / "store")
    assert merged.certificate["probe"]["mean_kl"] < 1e-9
    assert load_file(tmp_path / "merged/model.safetensors")["model.embed_tokens.weight"].shape == (265, 64)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3", "qwen2_moe", "granite", "deepseek_v3"])
def test_families_train_tokens_and_merge_with_proof(family: str, tmp_path: Path) -> None:
    """gemma2 and granite change their logits after the head, gemma3 scales its embedding, gpt2 transposes."""
    make_family(family, tmp_path / "base")
    train(tmp_path / "base", tmp_path, "notes")
    merged = merge_adapter("notes", tmp_path / "merged", base=str(tmp_path / "base"), store=tmp_path / "store")
    assert merged.certificate["probe"]["mean_kl"] < 1e-9
    base = bare(tmp_path / "base")
    attached = attach(base, "notes", tmp_path / "store")
    ids = base.tokenizer(TEXT)["input_ids"]
    expected = logits(attached, ids)
    detach(attached)
    with load_many(base, ["notes"], tmp_path / "store") as pool, use(pool, "notes") as model:
        assert torch.allclose(logits(model, ids), expected, atol=1e-5)


def test_a_token_that_the_base_has_is_trained_as_it_is(home: Path, tmp_path: Path) -> None:
    adapter = train(home / "base", tmp_path, "letter", tokens=["e", "<note>"])
    number = bare(home / "base").tokenizer.convert_tokens_to_ids("e")
    assert lora_med.read_card(adapter).tokens == {"e": number, "<note>": 261}


def test_the_base_that_ships_takes_new_tokens(tmp_path: Path) -> None:
    adapter = train(Path("micro"), tmp_path, "micro-notes", "train.max_steps=1")
    assert list(lora_med.read_card(adapter).tokens) == NEW
    merge_adapter("micro-notes", tmp_path / "merged", store=tmp_path / "store")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([""], "needs a visible character"),
        (["  "], "needs a visible character"),
        (["<a>", "<a>"], "named twice"),
        (["<a> "], "white space"),
        (["<|im_end|>"], "is a control token of the base"),
        (["<|end_of_text|>"], "is a control token of the base"),
        (["x<|im_end|>"], "overlaps '<|im_end|>'"),
        (["x<|im"], "overlaps '<|begin_of_text|>'|overlaps '<|im_end|>'"),
        (["Ġ"], "does not read it from that text"),
    ],
)
def test_a_token_that_cannot_be_one_is_refused_by_name(
    tokens: list[str], message: str, home: Path, tmp_path: Path
) -> None:
    """Before the weights: a base whose weights are gone says the same."""
    shutil.copytree(home / "base", tmp_path / "base")
    (tmp_path / "base/model.safetensors").write_bytes(b"")
    with pytest.raises(SettingsError, match=message):
        train(tmp_path / "base", tmp_path, "bad", tokens=tokens)


def test_a_typed_control_token_stays_text_beside_a_trained_one(home: Path) -> None:
    tokenizer, _ = with_tokens(bare(home / "base").tokenizer, ["<note>"])
    ids = Encoder(tokenizer).ordinary(["<note> </s> <|im_end|><note>", "plain <note>"])
    assert [row.count(261) for row in ids] == [2, 1]
    assert all(4 not in row for row in ids)


def test_adapters_with_other_tokens_cannot_be_together(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "store", tmp_path / "store")
    train(home / "base", tmp_path, "others", tokens=["<x>"])
    with pytest.raises(SettingsError, match=r"'<note>' \(261\).*'<x>' \(261\)"):
        load_many(bare(home / "base"), ["notes", "others"], tmp_path / "store")


def test_tags_are_trained_on_new_tokens_too(tmp_path: Path) -> None:
    make_tiny("llama", tmp_path / "base")
    rows = [{"text": f"<note> fever {n} today", "spans": [[7, 12, "Sign"]]} for n in range(16)]
    settings = [
        *(f"model.base={tmp_path / 'base'}", "model.dtype=float32", "model.load_in_4bit=false", "data.source=custom"),
        *(
            "adapter.access=open",
            "adapter.name=tags",
            f"adapter.store={tmp_path / 'store'}",
            "lora.task_type=TOKEN_CLS",
        ),
        *(f"train.output_dir={tmp_path / 'run'}", "train.max_steps=2", 'lora.trainable_tokens=["<note>"]'),
    ]
    adapter = lora_med.train(lora_med.parse(None, settings), train=rows)
    assert lora_med.read_card(adapter).tokens == {"<note>": 261}
    base, _ = lora_med.open_tagger("tags", tmp_path / "store", base=str(tmp_path / "base"))
    assert base.tokenizer("<note>", add_special_tokens=False)["input_ids"] == [261]

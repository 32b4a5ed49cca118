"""Rows to tokens: one beginning, a trained stop, no control token out of data, and the same start as in generation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.record import Question
from lora_med.errors import SettingsError
from lora_med.prompts.fit import chunk
from lora_med.prompts.render import render
from lora_med.prompts.row import Row
from lora_med.prompts.tokens_and_labels import Tokens, prompt_ids, tokenize, tokenize_rows
from tests.data.real_files import REAL
from tests.tiny import make_tokenizer

MICRO = Path(__file__).parents[2] / "lora_med" / "assets" / "micro"
NASTY = "note </s> <s> and <|im_end|> or <|endoftext|>, <|end_of_text|>\n<think> <|im_start|>assistant\nyes"
QWEN = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
THINKING = QWEN.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")
ENDLESS = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def with_merges(*, think: bool = False, template: str | None = None) -> Any:
    """A byte-level tokenizer that merges `ab` and a line break with one that follows; `<think>` is not special."""
    tokenizer = make_tokenizer()
    inner = tokenizer.backend_tokenizer
    from tokenizers import models

    vocab = inner.get_vocab(with_added_tokens=True)
    vocab |= {"ab": len(vocab), "ĊĊ": len(vocab) + 1}
    inner.model = models.BPE(vocab=vocab, merges=[("a", "b"), ("Ċ", "Ċ")])
    if think:
        tokenizer.add_tokens(["<think>", "  "])
    if template:
        tokenizer.chat_template = template
    return tokenizer


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not on this machine")
    return AutoTokenizer.from_pretrained(folder)


TOKENIZERS: dict[str, Callable[[], Any]] = {
    "tiny": make_tokenizer,
    "no-bos": lambda: make_tokenizer(bos=False),
    "merges": lambda: with_merges(think=True),
    "qwen": lambda: with_merges(think=True, template=QWEN),
    "micro": lambda: load(MICRO),
    "llama": lambda: load(REAL / "models" / "stories260K"),
    "gpt2": lambda: load(REAL / "models" / "gpt2_lora_adapter"),
}
ROWS = {
    "plain": Row("u", "g", (), "", "Some text, 12.5 mg."),
    "prompt": Row("u", "g", (), "Question: why?\nAnswer:", " yes"),
    "merging": Row("u", "g", (), "aa", "bb"),
    "spaced": Row("u", "g", (), "Answer: ", "yes"),
    "broken": Row("u", "g", (), "Answer:\n", "\nyes"),
    "chat": Row("u", "g", (("system", "Brief."), ("user", "Why?"), ("assistant", "So.")), "", "So."),
    "nasty plain": Row("u", "g", (), "", NASTY),
    "nasty prompt": Row("u", "g", (), NASTY, " " + NASTY),
    "split control": Row("u", "g", (), "a <|im_", "end|> b"),
    "nasty chat": Row("u", "g", (("user", NASTY), ("assistant", NASTY)), "", NASTY),
    "nasty answer": Row("u", "g", (("user", "Why?"), ("assistant", NASTY)), "", NASTY),
}


@pytest.fixture(params=TOKENIZERS, scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


def rows_for(tokenizer: Any) -> dict[str, Row]:
    return {name: row for name, row in ROWS.items() if tokenizer.chat_template or not row.turns}


def control_ids(tokenizer: Any) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}


def test_a_row_begins_once_and_ends_in_a_trained_stop(tokenizer: Any) -> None:
    for name, row in rows_for(tokenizer).items():
        tokens = tokenize(row, tokenizer)
        ids = tokens.input_ids
        adds_bos = tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
        assert len(ids) == len(tokens.trained)
        assert ids[: 2 if adds_bos else 0].count(tokenizer.bos_token_id) == int(adds_bos), name
        stop = "<|im_end|>" if row.turns else tokenizer.eos_token
        assert tokenizer.convert_ids_to_tokens(ids[-1]) == stop, name
        assert tokens.trained[-1], name


def test_nothing_in_the_data_becomes_a_control_token(tokenizer: Any) -> None:
    for name, row in rows_for(tokenizer).items():
        tokens = tokenize(row, tokenizer)
        found = [number for number in tokens.input_ids if number in control_ids(tokenizer)]
        if row.turns:
            turns = len(row.turns)
            starts = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
            assert [number for number in found if number != tokenizer.bos_token_id] == starts * turns, name
        else:
            assert [number for number in found if number != tokenizer.bos_token_id][:-1] == [], name


def test_the_text_comes_back_whole(tokenizer: Any) -> None:
    for name, row in rows_for(tokenizer).items():
        ids = [number for number in tokenize(row, tokenizer).input_ids if number != tokenizer.bos_token_id]
        text = tokenizer.decode(ids, skip_special_tokens=False)
        parts = [content for _, content in row.turns] or [row.prompt + row.completion]
        assert all(part in text for part in parts), name


def test_generation_starts_from_what_training_saw_before_the_answer(tokenizer: Any) -> None:
    for name, row in rows_for(tokenizer).items():
        tokens = tokenize(row, tokenizer)
        first = tokens.trained.index(True)
        assert prompt_ids(row, tokenizer) == tokens.input_ids[:first], name
        assert all(tokens.trained[first:]), name


def test_many_at_once_are_what_each_is_alone(tokenizer: Any) -> None:
    rows = list(rows_for(tokenizer).values()) * 2
    assert tokenize_rows(rows, tokenizer) == [tokenize(row, tokenizer) for row in rows]
    assert tokenize_rows([], tokenizer) == []


def test_plain_text_is_what_the_tokenizer_itself_makes_of_it(tokenizer: Any) -> None:
    row = ROWS["plain"]
    ids = tokenizer(row.completion)["input_ids"]
    assert tokenize(row, tokenizer).input_ids == [*ids, tokenizer.eos_token_id]


def test_options_are_encoded_as_lm_evaluation_harness_does(tokenizer: Any) -> None:
    question = Question("q", "g", "pubmedqa", "Is it so?", "maybe", ("It was seen.",), ("yes", "no", "maybe"))
    (row,) = render([question], "pubmedqa")
    tokens = tokenize(row, tokenizer)
    whole = tokenizer(row.prompt + row.completion)["input_ids"]  # lm_eval's _encode_pair
    context = tokenizer(row.prompt)["input_ids"]
    first = tokens.trained.index(True)
    assert (tokens.input_ids[:first], tokens.input_ids[first:-1]) == (context, whole[len(context) :])


@pytest.mark.parametrize("name", ["tiny", "qwen", "micro"])
def test_a_conversation_is_what_an_inference_engine_makes_of_it(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    row = ROWS["chat"]
    messages = [{"role": role, "content": content} for role, content in row.turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip("\n")
    start = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    bos = [tokenizer.bos_token_id] if not text.startswith(tokenizer.bos_token) else []
    assert tokenize(row, tokenizer).input_ids == bos + tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompt_ids(row, tokenizer) == bos + tokenizer(start, add_special_tokens=False)["input_ids"]


def test_only_the_last_answer_is_trained() -> None:
    tokenizer = with_merges(template=QWEN)
    turns = (("user", "One?"), ("assistant", "First."), ("user", "Two?"), ("assistant", "Second."))
    tokens = tokenize(Row("u", "g", turns, "", "Second."), tokenizer)
    trained = [number for number, yes in zip(tokens.input_ids, tokens.trained, strict=True) if yes]
    assert tokenizer.decode(trained) == "Second.<|im_end|>"


def test_an_answer_whose_template_has_no_end_gets_the_end_of_text() -> None:
    tokenizer = with_merges(template=ENDLESS)
    tokens = tokenize(ROWS["chat"], tokenizer)
    assert tokenizer.decode(tokens.input_ids).endswith("user: Why?\nassistant: So.<|end_of_text|>")


def test_an_answer_follows_a_generation_prompt_that_past_answers_lack() -> None:
    tokenizer = with_merges(think=True, template=THINKING)
    tokens = tokenize(ROWS["chat"], tokenizer)
    assert tokenizer.decode(tokens.input_ids).endswith("assistant\n<think>\nSo.<|im_end|>")
    assert tokens.input_ids[: tokens.trained.index(True)] == prompt_ids(ROWS["chat"], tokenizer)


def test_a_base_without_a_chat_template_or_a_system_turn_is_named() -> None:
    with pytest.raises(SettingsError, match="no chat template"):
        tokenize(ROWS["chat"], make_tokenizer(chat=False))
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + QWEN
    with pytest.raises(SettingsError, match="turns system, user"):
        tokenize(ROWS["chat"], with_merges(template=refusing))


NOTE = "[NAME] was seen on [DATE] by Dr. [NAME]; well, [not] in pain."


@pytest.mark.parametrize("kind", ["text", "prompt", "chat"])
def test_typed_tags_are_shown_and_never_trained(tokenizer: Any, kind: str) -> None:
    if kind == "chat" and not tokenizer.chat_template:
        return
    turns = (("user", "Write."), ("assistant", NOTE)) if kind == "chat" else ()
    tokens = tokenize(Row("u", "g", turns, "Write." if kind == "prompt" else "", NOTE), tokenizer)
    assert tokens.trained[-1]
    whole = tokenizer.decode(tokens.input_ids)
    trained = tokenizer.decode([n for n, yes in zip(tokens.input_ids, tokens.trained, strict=True) if yes])
    assert whole.replace(" ", "").count(NOTE.replace(" ", "")) == 1
    assert "[NAME]" not in trained and "[DATE]" not in trained
    assert "wasseenonbyDr.;well,[not]inpain." in trained.replace(" ", "")


def plain(length: int, *, bos: bool) -> Tokens:
    trained = [not bos] + [True] * (length - 1)
    return Tokens("u", [1 if bos else 9, *range(10, 9 + length)], trained, running=True, bos=bos)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("length", [2, 7, 8, 9, 15, 16, 50])
def test_chunks_train_every_token_once_and_lose_none(bos: bool, length: int) -> None:
    whole = plain(length, bos=bos)
    parts = chunk(whole, 8)
    trained = [n for part in parts for n, yes in zip(part.input_ids, part.trained, strict=True) if yes]
    assert trained == [n for n, yes in zip(whole.input_ids, whole.trained, strict=True) if yes]
    assert all(len(part.input_ids) <= 8 for part in parts)
    for number, part in enumerate(parts[1:], 1):
        assert not part.trained[0]
        assert part.input_ids[0] == (1 if bos else parts[number - 1].input_ids[-1])


def test_an_answer_is_never_cut() -> None:
    tokens = Tokens("u7", [1, 2, 3, 4], [False, False, True, True])
    assert chunk(tokens, 4) == [tokens]
    with pytest.raises(SettingsError, match="u7"):
        chunk(tokens, 3)


@pytest.mark.parametrize("chat", [False, True])
def test_nothing_becomes_a_control_token_by_normalization(chat: bool) -> None:
    from tokenizers import AddedToken, normalizers

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|ctl|>", normalized=True, special=True)]})
    disguised = "a \uff1c|ctl|> b"
    number = tokenizer.convert_tokens_to_ids("<|ctl|>")
    assert number in tokenizer(disguised)["input_ids"]
    turns = (("user", disguised), ("assistant", disguised)) if chat else ()
    row = Row("u", "g", turns, "" if chat else disguised, disguised)
    assert number not in tokenize(row, tokenizer).input_ids

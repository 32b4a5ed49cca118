"""Keys and values of a beginning are shared by equal content and one API key only, and never beyond a budget."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from lora_med.serving.decoding.identity import digest, prefix_digest
from lora_med.serving.decoding.prefix_blocks import BLOCK, Block, PrefixCache
from lora_med.serving.engine import Engine
from tests.serving.conftest import Answers, Place, ask, finish

LONG = [1, *(20 + number * 7 % 200 for number in range(BLOCK + 40))]


@pytest.fixture
def own(llama_place: Place) -> Iterator[Engine]:
    with llama_place.engine() as made:
        yield made


def cached(engine: Engine) -> int:
    return engine.statistics().cached_prompt_tokens


def test_a_prompt_that_begins_alike_is_not_computed_again(own: Engine, llama_alone: Answers) -> None:
    for number, tokens in enumerate((LONG, LONG, [*LONG[:-3], 9, 9])):
        assert finish(own.submit(ask("a", tokens, 9)))[0] == llama_alone("a", tokens, 9)
        assert cached(own) == number * BLOCK


@pytest.mark.parametrize(
    "other",
    [
        {"adapter": "b"},
        {"adapter": None},
        {"key": "other"},
        {"tokens": [1, 2, *LONG[2:]]},
    ],
    ids=str,
)
def test_another_adapter_key_or_beginning_shares_nothing(
    other: dict[str, Any], own: Engine, llama_alone: Answers
) -> None:
    first = {"adapter": "a", "tokens": LONG, "key": "mine"}
    second = {**first, **other}
    for fields in (first, second):
        given = finish(own.submit(ask(fields["adapter"], fields["tokens"], 9, key=fields["key"])))[0]
        assert given == llama_alone(fields["adapter"], fields["tokens"], 9)
    assert cached(own) == 0
    finish(own.submit(ask(first["adapter"], LONG, 9, key="mine")))
    assert cached(own) == BLOCK


def test_a_replaced_adapter_does_not_meet_the_keys_of_the_one_before(
    own: Engine, llama_place: Place, llama_alone: Answers
) -> None:
    finish(own.submit(ask("a", LONG, 9)))
    own.load("a", llama_place.files("b"))
    assert finish(own.submit(ask("a", LONG, 9)))[0] == llama_alone("b", LONG, 9)
    assert cached(own) == 0


def test_what_is_cached_gives_way_to_requests(llama_place: Place, llama_alone: Answers) -> None:
    need = llama_place.engine(())._steps.memory_bytes(len(LONG) + 8)
    with llama_place.engine(kv_memory=need + 1000) as engine:
        for name in ("a", "b", "a", None, "a"):
            assert finish(engine.submit(ask(name, LONG, 9)))[0] == llama_alone(name, LONG, 9)
            assert engine.statistics().kv_bytes <= need + 1000


def block(*tokens: int) -> Block:
    return Block(tokens, [], 10)


def test_the_least_recently_used_beginning_leaves_and_later_blocks_leave_first() -> None:
    cache = PrefixCache()
    tokens = tuple(range(2 * BLOCK + 1))
    cache.put("1", block(*tokens[:BLOCK]))
    cache.put("2", block(*tokens[: 2 * BLOCK]))
    names = {BLOCK: "1", 2 * BLOCK: "2"}
    assert len(cache.find(tokens, lambda prefix: names[len(prefix)])) == 2
    assert len(cache.find(tokens[:-1], lambda prefix: names[len(prefix)])) == 1, "the last token is always computed"
    cache.shrink(10)
    assert len(cache.find(tokens, lambda prefix: names[len(prefix)])) == 1
    assert cache.size_bytes == 10


def test_a_block_of_other_tokens_under_the_same_digest_is_not_taken() -> None:
    cache = PrefixCache()
    cache.put("same", block(*range(BLOCK)))
    assert not cache.find(tuple(range(1, 2 * BLOCK)), lambda prefix: "same")


def random_key(draw: random.Random) -> dict[str, Any]:
    """Keys from few short texts, so that many of them join to the same text: ("a", "bc") and ("ab", "c")."""
    texts = ["", "a", "b", "ab", "ba", "a\0", "\0a", "s", "n", "None", "\ud800"]
    tokens = tuple(draw.choice((0, 1, 97, 256, 2**32)) for _ in range(draw.randrange(4)))
    return {
        "key": draw.choice(texts),
        "base": draw.choice(texts),
        "adapter": draw.choice([None, *texts]),
        "template": draw.choice(texts),
        "tokens": tokens,
    }


def test_ten_thousand_random_keys_that_differ_never_share_a_digest() -> None:
    draw = random.Random(26)
    by_digest: dict[str, str] = {}
    keys = {repr(key): key for key in (random_key(draw) for _ in range(10_000))}
    for text, key in keys.items():
        assert by_digest.setdefault(prefix_digest(**key), text) == text
    assert len(by_digest) == len(keys) > 8_000
    assert all(prefix_digest(**key) == prefix_digest(**dict(reversed(key.items()))) for key in list(keys.values())[:50])


def test_a_value_cannot_pass_for_another_field_or_type() -> None:
    digests = [
        digest("x", a="1", b="2"),
        digest("x", a="1b", b="2"),
        digest("x", a="12", b=""),
        digest("x", a="12"),
        digest("x", a="12", b=None),
        digest("x", a=b"12"),
        digest("xa", a="12"),
    ]
    assert len(set(digests)) == len(digests)

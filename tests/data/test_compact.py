"""A set and a table of numbers that are small in memory: they answer as Python's own do."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lora_med.data.splitting.compact import DigestSet, NumberTable

digests = some.one_of(some.integers(0, 2**64 - 1), some.integers(0, 5), some.integers(2**64 - 5, 2**64 - 1))


@given(added=some.lists(digests), asked=some.lists(digests))
def test_a_digest_set_holds_what_was_added_and_nothing_else(added: list[int], asked: list[int]) -> None:
    numbers = DigestSet()
    for number in added:
        numbers.add(number)
    assert [number in numbers for number in added + asked] == [number in set(added) for number in added + asked]


@given(entries=some.lists(some.tuples(some.integers(0, 10_000) | some.integers(0, 10**9), some.integers(0, 2**40))))
def test_a_number_table_gives_the_last_number_of_each_key(entries: list[tuple[int, int]]) -> None:
    table = NumberTable()
    for key, value in entries:
        table[key] = value
    assert {key: table.get(key) for key, _ in entries} == dict(entries)
    assert table.get(10**9 + 1) == table.get(3 * 10**9) == -1


def test_an_entry_of_a_number_table_takes_fourteen_bytes_at_most() -> None:
    tracemalloc.start()
    table = NumberTable()
    for number in range(50_000):
        table[30_000_000 + 3 * number] = number
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / 50_000 < 14


@pytest.mark.slow
def test_of_a_million_digests_each_takes_twelve_bytes_at_most() -> None:
    tracemalloc.start()
    numbers = DigestSet()
    for number in range(1_000_000):
        numbers.add(number * 0x9E3779B97F4A7C15 % 2**64)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / 1_000_000 < 12

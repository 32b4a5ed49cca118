"""Every row counts once an epoch, and any number of processes shares one order."""

from __future__ import annotations

import itertools

import pytest
import torch

from lora_med.errors import DataError
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows.arrow_rows import hash_rows
from lora_med.training.rows.batches import (
    BatchOrder,
    Collator,
    Share,
    Stream,
    load_rows,
    load_stream,
    make_rows,
    share_out,
)
from lora_med.training.rows.packing import pack
from tests.training.support import documents


def plain(*lengths: int) -> list[Tokens]:
    return [Tokens(str(number), [1] * length, [True] * length) for number, length in enumerate(lengths)]


def sizes(groups: list[list[Tokens]]) -> list[list[int]]:
    return [[len(document.input_ids) for document in group] for group in groups]


def test_packing_puts_each_document_where_it_fits_best() -> None:
    # By hand: 7 opens a row (3 left), 6 another (4 left), 4 fills that, 3 fills the first, 2 and 1 open a third.
    assert sizes(pack(plain(1, 2, 3, 4, 6, 7), 10)) == [[7, 3], [6, 4], [2, 1]]


def test_packing_loses_no_document_and_no_row_is_too_long() -> None:
    given = documents(200, longest=60)
    groups = pack(given, 64)
    assert sorted(document.uid for group in groups for document in group) == sorted(one.uid for one in given)
    assert max(sum(lengths) for lengths in sizes(groups)) <= 64
    filled = sum(len(one.input_ids) for one in given) / (64 * len(groups))
    assert filled > 0.95


@pytest.mark.parametrize("rows", [1, 7, 16, 17])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_is_in_one_batch_of_one_process(rows: int, processes: int) -> None:
    lengths = [number * 37 % 11 + 1 for number in range(rows)]
    orders = [BatchOrder(lengths, 2, Share(rank, processes), seed=5) for rank in range(processes)]
    assert len({len(list(order)) for order in orders}) == 1
    seen = [number for order in orders for batch in order for number in batch]
    assert sorted(seen) == list(range(rows))


def test_two_processes_share_the_batches_of_one() -> None:
    lengths = list(range(1, 12))
    one = list(BatchOrder(lengths, 4, Share(), seed=1))
    first, second = (list(BatchOrder(lengths, 2, Share(rank, 2), seed=1)) for rank in (0, 1))
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in one]


def test_processes_get_about_as_many_tokens_each() -> None:
    # By hand: 9 to the first, 8 to the second, 3 to the second (8 < 9), which is full then, and 2 to the first.
    assert share_out([0, 1, 2, 3], [3, 9, 8, 2], 2, 2) == [[1, 3], [0, 2]]
    # A short last batch: the long row alone, the short ones together.
    assert share_out([4, 2, 0], [1, 0, 2, 0, 9], 2, 2) == [[4], [2, 0]]
    assert share_out([5], [1] * 6, 2, 2) == [[5], []]


def test_shares_are_nearer_to_each_other_than_halves_in_order() -> None:
    lengths = [len(one.input_ids) for one in documents(200, longest=300)]
    together = list(BatchOrder(lengths, 8, Share(), seed=3))
    parts = [list(BatchOrder(lengths, 4, Share(rank, 2), seed=3)) for rank in (0, 1)]

    def most(batches: list[list[int]]) -> list[int]:
        return [sum(lengths[row] for row in batch) for batch in batches]

    waited = sum(max(pair) for pair in zip(*map(most, parts), strict=True))
    in_order = sum(
        max(pair) for pair in zip(most([b[:4] for b in together]), most([b[4:] for b in together]), strict=True)
    )
    assert waited < 0.9 * in_order
    assert waited < 1.05 * sum(lengths) / 2


def test_each_epoch_has_its_own_order_and_no_seed_means_none() -> None:
    order = BatchOrder([1] * 20, 20, Share(), seed=1)
    first = list(order)
    order.set_epoch(1)
    assert list(order) != first
    order.set_epoch(0)
    assert list(order) == first
    assert list(BatchOrder([1] * 20, 20, Share(), seed=None)) == [list(range(20))]


def test_the_loader_leaves_the_global_random_state_alone() -> None:
    rows = make_rows(documents(9), 64, packing=False)
    before = torch.random.get_rng_state()
    list(load_rows(rows, Collator(0, flat=True, unmasked=True), batch_size=2, share=Share(), seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_flat_batch_has_no_padding_and_scores_no_first_token() -> None:
    given = documents(3)
    batch = Collator(0, flat=True, unmasked=True)([make_rows(given, 64, packing=False)[number] for number in range(3)])
    lengths = [len(document.input_ids) for document in given]
    assert batch["input_ids"].tolist() == [[token for document in given for token in document.input_ids]]
    assert batch["cu_seq_lens_q"].tolist() == [0, *itertools.accumulate(lengths)]
    expected = [
        token if trained and place else -100
        for document in given
        for place, (token, trained) in enumerate(zip(document.input_ids, document.trained, strict=True))
    ]
    assert batch["labels"].tolist() == [expected]
    assert bool(batch["attention_mask"].all())


def test_a_padded_batch_masks_what_it_adds() -> None:
    rows = make_rows(plain(3, 5), 64, packing=False)
    batch = Collator(9, flat=False, unmasked=False)([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[1, 1, 1, 9, 9], [1] * 5]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert batch["labels"][0].tolist() == [1, 1, 1, -100, -100]


def test_a_process_without_a_row_gets_one_that_trains_nothing() -> None:
    batch = Collator(0, flat=True, unmasked=True)([])
    assert batch["labels"].tolist() == [[-100]]


def test_a_stream_goes_round_and_is_shared() -> None:
    stream = Stream(plain(1, 2, 3), 10, packing=False)
    collator = Collator(0, flat=True, unmasked=True)
    widths = []
    for rank in (0, 1):
        loader = load_stream(stream, collator, batch_size=1, share=Share(rank, 2))
        widths.append([batch["input_ids"].shape[1] for batch in itertools.islice(loader, 3)])
    assert widths == [[1, 3, 2], [2, 1, 3]]


def test_a_packed_stream_fills_rows_in_reading_order() -> None:
    rows = itertools.islice(Stream(plain(4, 5, 3, 9), 10, packing=True), 3)
    assert [row["seq_lengths"] for row in rows] == [[4, 5], [3], [9]]


def test_an_empty_stream_is_an_error() -> None:
    with pytest.raises(DataError):
        Stream([], 10, packing=False).first()


def test_the_hash_depends_on_labels_and_order() -> None:
    first, second = documents(2)
    whole = hash_rows(make_rows([first, second], 64, packing=False))
    assert whole == hash_rows(make_rows([first, second], 64, packing=False))
    assert whole != hash_rows(make_rows([second, first], 64, packing=False))
    untrained = Tokens(first.uid, first.input_ids, [False] * len(first.trained))
    assert whole != hash_rows(make_rows([untrained, second], 64, packing=False))

"""Documents that share their beginning train as one, to the same loss, gradient and weights as one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_med.errors import SettingsError
from lora_med.prompts.tokens_and_labels import Tokens
from lora_med.training.rows import shared_prefix_rows as trees
from lora_med.training.rows.arrow_rows import hash_rows
from lora_med.training.rows.batches import Collator, Stream, make_rows
from lora_med.training.rows.shared_prefix_rows import SharedPrefix, join_shared_prefixes
from lora_med.training.step.loss import add_compact_loss, count_labeled
from tests.tiny import FAMILIES
from tests.training.support import EOS, documents, make_base, make_trainer, weights


def questions(passages: int, each: int, *, seed: int = 0, passage: int = 40) -> list[Tokens]:
    """Questions of 6 to 12 tokens, with answers of 1 to 6, about passages; in an order that mixes the passages."""
    generator = torch.Generator().manual_seed(seed)

    def some(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return torch.randint(5, 60, (length,), generator=generator).tolist()

    contexts = [[1, *some(passage, passage + 5)] for _ in range(passages)]
    found = []
    for number in range(each):
        for place, context in enumerate(contexts):
            asked, answer = some(6, 12), [*some(1, 6), EOS]
            ids = context + asked + answer
            trained = [False] * (len(ids) - len(answer)) + [True] * len(answer)
            found.append(Tokens(f"p{place}q{number}", ids, trained))
    return found


def row(ids: list[int], trained_from: int) -> Tokens:
    return Tokens("", ids, [place >= trained_from for place in range(len(ids))])


def test_a_shared_row_holds_the_common_beginning_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MIN_PREFIX_TOKENS", 3)
    given = [row([1, 2, 3, 4, 5, 6], 5), row([9, 9], 1), row([1, 2, 3, 7, 8], 4), row([1, 2, 8, 8], 3)]
    first, second, third = join_shared_prefixes(given, 100)
    assert first == SharedPrefix("", [1, 2, 3, 4, 5, 6, 7, 8], [False] * 5 + [True, False, True], lengths=(3, 3, 2))
    assert (second, third) == (given[1], given[3])  # [1, 2] is too short a beginning


def test_what_predicts_a_trained_token_is_never_in_the_shared_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers to one question: the question's last token, which predicts both, stands in each branch."""
    monkeypatch.setattr(trees, "MIN_PREFIX_TOKENS", 2)
    (tree,) = join_shared_prefixes([row([1, 2, 3, 4, 5], 4), row([1, 2, 3, 4, 6], 4)], 100)
    assert isinstance(tree, SharedPrefix)
    assert tree.lengths == (3, 2, 2)
    assert tree.input_ids == [1, 2, 3, 4, 5, 4, 6]
    assert tree.trained == [False, False, False, False, True, False, True]


def test_no_shared_row_is_too_long_and_no_document_is_lost() -> None:
    given = [*questions(6, 9), *documents(20)]
    grown = join_shared_prefixes(given, 128)
    assert max(len(one.input_ids) for one in grown) <= 128
    parts = []
    for one in grown:
        if not isinstance(one, SharedPrefix):
            parts.append(one.input_ids)
            continue
        trunk, start = one.input_ids[: one.lengths[0]], one.lengths[0]
        for length in one.lengths[1:]:
            parts.append(trunk + one.input_ids[start : start + length])
            start += length
    assert sorted(parts) == sorted(one.input_ids for one in given)
    assert sum(len(one.input_ids) for one in grown) < 0.6 * sum(len(one.input_ids) for one in given)


def gradients(model: Any, batches: list[dict[str, Any]]) -> tuple[float, int, torch.Tensor]:
    model.zero_grad()
    total, counted = 0.0, 0
    for batch in batches:
        labels = batch["labels"]
        nll = model(**{name: value for name, value in batch.items() if name != "labels"}, nll_labels=labels)
        nll.backward()
        total, counted = total + float(nll), counted + int(count_labeled(labels))
    return total, counted, torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_those_of_the_documents_one_by_one(family: str, packing: bool) -> None:
    model = make_base(family).model.train()
    head = model.get_output_embeddings()
    add_compact_loss(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers" in name or ".h." in name)
    head.weight.requires_grad_(False)
    given = [*questions(2, 4), *documents(3)]
    collator = Collator(0, flat=True, unmasked=True)
    grown = make_rows(join_shared_prefixes(given, 128), 256, packing)
    assert len(grown) < len(given)
    plain = make_rows(given, 256, packing=False)
    expected = gradients(model, [collator([plain[number]]) for number in range(len(plain))])
    found = gradients(model, [collator([grown[number] for number in range(len(grown))])])
    assert found[1] == expected[1]
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert float((found[2] - expected[2]).norm()) < 2e-6 * float(expected[2].norm())


def test_a_sliding_window_is_counted_in_each_branch_s_own_positions() -> None:
    model = make_base("mistral").model
    model.config.sliding_window = 16
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 16
    collator = Collator(0, flat=True, unmasked=True)
    given = questions(1, 3)
    (tree,) = make_rows(join_shared_prefixes(given, 128), 128, packing=False)
    with torch.no_grad():
        found = model(**collator([tree]), use_cache=False).logits[0]
        alone = [model(**collator([one]), use_cache=False).logits[0] for one in make_rows(given, 128, packing=False)]
    trunk, *branches = tree["shared_prefixes"][0]
    expected = torch.cat([alone[0][:trunk], *(one[trunk:] for one in alone)])
    assert len(branches) == 3
    assert float((found - expected).abs().max()) < 1e-5


def test_training_on_shared_prefixes_gives_the_weights_of_training_one_by_one(tmp_path: Path) -> None:
    given = questions(2, 4)
    options: dict[str, Any] = {"train": given, "validation": given[:3], "dropout": 0.0, "max_steps": 4}
    alone = make_trainer(tmp_path / "alone", per_device_train_batch_size=8, **options)
    alone.train()
    together = make_trainer(tmp_path / "together", per_device_train_batch_size=2, share_context=True, **options)
    assert len(together.train_dataset) == 2
    together.train()
    assert float((weights(together) - weights(alone)).abs().max()) < 1e-5
    assert together.state.best_metric == pytest.approx(alone.state.best_metric, rel=1e-5)


def test_a_resumed_run_with_another_way_of_sharing_is_refused() -> None:
    given = questions(2, 3)
    grown = join_shared_prefixes(given, 128)
    rows = make_rows(grown, 128, packing=False)
    assert hash_rows(rows) == hash_rows(make_rows(join_shared_prefixes(given, 128), 128, packing=False))
    flat = [Tokens(one.uid, one.input_ids, one.trained) for one in grown]
    assert hash_rows(rows) != hash_rows(make_rows(flat, 128, packing=False))


def test_where_continuations_cannot_be_separated_sharing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="continuations"):
        make_trainer(tmp_path, base=make_base(attention="eager"), share_context=True)
    with pytest.raises(SettingsError, match="stream"):
        make_trainer(tmp_path, train=Endless(), share_context=True, max_steps=2)


class Endless:
    """Documents that can be read again, but not counted."""

    def __iter__(self) -> Any:
        return iter(documents(4))


def test_a_stream_is_left_as_it_is() -> None:
    assert "shared_prefixes" not in next(iter(Stream(documents(2), 64, packing=True)))

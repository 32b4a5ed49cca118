"""The products of few rows that the engine uses: the same numbers, whichever of the two forms is taken."""

from __future__ import annotations

import pytest
import torch

from lora_med.models.structure.few_rows import few_rows, is_amd, product, swaps

SHAPES = ((64, 64), (160, 64), (64, 160), (300, 1100))  # outputs, inputs


@pytest.mark.parametrize("rows", range(1, 10))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_of_few_rows_has_the_value_of_float64(rows: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(rows)
    outputs, inputs = shape
    x, weight, bias = torch.randn(rows, 1, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    exact = torch.nn.functional.linear(x.double(), weight.double())
    for given, expected in ((product(x, weight), exact), (product(x, weight, bias), exact + bias.double())):
        assert given.shape == (rows, 1, outputs) and given.is_contiguous()
        assert float((given - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_both_forms_are_tried_by_these_shapes() -> None:
    assert {swaps(rows, inputs, outputs) for rows in range(1, 10) for outputs, inputs in SHAPES} == {True, False}
    assert all(swaps(2, inputs, outputs) for outputs, inputs in SHAPES)


def test_a_transposed_input_gives_the_same() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(64, 4).t(), torch.randn(128, 64)
    assert torch.equal(product(x, weight), product(x.contiguous(), weight))


def test_only_plain_float32_layers_change_and_get_their_own_forward_back() -> None:
    model = torch.nn.ModuleDict(
        {
            "plain": torch.nn.Linear(8, 8),
            "bf16": torch.nn.Linear(8, 8, dtype=torch.bfloat16),
            "sub": type("Quantized", (torch.nn.Linear,), {})(8, 8),
            "own": torch.nn.Linear(8, 8),
        }
    )
    model["own"].forward = own = lambda x: x
    with few_rows(model):
        changed = {name for name, module in model.items() if "forward" in vars(module) and module.forward is not own}
        assert changed == ({"plain"} if is_amd() else set())
        x = torch.randn(2, 8)
        torch.testing.assert_close(model["plain"](x), torch.nn.functional.linear(x, *model["plain"].parameters()))
    assert {name for name, module in model.items() if "forward" in vars(module)} == {"own"}
    assert model["own"].forward is own

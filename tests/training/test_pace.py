"""How long a step takes is told by two layers of the base, whatever it is and however it is trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lora_med.config.schema import LoraSettings
from lora_med.training.pace import fits_to_time, time_batch, typical_batch
from tests.tiny import FAMILIES, make_tiny
from tests.training.test_plan import shape_of

LENGTHS = (40, 60, 100)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_family_can_be_timed(tmp_path: Path, family: str, checkpointing: bool) -> None:
    shape = shape_of(make_tiny(family, tmp_path))
    pace = time_batch(shape, LENGTHS, 30, checkpointing=checkpointing)
    assert pace.tokens == 200
    assert 0 < pace.seconds < math.inf
    assert pace.tokens_per_second == pytest.approx(200 / pace.seconds)


@pytest.mark.parametrize("options", [{"quantisation": "4bit"}, {"quantisation": "8bit"}, {"dora": True}])
def test_so_can_quantised_bases_and_other_adapters(tmp_path: Path, options: dict[str, object]) -> None:
    dora = bool(options.pop("dora", False))
    shape = shape_of(make_tiny("llama", tmp_path), lora=LoraSettings(use_dora=dora), **options)
    assert time_batch(shape, LENGTHS, 30, checkpointing=False).seconds > 0


def test_a_base_of_more_layers_takes_longer_and_adapters_on_the_last_alone_less(tmp_path: Path) -> None:
    few, many = (make_tiny("llama", tmp_path / str(layers), layers=layers) for layers in (4, 80))
    short = time_batch(shape_of(few), LENGTHS, 30, checkpointing=False).seconds
    whole = time_batch(shape_of(many), LENGTHS, 30, checkpointing=False).seconds
    last = shape_of(many, lora=LoraSettings(layers_to_transform=[79]))
    assert whole > 5 * short
    assert time_batch(last, LENGTHS, 30, checkpointing=False).seconds < whole / 1.5


def test_a_typical_batch_has_a_row_of_each_part() -> None:
    # By hand: of ten lengths in two halves, the middle of each is the third and the eighth.
    assert typical_batch([10, 1, 9, 2, 8, 3, 7, 4, 6, 5], 2) == [3, 8]
    assert typical_batch([7], 4) == [7]


def test_layers_that_do_not_fit_are_not_timed(tmp_path: Path) -> None:
    shape = shape_of(make_tiny("llama", tmp_path))
    assert fits_to_time(shape, 1 << 30)
    assert not fits_to_time(shape, 1 << 10)

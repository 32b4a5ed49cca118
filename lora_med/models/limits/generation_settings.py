"""generation_config.json of a base: types and ranges, before transformers generates with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lora_med.errors import IntegrityError
from lora_med.models.limits.sizes import COPY, read_settings_file

FILE = "generation_config.json"
MOST_TOKENS = 100_000_000
MOST_BEAMS = 128


def _integer(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _ids(value: Any) -> bool:
    ids = value if isinstance(value, list) else [value]
    return all(type(one) is int and 0 <= one < 2**31 for one in ids) and len(ids) <= MOST_TOKENS


def _id_lists(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) and one and _ids(one) for one in value)


LENGTHS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "no_repeat_ngram_size", "top_k")
LENGTHS += ("encoder_no_repeat_ngram_size",)
BEAMS = ("num_beams", "num_beam_groups", "num_return_sequences")
NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty")
NUMBERS += ("encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff", "guidance_scale", "penalty_alpha", "max_time")
IDS = ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
IDS += ("forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
TRUTHS = ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "output_scores", "output_logits")
TRUTHS += ("output_attentions", "output_hidden_states", "return_dict_in_generate", "token_healing")
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **{key: (_integer(0, MOST_TOKENS), f"an integer from 0 to {MOST_TOKENS:,}") for key in LENGTHS},
    **{key: (_integer(1, MOST_BEAMS), f"an integer from 1 to {MOST_BEAMS}") for key in BEAMS},
    **dict.fromkeys(NUMBERS, (_number, "a finite number")),
    **dict.fromkeys(IDS, (_ids, "a token id or a list of token ids")),
    **dict.fromkeys(TRUTHS, (_truth, "true or false")),
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", "true, false or never"),
    "bad_words_ids": (_id_lists, "a list of lists of token ids"),
    "force_words_ids": (_id_lists, "a list of lists of token ids"),
    "repetition_penalty": (lambda value: _number(value) and value > 0, "a positive number"),
    "temperature": (lambda value: _number(value) and value >= 0, "a number that is not negative"),
}


def check_generation(folder: Path) -> None:
    """Refuse generation settings of another type or an absurd size; a base without the file has none.

    Raises:
        IntegrityError: it names the setting and its value.
    """
    path = folder / FILE
    if not path.exists():
        return
    for key, value in read_settings_file(path).items():
        if value is None or key not in RULES:
            continue
        is_right, what = RULES[key]
        if not is_right(value):
            raise IntegrityError(f"{key} is {str(value)[:40]}, not {what}", where=f"{path}: {key}", fix=COPY)

"""The text that a row of each shape trains: read from a file, rendered, tokenized and decoded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_med.prompts.fit import fit_rows
from lora_med.prompts.render import render
from tests.data.own_rows import only, read_rows
from tests.tiny import make_tokenizer

OPEN, SHUT = "<|im_start|>", "<|im_end|>"
TURNS = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Define edema."},
         {"role": "assistant", "content": "Swelling."}]  # fmt: skip
SAID = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Define edema."},
        {"from": "gpt", "value": "Swelling."}]  # fmt: skip
CHAT = f"{OPEN}system\nBe brief.{SHUT}\n{OPEN}user\nDefine edema.{SHUT}\n{OPEN}assistant\n"
OPTIONS = {"A": "Rash", "B": "Swelling"}
LETTERED = "Question: Define edema.\nA. Rash\nB. Swelling\nAnswer:"
GOLDEN = {"id": "1", "type": "yesno", "body": "Is it swelling?", "exact_answer": "yes", "ideal_answer": ["Yes."],
          "snippets": [{"text": "Edema is swelling."}]}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "template", "given", "trained"),
    [
        ({"instruction": "One word.", "input": "Is it?", "output": "No", "system": "Be brief."}, "pair_chat",
         f"{OPEN}system\nBe brief.{SHUT}\n{OPEN}user\nOne word.\n\nIs it?{SHUT}\n{OPEN}assistant\n", f"No{SHUT}"),
        ({"instruction": "Is it?", "input": "", "output": "No", "history": [["Hi", "Hello."]]}, "pair_chat",
         f"{OPEN}user\nHi{SHUT}\n{OPEN}assistant\nHello.{SHUT}\n{OPEN}user\nIs it?{SHUT}\n{OPEN}assistant\n",
         f"No{SHUT}"),
        ({"messages": TURNS}, "pair_chat", CHAT, f"Swelling.{SHUT}"),
        ({"conversations": SAID}, "pair_chat", CHAT, f"Swelling.{SHUT}"),
        ({"prompt": "Define edema.", "completion": "Swelling.", "system": "Be brief."}, "pair_chat", CHAT,
         f"Swelling.{SHUT}"),
        ({"prompt": "Define edema:", "completion": " swelling."}, "pair", "Define edema:", " swelling.<|end_of_text|>"),
        ({"question": "Define edema.", "options": OPTIONS, "answer": "B"}, "choice", LETTERED,
         " B<|end_of_text|>"),
        ({"question": "Define edema.", **OPTIONS, "answer": "B"}, "choice", LETTERED, " B<|end_of_text|>"),
        ({"question": "Define edema.", "opa": "Rash", "opb": "Swelling", "cop": "b"}, "choice", LETTERED,
         " B<|end_of_text|>"),
        ({"question": "Define edema.", "context": "Edema is swelling.", "answers": {"text": ["swelling"]}}, "cloze",
         "Edema is swelling.\nQuestion: Define edema.\nAnswer:", " swelling<|end_of_text|>"),
        (GOLDEN, "choice", "Edema is swelling.\nQuestion: Is it swelling?\nA. yes\nB. no\nAnswer:",
         " A<|end_of_text|>"),
        ({"text": "Edema is swelling.", "title": "Edema"}, "text", "", "Edema\nEdema is swelling.<|end_of_text|>"),
    ],
)  # fmt: skip
def test_a_row_trains_its_answer_after_all_that_its_columns_hold(
    tmp_path: Path, row: dict[str, Any], template: str, given: str, trained: str
) -> None:
    tokenizer = make_tokenizer(chat=True)
    (tokens,) = fit_rows(render([only(tmp_path, row)], template), tokenizer, 512)
    pairs = list(zip(tokens.input_ids, tokens.trained, strict=True))
    before = tokenizer.decode([number for number, counts in pairs if not counts])
    assert before.removeprefix("<|begin_of_text|>") == given
    assert tokenizer.decode([number for number, counts in pairs if counts]).removeprefix("<|begin_of_text|>") == trained


def test_a_classified_text_trains_its_class(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(chat=True)
    records = read_rows(tmp_path, {"text": "Fever.", "label": "pos"}, {"text": "Well.", "label": "neg"}).records
    tokens, _ = fit_rows(render(records, "label"), tokenizer, 512)
    pairs = list(zip(tokens.input_ids, tokens.trained, strict=True))
    assert tokenizer.decode([number for number, counts in pairs if counts]) == " pos<|end_of_text|>"
    assert tokenizer.decode([number for number, counts in pairs if not counts]).endswith("Fever.\nLabel:")

"""Conversations and instructions as people have them: Alpaca, ShareGPT, OpenAI's messages, prompts with a system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.record import Pair
from lora_med.errors import DataError
from tests.data.own_rows import only, read_path, read_rows

ASKED, SAID = "Define edema.", "Swelling."
TURNS = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
SYSTEM = (("system", "Be brief."),)


def said(record: Any) -> tuple[Any, ...]:
    """The turns of a pair: its history, its input and its output."""
    assert isinstance(record, Pair)
    return (*record.history, record.input, record.output)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "One word.", "input": "Is it?", "output": SAID}, "One word.\n\nIs it?"),
        ({"instruction": ASKED, "input": "", "output": SAID}, ASKED),
        ({"instruction": ASKED, "input": None, "output": SAID}, ASKED),
        ({"instruction": ASKED, "output": SAID}, ASKED),
        ({"instruction": "", "input": ASKED, "output": SAID}, ASKED),
        ({"instruction": ASKED, "response": SAID}, ASKED),
        ({"instruction": ASKED, "completion": SAID}, ASKED),
        ({"Instruction": "Do.", "Input": "This.", "Output": SAID}, "Do.\n\nThis."),
        ({"instruction": "Sum up.", "context": "A note.", "response": SAID, "category": "x"}, "Sum up.\n\nA note."),
        ({"instruction": ASKED, "input": "", "output": SAID, "text": "Below is an instruction."}, ASKED),
    ],
)
def test_instruction_and_input_together_are_the_prompt(tmp_path: Path, row: dict[str, Any], prompt: str) -> None:
    assert said(only(tmp_path, row)) == (prompt, SAID)


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": ASKED, "completion": SAID, "context": "A note."}, f"A note.\n\n{ASKED}"),
        ({"prompt": ASKED, "completion": SAID, "contexts": ["A note.", "Another."]}, f"A note.\n\nAnother.\n\n{ASKED}"),
        ({"input": ASKED, "output": SAID, "context": "A note."}, f"A note.\n\n{ASKED}"),
        ({"prompt": ASKED, "completion": SAID, "context": ""}, ASKED),
        ({"prompt": ASKED, "completion": SAID, "contexts": []}, ASKED),
    ],
)
def test_a_context_comes_before_the_prompt_that_the_completion_continues(
    tmp_path: Path, row: dict[str, Any], prompt: str
) -> None:
    assert said(only(tmp_path, row)) == (prompt, SAID)


def test_the_published_alpaca_file_keeps_every_instruction(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "Dyspnea on exertion.", "output": "Short of breath."},
        {"instruction": "Is this a symptom?", "input": "Dyspnea on exertion.", "output": "yes"},
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    found = read_path(tmp_path / "alpaca.json")
    assert [record.input for record in found.records if isinstance(record, Pair)] == [
        "Translate.\n\nDyspnea on exertion.",
        "Is this a symptom?\n\nDyspnea on exertion.",
    ]
    assert found.notes.columns == {"instruction": "instruction", "input": "input", "output": "output"}


def test_instructions_on_one_long_text_are_one_group(tmp_path: Path) -> None:
    note = "A note of more than eight words about a man with a cough."
    rows = [{"instruction": f"Task {n}.", "input": note, "output": str(n)} for n in range(3)]
    first, second, third = read_rows(tmp_path, *rows).records
    assert first.group == second.group == third.group
    short = [{"instruction": f"Task {n}.", "input": "none", "output": str(n)} for n in range(2)]
    assert len({record.group for record in read_rows(tmp_path, *short).records}) == 2


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": ASKED, "input": "", "output": SAID, "system": "Be brief."},
        {"prompt": ASKED, "completion": SAID, "system": "Be brief."},
        {"prompt": ASKED, "response": SAID, "system_prompt": "Be brief."},
        {"input": ASKED, "output": SAID, "system": "Be brief."},
        {"messages": TURNS, "system": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, *TURNS], "system": "Be brief."},
        {"messages": [{"role": "developer", "content": "Be brief."}, *TURNS]},
        {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": ASKED},
                           {"from": "gpt", "value": SAID}]},
        {"system": "Be brief.", "tools": "", "conversations": [{"from": "human", "value": ASKED},
                                                               {"from": "gpt", "value": SAID}]},
    ],
)  # fmt: skip
def test_a_system_text_is_the_first_turn_wherever_it_is_given(tmp_path: Path, row: dict[str, Any]) -> None:
    assert said(only(tmp_path, row)) == (*SYSTEM, ASKED, SAID)


@pytest.mark.parametrize(
    "history",
    [
        [["Hi", "Hello."]],
        json.dumps([["Hi", "Hello."]]),
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
    ],
)
def test_a_history_is_pairs_or_turns(tmp_path: Path, history: Any) -> None:
    row = {"instruction": ASKED, "input": "", "output": SAID, "system": "Be brief.", "history": history}
    assert said(only(tmp_path, row)) == (*SYSTEM, ("user", "Hi"), ("assistant", "Hello."), ASKED, SAID)
    assert said(only(tmp_path, row | {"history": [], "system": ""})) == (ASKED, SAID)


@pytest.mark.parametrize(
    "turns",
    [
        TURNS,
        [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}],
        [{"role": "User", "content": ASKED}, {"role": "Assistant", "content": SAID}],
        [{"role": "system", "content": None}, *TURNS],
        [{"role": "user", "content": [{"type": "text", "text": ASKED}]}, TURNS[1]],
        [TURNS[0], {"role": "assistant", "content": [{"type": "output_text", "text": SAID}]}],
        [TURNS[0], TURNS[1] | {"weight": 1, "tool_calls": None, "name": None, "refusal": None}],
        json.dumps(TURNS),
        str(TURNS),
        {"role": ["user", "assistant"], "content": [ASKED, SAID]},
    ],
)
@pytest.mark.parametrize("column", ["messages", "conversations", "Messages"])
def test_every_spelling_of_two_turns_reads_alike(tmp_path: Path, turns: Any, column: str) -> None:
    assert said(only(tmp_path, {"id": 1, column: turns})) == (ASKED, SAID)


def test_parts_of_a_content_are_joined_by_line_breaks(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "Look:"}, {"type": "text", "text": ASKED}]
    assert said(only(tmp_path, {"messages": [{"role": "user", "content": content}, TURNS[1]]}))[0] == f"Look:\n{ASKED}"


def test_a_name_in_a_turn_is_reported_as_not_used(tmp_path: Path) -> None:
    found = read_rows(tmp_path, {"messages": [TURNS[0] | {"name": "Ann"}, TURNS[1]]})
    assert list(found.notes.unused_columns) == ["messages.name"]


def test_questions_that_nobody_answers_at_the_end_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read_rows(tmp_path, {"messages": [*TURNS, {"role": "user", "content": "Thanks"}]})
    assert said(found.records[0]) == (ASKED, SAID)
    assert found.tally.parts_dropped == {"unanswered_turn": 1}


LAST = {"role": "assistant", "content": "It is 4.1."}
REFUSED = {
    "a call of a tool": ([TURNS[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}, LAST], "tool"),
    "a turn of a tool": ([TURNS[0], {"role": "tool", "content": "4.1"}, LAST], "'tool'"),
    "a function's turn": ([{"from": "human", "value": ASKED}, {"from": "observation", "value": "4.1"}, LAST], "tool"),
    "an old call": ([TURNS[0], {"role": "assistant", "content": "", "function_call": {"name": "lab"}}, LAST], "tool"),
    "an unknown role": ([{"role": "doctor", "content": ASKED}, LAST], "got 'doctor'"),
    "an image": ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, LAST], "image_url"),
    "no content": ([{"role": "user", "content": None}, LAST], "turn 1"),
    "an empty answer": ([TURNS[0], {"role": "assistant", "content": " "}], "turn 2"),
    "an answer of weight 0": ([TURNS[0], TURNS[1] | {"weight": 0}], "weight 0"),
    "a question alone": ([TURNS[0]], "last two turns"),
    "an answer alone": ([TURNS[1], TURNS[0]], "last two turns"),
    "no list": ("Hello", "expected a list"),
    "a turn of other keys": ([{"speaker": "user", "text": ASKED}], "role and content"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name_and_skipped_on_request(tmp_path: Path, case: str) -> None:
    turns, expected = REFUSED[case]
    with pytest.raises(DataError, match=r"rows\.jsonl:2") as caught:
        read_rows(tmp_path, {"messages": TURNS}, {"messages": turns})
    assert expected in str(caught.value) and ASKED not in str(caught.value)
    found = read_rows(tmp_path, {"messages": TURNS}, {"messages": turns}, skip_bad=True)
    assert len(found.records) == 1 and sum(found.tally.dropped.values()) == 1


def test_two_system_texts_that_differ_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds another"):
        only(tmp_path, {"system": "Be long.", "messages": [{"role": "system", "content": "Be brief."}, *TURNS]})


@pytest.mark.parametrize("key", ["reasoning", "thinking"])
def test_a_reasoning_in_an_earlier_turn_stops_the_reading_until_it_is_ignored(tmp_path: Path, key: str) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", key: "Think."},
            *TURNS,
        ]
    }
    with pytest.raises(DataError, match=rf"messages\.{key}"):
        only(tmp_path, row)
    assert said(only(tmp_path, row, ignore_columns=(key,)))[-2:] == (ASKED, SAID)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [TURNS[0], TURNS[1] | {"reasoning_content": "Think."}]},
        {"messages": [TURNS[0], TURNS[1] | {"thinking": "Think."}, {"role": "user", "content": "Thanks"}]},
        {"prompt": ASKED, "completion": SAID, "reasoning": "Think."},
        {"instruction": ASKED, "output": SAID, "thinking": "Think."},
    ],
)
def test_the_reasoning_before_the_last_answer_is_kept(tmp_path: Path, row: dict[str, Any]) -> None:
    record = only(tmp_path, row)
    assert said(record) == (ASKED, SAID) and record.reasoning == "Think."


def test_an_instruction_is_a_turn_so_that_the_base_s_template_writes_it(tmp_path: Path) -> None:
    assert only(tmp_path, {"instruction": ASKED, "output": SAID}).in_turns
    assert not only(tmp_path, {"prompt": ASKED, "completion": SAID}).in_turns

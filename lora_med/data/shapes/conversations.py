"""Conversations: the messages of OpenAI and the turns of ShareGPT; the last answer is trained.

    {"role": system|developer|user|assistant, "content": text, or parts [{"type": "text", "text": ...}]}
    {"from": system|human|gpt, "value": text}

Turns of tools and calls of tools are refused by name. Questions at the end that nobody answers are left out, counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lora_med.data.record import Pair
from lora_med.data.shapes.columns.cells import checked_text, is_blank, parsed
from lora_med.data.shapes.columns.row_columns import Row
from lora_med.data.shapes.reasoning import KEYS, last_reasoning
from lora_med.data.shapes.row_error import RowError

Turn = tuple[str, str]
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "assistant"),
}
TOOL_ROLES = (
    *("tool", "function", "observation", "function_call", "tool_call", "function_response", "tool_response"),
    *("tool_result", "ipython"),
)
CALLS = ("tool_calls", "function_call")
NAMED_KEYS = {"role", "from", "content", "value", *CALLS, "weight"}
TEXT_PARTS = ("text", "input_text", "output_text")
LONGEST_ROLE = 20


def messages(row: Row) -> Pair:
    """A conversation in one column."""
    name, value = row.called("messages"), row.get("messages")
    return conversation(row, read_turns(row, value, name), name, answer_reasoning(value, name))


def read_turns(row: Row, value: object, name: str) -> list[Turn]:
    """The turns of a list as `(role, content)`; a system turn without content is none.

    Raises:
        RowError: a turn of another form, of a tool, with a part that is no text, or a dialogue side without content.
    """
    value = _as_list(parsed(value))
    if not isinstance(value, list):
        raise RowError("bad_type", f"{name}: expected a list of role and content, got {type(value).__name__}")
    turns: list[Turn] = []
    for number, turn in enumerate(value, 1):
        where = f"{name}, turn {number}"
        if not isinstance(turn, dict):
            raise RowError("bad_type", f"{where}: expected an object with role and content")
        role, content = _turn(turn, where)
        used = NAMED_KEYS | set(KEYS) if number == _last_answer(value) else NAMED_KEYS
        row.turn_keys.update(
            (f"{row.column('messages')}.{key}", inner)
            for key, inner in turn.items()
            if key not in used and not is_blank(inner)
        )
        if role == "system" and is_blank(content):
            continue
        turns.append((role, checked_text(content, where)))
    if value and isinstance(value[-1], dict) and value[-1].get("weight") == 0:
        raise RowError("weight_zero", f"{name}: the last answer has the weight 0: it is not to be trained")
    return turns


def _as_list(value: object) -> object:
    """A list of turns, of an object of lists too, as Arrow stores them: `{"role": [...], "content": [...]}`."""
    if not isinstance(value, dict) or not all(isinstance(inner, list) for inner in value.values()):
        return value
    lengths = {len(inner) for inner in value.values()}
    turns = zip(*value.values(), strict=True) if len(lengths) == 1 else ()
    return [dict(zip(value, turn, strict=True)) for turn in turns] or value


def _last_answer(turns: list[Any]) -> int:
    """The number of the assistant's last turn, from 1; 0 for none."""
    roles = (turn.get("role", turn.get("from")) if isinstance(turn, dict) else None for turn in turns)
    known = (ROLES.get(role.strip().casefold()) if isinstance(role, str) else None for role in roles)
    return max((number for number, role in enumerate(known, 1) if role == "assistant"), default=0)


def answer_reasoning(value: object, name: str) -> str:
    """The reasoning before the last answer; empty where there is none."""
    turns = _as_list(parsed(value))
    return last_reasoning(turns[: _last_answer(turns)], name) if isinstance(turns, list) else ""


def _turn(turn: dict[str, Any], where: str) -> tuple[str, Any]:
    role = turn.get("role", turn.get("from"))
    content = turn["content"] if "content" in turn else turn.get("value")
    if not isinstance(role, str) or not ("content" in turn or "value" in turn or any(map(turn.get, CALLS))):
        raise RowError("bad_type", f"{where}: expected an object with role and content, or with from and value")
    role = role.strip().casefold()
    called = next((call for call in CALLS if not is_blank(turn.get(call))), None)
    if role in TOOL_ROLES or called:
        what = f"the call of a tool ({called})" if called else f"the turn of a tool (role {role!r})"
        raise RowError(
            "tool_turn", f"{where}: {what} is not trained; leave such conversations out, or write it as text"
        )
    if role not in ROLES:
        shown = f", got {role!r}" if len(role) <= LONGEST_ROLE and role.isidentifier() else ""
        known = "system, user or assistant, or human and gpt"
        raise RowError("bad_type", f"{where}: expected the role to be {known}{shown}")
    return ROLES[role], _content(content, where)


def _content(content: Any, where: str) -> Any:
    """The text of a turn; parts that are texts are joined by line breaks."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for number, part in enumerate(content, 1):
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) else None
        if kind not in TEXT_PARTS or not isinstance(text, str):
            shown = f" of the type {kind!r}" if isinstance(kind, str) and len(kind) <= LONGEST_ROLE else ""
            raise RowError("bad_type", f"{where}: part {number}{shown} is no text; only text is trained")
        texts.append(text)
    return "\n".join(texts)


def with_system(row: Row, turns: Iterable[Turn], name: str) -> list[Turn]:
    """The turns with those of the column `system` before them.

    Raises:
        RowError: the conversation has another system turn.
    """
    turns = list(turns)
    system = row.optional("system")
    if not system.strip() or ("system", system) in turns:
        return turns
    if any(role == "system" for role, _ in turns):
        raise RowError("bad_type", f"{name}: a system turn, and {row.called('system')} holds another")
    return [("system", system), *turns]


def conversation(row: Row, turns: list[Turn], name: str, reasoning: str) -> Pair:
    """The conversation whose last answer is trained.

    Raises:
        RowError: no answer of the assistant's follows a user's turn at the end.
    """
    turns = with_system(row, turns, name)
    answered = max((number for number, (role, _) in enumerate(turns, 1) if role == "assistant"), default=0)
    if answered and all(role == "user" for role, _ in turns[answered:]):
        for _ in turns[answered:]:
            row.leave_out("unanswered_turn")
        turns = turns[:answered]
    if [role for role, _ in turns[-2:]] != ["user", "assistant"]:
        raise RowError("bad_type", f"{name}: expected the last two turns to be the user's and the assistant's")
    start = next(content for role, content in turns if role == "user")
    asked, answer, earlier = turns[-2][1], turns[-1][1], tuple(turns[:-2])
    return Pair(row.uid(), row.group(start), "custom", asked, answer, "", earlier, reasoning, in_turns=True)


def history(row: Row) -> list[Turn]:
    """The earlier turns in the column `history`: role and content, or pairs of a question and its answer."""
    if not row.has("history"):
        row.optional("history")
        return []
    name, value = row.called("history"), parsed(row.get("history"))
    if is_blank(value):
        return []
    if not (isinstance(value, list) and all(isinstance(pair, list) for pair in value)):
        return read_turns(row, value, name)
    turns: list[Turn] = []
    for number, pair in enumerate(value, 1):
        if len(pair) != 2:
            raise RowError("bad_type", f"{name}, item {number}: expected a question and its answer")
        turns += [
            (role, checked_text(text, f"{name}, item {number}"))
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    return turns

"""A conversation as the base's own chat template writes it, and which characters of it are trained.

The text is that of `tokenizer.apply_chat_template(messages)`, whatever the contents. There are two exceptions. Control
tokens that someone typed into a content stay ordinary text: `Encoder.typed` says which. A template that ends an answer
without a control token gets the end of text after the last answer.

Where an answer is, is proved and not guessed. It begins where generation begins: at the end of the turns before it,
rendered with the generation prompt. If its content follows as it is, it ends there. Else the conversation is rendered
again with another content in the answer's place: what is equal at the end comes after the answer. A later conversation
with as many turns whose text ends in its answer and the same is not rendered again. If the text does not begin as
generation does, as with a template that opens each new answer with `<think>`, the answer begins where the two
renderings first differ.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.data.formats.placeholders import TAG_WITH_SPACE
from lora_med.errors import DataError, LoraMedError, SettingsError
from lora_med.prompts.encoder import Encoder, Offsets
from lora_med.prompts.row import Row

MARKS = range(0xE000, 0xF8FF)  # characters for private use, of which those that the contents lack are taken
PRIVATE = re.compile("[\ue000-\uf8ff]")
Stretch = tuple[int, int]
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A rendered conversation: its text, the trained stretches of it, and the stretches in these that are not trained.

    `before` and `after` are the marks around each control token that was typed; `needs_eos` is true if no control token
    ends the last answer.
    """

    text: str
    before: str
    after: str
    trained: tuple[Stretch, ...] = ()
    untrained: tuple[Stretch, ...] = ()
    needs_eos: bool = False

    @property
    def has_marks(self) -> bool:
        """Whether control tokens were typed into the contents."""
        return self.before in self.text or self.after in self.text


def render_conversation(row: Row, encoder: Encoder) -> Conversation:
    """The conversation of `row`, whose last turn is the assistant's.

    Raises:
        SettingsError: the base's tokenizer has no chat template.
        DataError: the template refuses the turns, leaves the answer out, or has no place for its reasoning.
    """
    before, after, other = _marks(row)
    messages = _messages(row, encoder, before, after)
    text = _apply(encoder, messages, row)
    if row.reasoning and text == _apply(encoder, [*messages[:-1], _without_reasoning(messages[-1])], row):
        raise DataError(
            f"record {row.uid} has reasoning before its answer, and the base's chat template does not write it",
            where="data.template",
            fix="put it into the answer as the base writes it (<think>...</think>), or give a template of your own "
            "that writes reasoning_content: model.chat_template=FILE",
        )
    last = len(messages) - 1
    wanted = [turn for turn in range(last) if row.assistant_turns == "all" and messages[turn]["role"] == "assistant"]
    answers = [_answer(turn, messages, text, other, row, encoder) for turn in (*wanted, last)]
    untrained = tuple(
        (start + found.start(), start + found.end())
        for start, content_end, _ in answers
        for found in TAG_WITH_SPACE.finditer(text[start:content_end])
    )
    needs_eos = answers[-1][2] < 0
    trained = tuple((start, len(text) if end < 0 else end) for start, _, end in answers)
    return Conversation(text, before, after, trained, untrained, needs_eos)


def render_start(row: Row, encoder: Encoder) -> Conversation:
    """The turns of `row` before its last, with the template's generation prompt: what an answer is generated from.

    Raises:
        SettingsError, DataError: as `render_conversation`.
    """
    before, after, _ = _marks(row)
    messages = _messages(row, encoder, before, after)
    return Conversation(_apply(encoder, messages[:-1], row, start=True), before, after)


def encode_conversations(
    conversations: Sequence[Conversation], encoder: Encoder
) -> Iterator[tuple[list[int], list[bool]]]:
    """The ids of each conversation and its label mask; the end of text is added where it is needed."""
    unmarked = iter(encoder.with_offsets([found.text for found in conversations if not found.has_marks]))
    for found in conversations:
        ids, offsets = _by_pieces(found, encoder) if found.has_marks else next(unmarked)
        mask = _mask(offsets, found)
        if found.needs_eos:
            yield ids + encoder.eos, [*mask, True]
        else:
            yield ids, mask


def _mask(offsets: Offsets, found: Conversation) -> list[bool]:
    """A token is trained if it holds a character of a trained stretch and none of an untrained one."""
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    mask = [False] * len(offsets)
    for stretches, trained in ((found.trained, True), (found.untrained, False)):
        for start, end in stretches:
            first, last = bisect_right(ends, start), bisect_left(starts, end)
            mask[first:last] = [trained] * max(0, last - first)
    return mask


def _by_pieces(found: Conversation, encoder: Encoder) -> tuple[list[int], Offsets]:
    """Ids and characters where control tokens were typed: each of them alone, as text, and what is between them."""
    ids: list[int] = []
    offsets: Offsets = []
    place, typed = 0, False
    for piece in _split(found):
        if piece in (found.before, found.after):
            typed = piece == found.before
        elif typed:
            numbers = encoder.after(piece)
            ids += numbers
            offsets += [(place, place + len(piece))] * len(numbers)
        elif piece:
            numbers, characters = encoder.continued(piece) if ids else encoder.with_offsets([piece])[0]
            ids += numbers
            offsets += [(place + start, place + end) for start, end in characters]
        place += len(piece)
    return ids, offsets


def _split(found: Conversation) -> Iterator[str]:
    """The text in pieces at its marks, the marks among them."""
    for number, outer in enumerate(found.text.split(found.before)):
        if number:
            yield found.before
        for inner_number, inner in enumerate(outer.split(found.after)):
            if inner_number:
                yield found.after
            yield inner


def _marks(row: Row) -> tuple[str, str, str]:
    """Three characters that no content holds."""
    used = {mark for text in (*(content for _, content in row.turns), row.reasoning) for mark in PRIVATE.findall(text)}
    before, after, other = itertools.islice((chr(code) for code in MARKS if chr(code) not in used), 3)
    return before, after, other


def _messages(row: Row, encoder: Encoder, before: str, after: str) -> list[Message]:
    messages: list[Message] = [
        {"role": role, "content": encoder.marked(content, before, after)} for role, content in row.turns
    ]
    if row.reasoning:
        messages[-1]["reasoning_content"] = encoder.marked(row.reasoning, before, after)
    return messages


def _without_reasoning(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "reasoning_content"}


def _apply(encoder: Encoder, messages: Sequence[Message], row: Row, *, start: bool = False) -> str:
    tokenizer = encoder.tokenizer
    if not tokenizer.chat_template:
        raise SettingsError(
            "the base's tokenizer has no chat template",
            where="data.template",
            fix="choose a template without turns, such as pubmedqa or pair, a base tuned for chat, or a template of "
            "your own: model.chat_template=FILE",
        )
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=start)
    except LoraMedError:  # it exceeds the limits, for every record alike
        raise
    except Exception as error:  # a template is a program of its own: whatever it raises, it refuses these turns
        roles = ", ".join(str(message["role"]) for message in messages)
        raise DataError(
            f"the base's chat template refuses the record {row.uid} with the turns {roles}{_reason(error, tokenizer)}",
            where="data.template",
            fix="some templates accept no system turn and need user and assistant to alternate: change the turns, set "
            "data.skip_bad=true, or give a template of your own: model.chat_template=FILE",
        ) from error


def _reason(error: Exception, tokenizer: Any) -> str:
    """The template's own words, if they are in the template: anything else may quote a content."""
    words = str(error)
    return f": {words}" if words and words in str(tokenizer.chat_template) else f" ({type(error).__name__})"


def _answer(
    turn: int, messages: list[Message], text: str, other: str, row: Row, encoder: Encoder
) -> tuple[int, int, int]:
    """Where the answer of `turn` begins in `text`, where its content ends, and where the token that ends it ends.

    The last is -1 if no control token follows the last answer. Of an earlier answer without one, it is where the
    content ends.
    """
    is_last, content = turn == len(messages) - 1, messages[turn]["content"]
    start = _start(messages[:turn], text, row, encoder)
    if is_last and start is not None and content and text.startswith(content, start):
        content_end = start + len(content)  # it is there as it is: no other rendering is needed
        closing = text[content_end:]
    elif (
        is_last
        and start is not None
        and (known := _known_closing(start, content, text, encoder.closings.get(turn))) is not None
    ):
        closing = known
        content_end = len(text) - len(closing)
    else:
        exchanged = [*messages[:turn], {"role": "assistant", "content": other}, *messages[turn + 1 :]]
        common, closing = _around(exchanged, turn, text, other, row, encoder)
        content_end = len(text) - len(closing)
        start = min(common, content_end) if start is None or start > content_end else start
        if is_last:
            encoder.closings[turn] = closing
        else:
            alone = _apply(encoder, exchanged[: turn + 1], row)
            closing = closing[: _common(closing, alone[alone.rfind(other) + 1 :])]
    ending = encoder.typed.search(closing) if encoder.typed else None
    if ending is None:
        return start, content_end, -1 if is_last else content_end
    return start, content_end, content_end + ending.end()


def _known_closing(start: int, content: str, text: str, closing: str | None) -> str | None:
    """`closing`, which an earlier rendering proved, if `text` ends in the answer as it is and in it; else None."""
    if closing is None or not content or not text.endswith(content + closing):
        return None
    return closing if start + len(content) + len(closing) <= len(text) else None


def _around(exchanged: list[Message], turn: int, text: str, other: str, row: Row, encoder: Encoder) -> tuple[int, str]:
    """How much of `text` comes before the answer of `turn`, and what comes after it, by another answer in its place."""
    exchanged_text = _apply(encoder, exchanged, row)
    place = exchanged_text.rfind(other)
    closing = exchanged_text[place + 1 :]
    if place < 0 or not text.endswith(closing):
        raise DataError(
            f"the base's chat template leaves out the assistant's answer in turn {turn + 1} of record {row.uid}, or "
            "writes the turns after it by its content",
            where="data.template",
            fix="another base, or a template of your own: model.chat_template=FILE",
        )
    return _common(text, exchanged_text), closing


def _start(messages: list[Message], text: str, row: Row, encoder: Encoder) -> int | None:
    """Where generation after `messages` begins in `text`; None if it begins with something else."""
    try:
        start = _apply(encoder, messages, row, start=True)
    except DataError:  # a template may refuse turns without their answer
        return None
    return len(start) if text.startswith(start) else None


def _common(text: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text.startswith(other[:middle]) else (low, middle - 1)
    return low

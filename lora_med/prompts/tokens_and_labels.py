"""Rows to tokens, the same for training, scoring and generation: what generation starts from is what training saw.

Four guarantees. There is exactly one BOS, if the tokenizer adds one. The last trained token of a row ends generation.
Data that looks like a control token (`</s>`, `<|im_end|>`) stays ordinary text. A typed tag that replaces an identifier
(data/formats/placeholders.py) is shown to the model and never trained.

A conversation is what the base's own chat template makes of it (prompts/conversation.py); the template decides on BOS
and on what follows the last trained token. Conversations of version 1 put contents between segments of the template.

A completion is encoded together with its prompt, as an inference engine continues it, if the prompt's own tokens are a
prefix of the result. Otherwise it is encoded separately and appended. The prompt's tokens never depend on the answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.data.formats.placeholders import TAG, TAG_WITH_SPACE
from lora_med.prompts.chat import Skeleton, TemplateSegment
from lora_med.prompts.conversation import encode_conversations, render_conversation, render_start
from lora_med.prompts.encoder import Encoder
from lora_med.prompts.row import Row, TooLong

BATCH_ROWS = 512


@dataclass(frozen=True, slots=True)
class Tokens:
    """A row's token ids and its label mask, `trained`: one boolean for each token; both lists are equally long.

    `running` is true for plain text. Only plain text may be cut into chunks, best at `breaks` (token positions). `bos`
    is true if the first token is the BOS. `too_long` is the action for a row that is too long, and `lost` the number
    of context tokens that the row has already lost.
    """

    uid: str
    input_ids: list[int]
    trained: list[bool]
    running: bool = False
    bos: bool = False
    breaks: tuple[int, ...] = ()
    too_long: TooLong = "error"
    lost: int = 0

    @property
    def answer_end(self) -> int:
        """The number of tokens up to the last trained one, included; a template may write a line break after it."""
        return next((index + 1 for index in reversed(range(len(self.trained))) if self.trained[index]), 0)

    @property
    def targets(self) -> Sequence[int]:
        """The label of each token: the token itself."""
        return self.input_ids


def _skeleton(row: Row, encoder: Encoder) -> Skeleton:
    """The chat template's text around the turns of a row of version 1."""
    return encoder.skeleton(tuple(role for role, _ in row.turns))


def _fill(segments: Iterable[TemplateSegment], row: Row) -> str:
    return "".join(segment.text if segment.turn is None else row.turns[segment.turn][1] for segment in segments)


def _with_bos(encoder: Encoder, ids: list[int]) -> list[int]:
    return ids if not encoder.bos or ids[:1] == encoder.bos else encoder.bos + ids


def _prompts(rows: Sequence[Row], encoder: Encoder) -> list[list[int]]:
    """For each row the ids before its completion, without BOS unless a chat template wrote it."""
    ids_by_row: list[list[int]] = [[] for _ in rows]
    prompted_rows = [index for index, row in enumerate(rows) if row.prompt and not row.turns]
    prompts = list(
        dict.fromkeys(rows[index].prompt for index in prompted_rows)
    )  # the options of a question share a prompt
    encoded = dict(zip(prompts, encoder.ordinary(prompts), strict=True))
    for index in prompted_rows:
        ids_by_row[index] = encoded[rows[index].prompt]
    safe: list[tuple[int, str]] = []
    for index, row in enumerate(rows):
        if row.turns:
            if any(encoder.has_control(content) for _, content in row.turns[:-1]):
                ids_by_row[index] = _piecewise(_skeleton(row, encoder).prompt, row, encoder)
            else:
                safe.append((index, _fill(_skeleton(row, encoder).prompt, row)))
    for (index, _), ids in zip(safe, encoder.raw([text for _, text in safe]), strict=True):
        ids_by_row[index] = ids
    return ids_by_row


def _piecewise(segments: Sequence[TemplateSegment], row: Row, encoder: Encoder) -> list[int]:
    ids: list[int] = []
    for segment in segments:
        ids += encoder.raw([segment.text])[0] if segment.turn is None else encoder.after(row.turns[segment.turn][1])
    return ids


def _batch(rows: Sequence[Row], encoder: Encoder) -> list[Tokens]:
    by_base = [row for row in rows if row.by_base]
    conversations = encode_conversations([render_conversation(row, encoder) for row in by_base], encoder)
    others = iter(_by_segments([row for row in rows if not row.by_base], encoder))
    tokens: list[Tokens] = []
    for row in rows:
        if row.by_base:
            ids, trained = next(conversations)
            bos = bool(encoder.bos) and ids[:1] == encoder.bos
            tokens.append(Tokens(row.uid, ids, trained, bos=bos, too_long=row.too_long))
        else:
            tokens.append(next(others))
    return tokens


def _by_segments(rows: Sequence[Row], encoder: Encoder) -> list[Tokens]:
    """Tokens of texts, prompts, and conversations of version 1: contents between the segments of the template."""
    prompts = _prompts(rows, encoder)
    texts = [row.prompt + row.completion for row in rows if not row.turns]
    ordinary = iter(encoder.ordinary(texts))
    chats = [
        _fill((*_skeleton(row, encoder).prompt, *_skeleton(row, encoder).answer), row)
        for row in rows
        if row.turns and not any(encoder.has_control(content) for _, content in row.turns)
    ]
    safe_chats = iter(encoder.raw(chats))
    tokens: list[Tokens] = []
    for row, prompt in zip(rows, prompts, strict=True):
        if row.turns:
            safe = not any(encoder.has_control(content) for _, content in row.turns)
            encoded = next(safe_chats) if safe else []
        else:
            encoded = next(ordinary)
        tokens.append(_tokens(row, prompt, encoded, encoder))
    return tokens


def _tokens(row: Row, prompt: list[int], encoded: list[int], encoder: Encoder) -> Tokens:
    """The row's tokens, from the ids of its prompt and, if usable, the ids of prompt and completion together."""
    continues = len(encoded) > len(prompt) and encoded[: len(prompt)] == prompt
    if continues:
        completion = encoded[len(prompt) :]
    elif row.turns:
        completion = _piecewise(_skeleton(row, encoder).answer, row, encoder)
    else:
        completion = encoder.after(row.completion)
    if not row.turns or _skeleton(row, encoder).needs_eos:
        completion = completion + encoder.eos
    start = _with_bos(encoder, prompt)
    learned = [True] * len(completion)
    if TAG.search(row.completion):
        completion, learned = _around_tags(row, encoder)
    running = not (row.prompt or row.turns)
    trained = [False] * len(start) + learned
    bos = bool(encoder.bos) and start[:1] == encoder.bos
    return Tokens(row.uid, start + completion, trained, running, bos, too_long=row.too_long)


def _around_tags(row: Row, encoder: Encoder) -> tuple[list[int], list[bool]]:
    """The completion's tokens and label mask; typed tags are encoded separately.

    The template's text around the answer, and the end of text, are trained as usual.
    """
    lead, ending = _around_answer(row, encoder)
    completion_ids, learned = list(lead), [True] * len(lead)
    texts, tags = TAG_WITH_SPACE.split(row.completion), TAG_WITH_SPACE.findall(row.completion)
    pieces = [piece for both in itertools.zip_longest(texts, tags, fillvalue="") for piece in both]
    for number, text in enumerate(pieces):
        if text:
            starts = not completion_ids and not row.prompt and not row.turns
            ids = encoder.ordinary([text])[0] if starts else encoder.after(text)
            completion_ids += ids
            learned += [number % 2 == 0] * len(ids)
    return completion_ids + ending, learned + [True] * len(ending)


def _around_answer(row: Row, encoder: Encoder) -> tuple[list[int], list[int]]:
    if not row.turns:
        return [], encoder.eos
    skeleton = _skeleton(row, encoder)
    position = next(position for position, segment in enumerate(skeleton.answer) if segment.turn is not None)
    ending = _piecewise(skeleton.answer[position + 1 :], row, encoder)
    return _piecewise(skeleton.answer[:position], row, encoder), ending + (encoder.eos if skeleton.needs_eos else [])


def tokenize_rows(rows: Iterable[Row], tokenizer: Any) -> list[Tokens]:
    """The tokens of each row, many at once; see `tokenize`."""
    encoder = Encoder(tokenizer)
    items = list(rows)
    return [
        tokens
        for start in range(0, len(items), BATCH_ROWS)
        for tokens in _batch(items[start : start + BATCH_ROWS], encoder)
    ]


def tokenize(row: Row, tokenizer: Any) -> Tokens:
    """A row's tokens. The completion and the token that ends it are trained; in plain text, all tokens but BOS.

    The last token ends generation: the end of text, or in a conversation the template's end of turn.

    Raises:
        SettingsError: no end-of-text token, or for a conversation no chat template or one that refuses its turns.
    """
    return _batch([row], Encoder(tokenizer))[0]


def prompt_ids(row: Row, tokenizer: Any) -> list[int]:
    """The ids that generation starts from: BOS, then the prompt or the conversation up to the answer.

    These are the first tokens of `tokenize(row, tokenizer)`, whatever the completion. In a conversation that the base's
    own template renders, they are what `apply_chat_template` gives with its generation prompt.
    """
    return start_ids(row, Encoder(tokenizer))


def start_ids(row: Row, encoder: Encoder) -> list[int]:
    """What `prompt_ids` returns, by an encoder that serves many rows."""
    if row.by_base:
        return next(encode_conversations([render_start(row, encoder)], encoder))[0]
    return _with_bos(encoder, _prompts([row], encoder)[0])

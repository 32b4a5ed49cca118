"""Rows to tokens, the same for training, scoring and generation: what generation starts from is what training saw.

Four guarantees. There is exactly one BOS, if the tokenizer adds one. A row ends in a token that ends generation, and
that token is trained. Data that looks like a control token (`</s>`, `<|im_end|>`) stays ordinary text. A typed tag that
replaces an identifier (data/formats/placeholders.py) is shown to the model and never trained.

A completion is encoded together with its prompt, as an inference engine continues it, if the prompt's own tokens are a
prefix of the result. Otherwise it is encoded separately and appended. The prompt's tokens never depend on the answer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lora_med.data.formats.placeholders import TAG, TAG_WITH_SPACE
from lora_med.errors import SettingsError
from lora_med.prompts.chat import Skeleton, TemplateSegment, skeleton
from lora_med.prompts.control_tokens import control_pattern, folding
from lora_med.prompts.row import Row, TooLong

BATCH_ROWS = 512
PARALLEL_TEXTS = 64


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
    def targets(self) -> Sequence[int]:
        """The label of each token: the token itself."""
        return self.input_ids


@contextlib.contextmanager
def _on_all_cores(texts: int) -> Iterator[None]:
    """Let the tokenizers library use every core for a large batch; else stay off, to be safe with forks."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    if texts < PARALLEL_TEXTS or before != "false":
        yield
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = before


class Encoder:
    """A tokenizer with the facts that every row needs, computed once."""

    def __init__(self, tokenizer: Any) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = tokenizer
        self.control = control_pattern(tokenizer)
        self._fold, self._folded = folding(tokenizer, self.control)
        plain = getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus
        self._backend = tokenizer.backend_tokenizer if plain else None
        self._control_ids = set(tokenizer.convert_tokens_to_ids(self._control_words()))
        start = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
        bos_id = tokenizer.bos_token_id
        self.bos: list[int] = start if bos_id is not None and start == [bos_id] else []
        self._skeletons: dict[tuple[str, ...], Skeleton] = {}

    def _control_words(self) -> list[str]:
        if self.control is None:
            return []
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values()]
        return [word for word in {*added, *self.tokenizer.all_special_tokens} if self.control.fullmatch(word)]

    @property
    def eos(self) -> list[int]:
        """The end of text.

        Raises:
            SettingsError: the tokenizer has none.
        """
        if self.tokenizer.eos_token_id is None:
            raise SettingsError(
                "the base's tokenizer has no end-of-text token, so a model could not learn to stop",
                where="model.base",
                fix="set eos_token in the tokenizer's files",
            )
        return [self.tokenizer.eos_token_id]

    def raw(self, texts: Sequence[str], *, split: bool = False) -> list[list[int]]:
        """Ids of texts; control tokens in them count as such, unless `split`. No BOS, no end."""
        if not texts:
            return []
        if self._backend is not None:  # the same numbers, without the objects the tokenizer makes around them
            self._backend.no_truncation()
            self._backend.no_padding()
            self._backend.encode_special_tokens = split
            with _on_all_cores(len(texts)):
                return [found.ids for found in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        return self.tokenizer(
            list(texts),
            add_special_tokens=False,
            split_special_tokens=split,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]

    def has_control(self, text: str) -> bool:
        """Whether something in a text would be taken for a control token."""
        if self.control is None or self.control.search(text):
            return self.control is not None
        return self._fold is not None and self._folded.search(self._fold(text)) is not None

    def ordinary(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts of the data, in which nothing is a control token."""
        plain = [not self.has_control(text) for text in texts]
        encoded = iter(self.raw([text for text, ok in zip(texts, plain, strict=True) if ok]))
        return [next(encoded) if ok else self._split(text) for text, ok in zip(texts, plain, strict=True)]

    def _split(self, text: str) -> list[int]:
        ids = self.raw([text], split=True)[0]
        cuts = [match.start() + 1 for match in self.control.finditer(text)] if self.control else []
        if not cuts or self._control_ids.isdisjoint(ids):
            return ids
        # The tokenizer still matches added tokens that are not special: split each in two so that it cannot.
        pieces = [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
        return self.raw(pieces[:1], split=True)[0] + [number for piece in pieces[1:] for number in self.after(piece)]

    def after(self, text: str) -> list[int]:
        """Ids of a data text that continues another, without the space that some tokenizers add at a text's start."""
        for anchor in ("\n", "a", "."):
            head, together = self.raw([anchor, anchor + text], split=True)
            if together[: len(head)] == head and self._control_ids.isdisjoint(together):
                return together[len(head) :]
        return self._split(text)

    def skeleton(self, row: Row) -> Skeleton:
        """The chat template's text around this row's turns."""
        roles = tuple(role for role, _ in row.turns)
        if roles not in self._skeletons:
            self._skeletons[roles] = skeleton(self.tokenizer, roles, self.control)
        return self._skeletons[roles]


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
                ids_by_row[index] = _piecewise(encoder.skeleton(row).prompt, row, encoder)
            else:
                safe.append((index, _fill(encoder.skeleton(row).prompt, row)))
    for (index, _), ids in zip(safe, encoder.raw([text for _, text in safe]), strict=True):
        ids_by_row[index] = ids
    return ids_by_row


def _piecewise(segments: Sequence[TemplateSegment], row: Row, encoder: Encoder) -> list[int]:
    ids: list[int] = []
    for segment in segments:
        ids += encoder.raw([segment.text])[0] if segment.turn is None else encoder.after(row.turns[segment.turn][1])
    return ids


def _batch(rows: Sequence[Row], encoder: Encoder) -> list[Tokens]:
    prompts = _prompts(rows, encoder)
    texts = [row.prompt + row.completion for row in rows if not row.turns]
    ordinary = iter(encoder.ordinary(texts))
    chats = [
        _fill((*encoder.skeleton(row).prompt, *encoder.skeleton(row).answer), row)
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
        completion = _piecewise(encoder.skeleton(row).answer, row, encoder)
    else:
        completion = encoder.after(row.completion)
    if not row.turns or encoder.skeleton(row).needs_eos:
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
    skeleton = encoder.skeleton(row)
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

    These are the first tokens of `tokenize(row, tokenizer)`, whatever the completion.
    """
    encoder = Encoder(tokenizer)
    return _with_bos(encoder, _prompts([row], encoder)[0])

"""Rows to tokens, the same for training, scoring and generation: what generation starts from is what training saw.

Four promises. There is exactly one BOS, where the tokenizer adds one. A row ends in a token that ends generation, and
that token is trained. Text of the data that looks like a control token (`</s>`, `<|im_end|>`) stays ordinary text. A
typed tag where an identifier was taken out (data/formats/placeholders.py) is shown and never trained.

A completion is encoded together with its prompt, as an inference engine continues it, wherever the prompt's own tokens
are a prefix of that; otherwise after the prompt's tokens. Either way the prompt's tokens never depend on the answer.
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
from lora_med.prompts.chat import Part, Skeleton, skeleton
from lora_med.prompts.control_tokens import control_pattern, folding
from lora_med.prompts.row import Row, TooLong

BATCH_ROWS = 512
PARALLEL_TEXTS = 64


@dataclass(frozen=True, slots=True)
class Tokens:
    """A row's token ids, and for each whether it is trained; both lists are equally long.

    `running` is true for plain text, which alone may be cut into chunks, best at `breaks` (places of tokens); `bos`
    where the first token is the BOS. `too_long` says what to do where it is, and `lost` how many tokens of its context
    a row has lost already.
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
        """What each trained token is to be known as: itself."""
        return self.input_ids


@contextlib.contextmanager
def _on_all_cores(texts: int) -> Iterator[None]:
    """Let the tokenizers library use every core for a large batch; otherwise it stays off, for forks' sake."""
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
    """A tokenizer with what is asked of it for every row, asked once."""

    def __init__(self, tokenizer: Any) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = tokenizer
        self.control = control_pattern(tokenizer)
        self._fold, self._folded = folding(tokenizer, self.control)
        plain = getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus
        self._backend = tokenizer.backend_tokenizer if plain else None
        self._control_ids = set(tokenizer.convert_tokens_to_ids(self._control_words()))
        start = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
        known = tokenizer.bos_token_id
        self.bos: list[int] = start if known is not None and start == [known] else []
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
        """Ids of the data's texts, in which nothing is a control token."""
        plain = [not self.has_control(text) for text in texts]
        encoded = iter(self.raw([text for text, ok in zip(texts, plain, strict=True) if ok]))
        return [next(encoded) if ok else self._split(text) for text, ok in zip(texts, plain, strict=True)]

    def _split(self, text: str) -> list[int]:
        ids = self.raw([text], split=True)[0]
        found = [match.start() + 1 for match in self.control.finditer(text)] if self.control else []
        if not found or self._control_ids.isdisjoint(ids):
            return ids
        # Added tokens that are not special are found even so: cut each one in two, so that it cannot be.
        parts = [text[start:end] for start, end in itertools.pairwise([0, *found, len(text)])]
        return self.raw(parts[:1], split=True)[0] + [number for part in parts[1:] for number in self.after(part)]

    def after(self, text: str) -> list[int]:
        """Ids of a data text that goes on from another: without the space some tokenizers put before a text's start."""
        for anchor in ("\n", "a", "."):
            head, whole = self.raw([anchor, anchor + text], split=True)
            if whole[: len(head)] == head and self._control_ids.isdisjoint(whole):
                return whole[len(head) :]
        return self._split(text)

    def skeleton(self, row: Row) -> Skeleton:
        """The chat template's text around this row's turns."""
        roles = tuple(role for role, _ in row.turns)
        if roles not in self._skeletons:
            self._skeletons[roles] = skeleton(self.tokenizer, roles, self.control)
        return self._skeletons[roles]


def _fill(parts: Iterable[Part], row: Row) -> str:
    return "".join(part.text if part.turn is None else row.turns[part.turn][1] for part in parts)


def _with_bos(encoder: Encoder, ids: list[int]) -> list[int]:
    return ids if not encoder.bos or ids[:1] == encoder.bos else encoder.bos + ids


def _prompts(rows: Sequence[Row], encoder: Encoder) -> list[list[int]]:
    """For each row the ids of what comes before its completion, without BOS unless a chat template wrote it."""
    found: list[list[int]] = [[] for _ in rows]
    pairs = [place for place, row in enumerate(rows) if row.prompt and not row.turns]
    prompts = list(dict.fromkeys(rows[place].prompt for place in pairs))  # the options of a question share theirs
    known = dict(zip(prompts, encoder.ordinary(prompts), strict=True))
    for place in pairs:
        found[place] = known[rows[place].prompt]
    safe: list[tuple[int, str]] = []
    for place, row in enumerate(rows):
        if row.turns:
            if any(encoder.has_control(content) for _, content in row.turns[:-1]):
                found[place] = _piecewise(encoder.skeleton(row).prompt, row, encoder)
            else:
                safe.append((place, _fill(encoder.skeleton(row).prompt, row)))
    for (place, _), ids in zip(safe, encoder.raw([text for _, text in safe]), strict=True):
        found[place] = ids
    return found


def _piecewise(parts: Sequence[Part], row: Row, encoder: Encoder) -> list[int]:
    ids: list[int] = []
    for part in parts:
        ids += encoder.raw([part.text])[0] if part.turn is None else encoder.after(row.turns[part.turn][1])
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
    found: list[Tokens] = []
    for row, prompt in zip(rows, prompts, strict=True):
        if row.turns:
            safe = not any(encoder.has_control(content) for _, content in row.turns)
            whole = next(safe_chats) if safe else []
        else:
            whole = next(ordinary)
        found.append(_tokens(row, prompt, whole, encoder))
    return found


def _tokens(row: Row, prompt: list[int], whole: list[int], encoder: Encoder) -> Tokens:
    """The row's tokens from its prompt's ids and, where they may be used, those of prompt and completion together."""
    together = len(whole) > len(prompt) and whole[: len(prompt)] == prompt
    if together:
        completion = whole[len(prompt) :]
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
    """The completion's tokens with typed tags encoded on their own, and for each whether it is trained.

    What a chat template puts around the answer, and the end of text, are trained as ever.
    """
    lead, ending = _around_answer(row, encoder)
    found, learned = list(lead), [True] * len(lead)
    texts, tags = TAG_WITH_SPACE.split(row.completion), TAG_WITH_SPACE.findall(row.completion)
    pieces = [piece for both in itertools.zip_longest(texts, tags, fillvalue="") for piece in both]
    for number, text in enumerate(pieces):
        if text:
            starts = not found and not row.prompt and not row.turns
            ids = encoder.ordinary([text])[0] if starts else encoder.after(text)
            found += ids
            learned += [number % 2 == 0] * len(ids)
    return found + ending, learned + [True] * len(ending)


def _around_answer(row: Row, encoder: Encoder) -> tuple[list[int], list[int]]:
    if not row.turns:
        return [], encoder.eos
    skeleton = encoder.skeleton(row)
    place = next(place for place, part in enumerate(skeleton.answer) if part.turn is not None)
    ending = _piecewise(skeleton.answer[place + 1 :], row, encoder)
    return _piecewise(skeleton.answer[:place], row, encoder), ending + (encoder.eos if skeleton.needs_eos else [])


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
    """A row's tokens. Trained are the completion and the token that ends it; for plain text all but BOS.

    The last token ends generation: the end of text, or in a conversation the template's end of turn.

    Raises:
        SettingsError: no end-of-text token, or for a conversation no chat template or one that refuses its turns.
    """
    return _batch([row], Encoder(tokenizer))[0]


def prompt_ids(row: Row, tokenizer: Any) -> list[int]:
    """What generation starts from: BOS, and the prompt or the conversation up to where the answer begins.

    These are the first tokens of `tokenize(row, tokenizer)`, whatever the completion.
    """
    encoder = Encoder(tokenizer)
    return _with_bos(encoder, _prompts([row], encoder)[0])

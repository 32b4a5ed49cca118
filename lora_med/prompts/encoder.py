"""Encoder: a tokenizer with the facts that every row needs, computed once, and texts encoded as data or as template."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from lora_med.errors import SettingsError
from lora_med.prompts.chat import Skeleton, skeleton
from lora_med.prompts.control_tokens import control_pattern, folding, typed_pattern

PARALLEL_TEXTS = 64
ANCHORS = ("\n", "a", ".")
Offsets = list[tuple[int, int]]


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


def _ready(backend: Any, *, split: bool) -> None:
    """Let the backend encode whole texts; with `split`, special tokens in them are text."""
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = split


class Encoder:
    """A tokenizer with the facts that every row needs, computed once.

    `control` matches its control tokens in a text. `typed` matches those that stay ordinary text in a conversation that
    the base's own template renders. `closings` are what its template was proved to write after a last answer, by the
    number of turns before it.
    """

    def __init__(self, tokenizer: Any) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = tokenizer
        self.control = control_pattern(tokenizer)
        self.typed = typed_pattern(tokenizer)
        self._fold, self._folded = folding(tokenizer, self.control)
        _, self._typed_folded = folding(tokenizer, self.typed)
        plain = getattr(type(tokenizer), "_encode_plus", None) is PreTrainedTokenizerFast._encode_plus
        self._backend = tokenizer.backend_tokenizer if plain else None
        self._control_ids = set(tokenizer.convert_tokens_to_ids(self._control_words()))
        start = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
        bos_id = tokenizer.bos_token_id
        self.bos: list[int] = start if bos_id is not None and start == [bos_id] else []
        self._skeletons: dict[tuple[str, ...], Skeleton] = {}
        self.closings: dict[int, str] = {}

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
            _ready(self._backend, split=split)
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

    def with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], Offsets]]:
        """Ids of texts as `raw` gives them, and the characters of each token."""
        if not texts:
            return []
        if self._backend is not None:
            _ready(self._backend, split=False)
            with _on_all_cores(len(texts)):
                encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
            return [(encoding.ids, encoding.offsets) for encoding in encodings]
        try:
            encoded = self.tokenizer(
                list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
            )
        except NotImplementedError as error:
            raise SettingsError(
                "the base's tokenizer does not say which characters a token holds, so the answers of a conversation "
                "cannot be marked",
                where="model.base",
                fix="a base with a tokenizer.json, or data.template=pair_chat",
            ) from error
        return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))

    def has_control(self, text: str) -> bool:
        """Whether something in a text would be taken for a control token."""
        if self.control is None or self.control.search(text):
            return self.control is not None
        return self._fold is not None and self._folded.search(self._fold(text)) is not None

    def marked(self, text: str, before: str, after: str) -> str:
        """A content with a mark before and after each control token typed in it.

        Where the tokenizer's normalizer makes a control token of something else, the marks are around the content.
        """
        if self.typed is None:
            return text
        if self._typed_folded is not None and self._typed_folded.search(self._fold(self.typed.sub(" ", text))):
            return f"{before}{text}{after}"
        return self.typed.sub(lambda found: f"{before}{found[0]}{after}", text)

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
        for anchor in ANCHORS:
            head, together = self.raw([anchor, anchor + text], split=True)
            if together[: len(head)] == head and self._control_ids.isdisjoint(together):
                return together[len(head) :]
        return self._split(text)

    def continued(self, text: str) -> tuple[list[int], Offsets]:
        """Ids and characters of a text that continues another; control tokens in it count as such."""
        for anchor in ANCHORS:
            (head, _), (ids, offsets) = self.with_offsets([anchor, anchor + text])
            if ids[: len(head)] == head:
                size = len(anchor)
                return ids[len(head) :], [(start - size, end - size) for start, end in offsets[len(head) :]]
        return self.with_offsets([text])[0]

    def skeleton(self, roles: tuple[str, ...]) -> Skeleton:
        """The chat template's text around turns of these roles."""
        if roles not in self._skeletons:
            self._skeletons[roles] = skeleton(self.tokenizer, roles, self.control)
        return self._skeletons[roles]

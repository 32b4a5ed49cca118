"""Identifiers by an adapter that tags words: beside the patterns, which see shapes, it sees what a sentence is about.

A long text is read in windows. Each begins with the end of the one before, so that no word is read without the words
before it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.open_tagger import load_opened_tagger
from lora_med.adapters.store.card import CARD
from lora_med.adapters.store.published import open_files
from lora_med.adapters.store.store import STORE, find_adapter
from lora_med.audit.identifiers import Finder, Identifier, Ranges, repeated_names, united
from lora_med.audit.word_tags import read_words, trimmed, words_of
from lora_med.data.formats.placeholders import TAG, TAGS
from lora_med.errors import SettingsError
from lora_med.prompts.entity_tags import OUTSIDE

SHIPPED = "deid-micro"
LEAST_LEAD = 0.0  # log-odds of a type against none, by the validation notes: docs/deidentification.md
WINDOW_LETTERS, CONTEXT_LETTERS = 300, 60
BATCH_TOKENS = 512  # on a CPU these stay in its caches
AFTER = "AFTER-"  # begins a type whose tag is on the word behind, which the model has read by then
SURE_LEAD, WEAK_LEAD = 2.0, -4.0  # where a word is surely a name once, the same word needs less elsewhere
NEXT_WITHIN = 100  # letters up to the word behind
MOST_CAPITALS = 0.9  # of the letters of a window; one with more is read in small letters
NO_WORD = "\n."  # in its place at the end of a text

Range = tuple[int, int]


@dataclass(frozen=True)
class Tagger:
    """Finds identifiers by the tags of an adapter; `least_lead` is the log-odds that a word needs."""

    name: str
    labels: tuple[str, ...]
    tokenizer: Any = field(repr=False)
    model: Any = field(repr=False)
    least_lead: float = LEAST_LEAD
    sure_lead: float = SURE_LEAD
    weak_lead: float = WEAK_LEAD

    def find(self, text: str) -> list[Identifier]:
        """The identifiers of a text, by offset; the placeholders in it are none."""
        words = words_of(text)
        return self.identifiers(text, words, self.read(text, words))

    def identifiers(self, text: str, words: Sequence[Range], tags: Sequence[tuple[float, str]]) -> list[Identifier]:
        """The identifiers of a text by what `read` gave for its words."""
        placeholders = Ranges(match.span() for match in TAG.finditer(text))
        folded = [text[slice(*trimmed(text, *word) or word)].casefold() for word in words]
        surest: defaultdict[str, float] = defaultdict(lambda: -math.inf)
        for name, (lead, kind) in zip(folded, tags, strict=True):
            if kind == "NAME":
                surest[name] = max(surest[name], lead)
        types = []
        for word, name, (lead, kind) in zip(words, folded, tags, strict=True):
            least = self.weak_lead if kind == "NAME" and surest[name] >= self.sure_lead else self.least_lead
            types.append(kind if lead >= least and not placeholders.overlap(*word) else "")
        return list(_joined(text, words, types))

    def read(self, text: str, words: Sequence[Range]) -> list[tuple[float, str]]:
        """For each word of a text its likeliest type, and by how much that leads "no identifier" in log-odds."""
        behind = any(label[2:].startswith(AFTER) for label in self.labels)
        windows = list(_windows(words))
        lines = [_line(text, words, begin, end, behind=behind) for begin, _, end in windows]
        scored = self._scored([_without_capitals(line) for line, _ in lines])
        read: list[tuple[float, str]] = []
        for (begin, first, end), (_, own_words), (offsets, scores) in zip(windows, lines, scored, strict=True):
            tags = read_words(own_words, offsets, scores, self.labels)
            read += tags[first - begin + behind : end - begin + behind]
        return [(lead, kind.removeprefix(AFTER)) for lead, kind in read]

    def _scored(self, pieces: Sequence[str]) -> list[tuple[list[Range], Any]]:
        """The offsets of each piece's tokens, and tokens x labels; pieces of one length are read together."""
        from lora_med.models.attention.row_logits import row_logits  # it loads torch

        coded = self.tokenizer(list(pieces), return_offsets_mapping=True) if pieces else {"input_ids": []}
        rows: list[list[int]] = coded["input_ids"]
        scored: list[Any] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
        while order:
            width = len(rows[order[0]])
            batch, order = order[: max(1, BATCH_TOKENS // width)], order[max(1, BATCH_TOKENS // width) :]
            logits = row_logits(self.model, [rows[number] for number in batch], self.tokenizer.pad_token_id)
            for number, scores in zip(batch, logits, strict=True):
                scored[number] = coded["offset_mapping"][number], scores.float().cpu().numpy()
        return scored


def with_tagger(find: Finder, tagger: Tagger) -> Finder:
    """A finder of what the patterns or the tagger find; a name that is found once is found everywhere in a text."""

    def find_all(text: str) -> list[Identifier]:
        found = [*find(text), *tagger.find(text)]
        return united(text, [*found, *repeated_names(text, found)])

    return find_all


def load_tagger_of_identifiers(name: str, store: Path | str = STORE, *, base: str | None = None) -> Tagger:
    """The tagger `name`: a folder with a card, an adapter of the store, or the one that ships.

    Raises:
        SettingsError: the adapter writes text, or tags something other than identifiers.
        InputMissingError: no such adapter, or its base is not here.
        BaseMismatchError, IntegrityError: the base or a file is another one.
    """
    adapter = open_files(_folder(name, store))
    types = {label[2:].removeprefix(AFTER) for label in adapter.card.labels if label != OUTSIDE}
    if types - set(TAGS):
        raise SettingsError(
            f"adapter {adapter.name!r} tags {', '.join(sorted(types - set(TAGS)))}: no kind of identifier",
            where="--model",
            fix=f"--model {SHIPPED}, or an adapter whose types are among {', '.join(TAGS)}",
        )
    opened, model = load_opened_tagger(adapter, base=base, dtype="float32")
    model = model if opened.quantization != "none" else model.merge_and_unload()  # a 4-bit layer would be rounded
    return Tagger(adapter.name, opened.labels, opened.tokenizer, model.eval())


def _folder(name: str, store: Path | str) -> Path:
    """The folder of an adapter: a path, else a name of the store, else the one that ships."""
    path = Path(name)
    if (path / CARD).is_file():
        return path
    if name == SHIPPED and not (Path(store) / name / CARD).is_file():
        return Path(str(files("lora_med") / "assets" / "deid" / "tagger"))
    return find_adapter(name, store)


def _windows(words: Sequence[Range]) -> Iterator[tuple[int, int, int]]:
    """`(begin, first, end)` of each window: its words, of which those from `first` on are read."""
    first = 0
    while first < len(words):
        begin = first
        while begin > 0 and words[first][0] - words[begin - 1][0] <= CONTEXT_LETTERS:
            begin -= 1
        end = first + 1
        while end < len(words) and words[end][1] - words[begin][0] <= WINDOW_LETTERS:
            end += 1
        yield begin, first, end
        first = end


def _line(text: str, words: Sequence[Range], begin: int, end: int, *, behind: bool) -> tuple[str, list[Range]]:
    """The text of a window and its words; `behind` adds the word behind it, or a mark where none is near."""
    start, last = words[begin][0], words[end - 1][1]
    own_words = [(word[0] - start, word[1] - start) for word in words[begin:end]]
    if not behind:
        return text[start:last], own_words
    if end < len(words) and words[end][0] - last <= NEXT_WITHIN:
        word = words[end]
        return text[start : word[1]], [*own_words, (word[0] - start, word[1] - start)]
    return text[start:last] + NO_WORD, [*own_words, (last - start + 1, last - start + len(NO_WORD))]


def _without_capitals(text: str) -> str:
    """A text in capitals in small letters, which the model knows better; a character that would get longer stays."""
    capitals = sum(character.isupper() for character in text)
    if capitals <= MOST_CAPITALS * sum(character.isalpha() for character in text):
        return text
    return "".join(small if len(small := character.lower()) == 1 else character for character in text)


def _joined(text: str, words: Sequence[Range], types: Sequence[str]) -> Iterator[Identifier]:
    """Words of one type that follow each other in a line, as one identifier."""
    number = 0
    while number < len(words):
        last = number
        while last + 1 < len(words) and types[last + 1] == types[number] and _in_line(text, words[last : last + 2]):
            last += 1
        if types[number] and (span := trimmed(text, words[number][0], words[last][1])):
            yield Identifier(*span, types[number])
        number = last + 1


def _in_line(text: str, pair: Sequence[Range]) -> bool:
    return "\n" not in text[pair[0][1] : pair[1][0]]

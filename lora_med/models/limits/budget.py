"""How much one rendering of a chat template may use: steps, characters made, processor time. Each use is counted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sized
from typing import Any

from lora_med.errors import IntegrityError

MOST_STEPS = 1_000_000  # of loops and calls
MOST_CHARACTERS = 64_000_000  # of text and lists made on the way, the result included
MOST_SECONDS = 3.0  # of processor time of the thread
ENTRY = 32  # characters that an entry of a list counts for
LARGEST_WIDTH = 100_000  # of a field or an indentation
MOST_BITS = 4096  # of an integer
STEP = MOST_CHARACTERS // MOST_STEPS
BETWEEN_LOOKS = 64 * STEP  # reading a thread's clock takes longer than a step
WIDE_FIELD = re.compile(r"\d{5,}")
FIELD_FROM_VALUE = re.compile(r"\*|\{[^}]*\{")
FIX = "use another base, or give a template of your own: model.chat_template=FILE"
_FILES: dict[str, str] = {}
_CURRENT = threading.local()


class Budget:
    """What is left for the rendering in progress in this thread, in characters; each step costs `STEP` besides."""

    __slots__ = ("end", "left", "next_look", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.left = MOST_CHARACTERS
        self.next_look = MOST_CHARACTERS - BETWEEN_LOOKS
        self.end = 0.0

    def spend(self, characters: int) -> None:
        """Count one step that makes this many characters or list entries.

        Raises:
            IntegrityError: a limit is exceeded; it names the template's file.
        """
        self.left -= characters + STEP
        if self.left < self.next_look:
            self._look()

    def _look(self) -> None:
        """Look at the clock, and whether anything is left. The time begins with the first look."""
        if self.left < 0:
            self.refuse(f"makes more than {MOST_CHARACTERS:,} characters or takes more than {MOST_STEPS:,} steps")
        now = time.thread_time()
        self.end = self.end or now + MOST_SECONDS
        if now > self.end:
            self.refuse(f"takes more than {MOST_SECONDS:g} seconds")
        self.next_look = self.left - BETWEEN_LOOKS

    def refuse(self, what: str) -> None:
        """Raise the error that stops the rendering."""
        raise IntegrityError(f"the chat template {what} for one conversation", where=file_of(self.source), fix=FIX)


def name_template(text: Any, file: str) -> None:
    """Remember the file that holds a template's text, for errors; other values than a text are ignored."""
    if isinstance(text, str) and text:
        _FILES[text] = file


def file_of(source: str) -> str:
    """The file that holds a template; text may stand before it."""
    found = _FILES.get(source)
    return found or next((file for text, file in _FILES.items() if source.endswith(text)), "the chat template")


def begin(source: str) -> None:
    """Begin a rendering in this thread."""
    _CURRENT.budget = Budget(source)


def current() -> Budget:
    """The budget of the rendering in progress in this thread."""
    try:
        return _CURRENT.budget
    except AttributeError:  # a template's part is called outside a rendering
        begin("")
        return _CURRENT.budget


def weight(value: Any, most: int = MOST_CHARACTERS) -> int:
    """Characters and entries in a value, nested ones each time they occur; counting stops soon after `most`."""
    total, waiting = 0, [value]
    while waiting and total <= most:
        item = waiting.pop()
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, Mapping):
            total += 2 * ENTRY * len(item)
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            total += ENTRY * len(item)
            waiting += item
        else:
            total += ENTRY * len(item) if isinstance(item, Sized) else 1
    return total


def formatted(text: str, values: Iterable[Any], mark: str) -> int:
    """The most characters that a format string makes; a width of five digits, also from a value, is refused."""
    values = list(values)
    large = any(isinstance(one, int) and abs(one) > LARGEST_WIDTH for one in values)
    if WIDE_FIELD.search(text) or (large and FIELD_FROM_VALUE.search(text)):
        current().refuse("formats a field of more than 10,000 characters")
    return len(text) + text.count(mark) * (weight(values) + 10_000 * len(re.findall(r"\d{4}|\*|\{[^}]*\{", text)))


def replaced(text: str, old: str, new: str) -> int:
    """The characters that str.replace makes."""
    return len(text) + text.count(old) * len(new)


def split_size(text: Any, separators: Any) -> int:
    """The size of the list that str.split makes at the separators; None stands for white space."""
    pieces = len(text) // 2 if separators is None else sum(map(text.count, filter(None, separators)))
    return len(text) + ENTRY * pieces


def joined(separator: str, values: Any) -> int:
    """The characters that str.join makes."""
    return weight(values) + len(values) * len(separator)


def check_integer(value: Any, most: int = LARGEST_WIDTH) -> None:
    """Refuse a width, a count or an indentation that no template needs."""
    if isinstance(value, int) and abs(value) > most:
        current().refuse(f"asks for a width or a count of more than {most:,}")

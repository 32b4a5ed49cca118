"""A set and a table of millions of numbers in about ten bytes each; Python's own take sixty to a hundred and more."""

from __future__ import annotations

from array import array
from bisect import bisect_left

PART_BITS = 14
PAGE_BITS = 12
PAGE = (1 << PAGE_BITS) - 1
NONE = -1


class DigestSet:
    """A set of numbers of 64 bits that are spread evenly, as digests are; about nine bytes each."""

    def __init__(self) -> None:
        self._parts: list[array[int] | None] = [None] * (1 << PART_BITS)

    def __contains__(self, number: int) -> bool:
        part = self._parts[number >> (64 - PART_BITS)]
        if part is None:
            return False
        position = bisect_left(part, number)
        return position < len(part) and part[position] == number

    def add(self, number: int) -> None:
        """Put the number into the set."""
        index = number >> (64 - PART_BITS)
        part = self._parts[index]
        if part is None:
            self._parts[index] = array("Q", [number])
            return
        position = bisect_left(part, number)
        if position == len(part) or part[position] != number:
            part.insert(position, number)


class NumberTable:
    """Number -> number, none of them negative; about eleven bytes for each entry where keys are near each other."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[array[int], array[int]]] = {}  # keys within the page, sorted, and their values

    def get(self, key: int) -> int:
        """The number of the key, -1 for none."""
        page = self._pages.get(key >> PAGE_BITS)
        if page is None:
            return NONE
        position = bisect_left(page[0], key & PAGE)
        return page[1][position] if position < len(page[0]) and page[0][position] == key & PAGE else NONE

    def __setitem__(self, key: int, value: int) -> None:
        keys, values = self._pages.setdefault(key >> PAGE_BITS, (array("H"), array("q")))
        position = bisect_left(keys, key & PAGE)
        if position < len(keys) and keys[position] == key & PAGE:
            values[position] = value
        else:
            keys.insert(position, key & PAGE)
            values.insert(position, value)

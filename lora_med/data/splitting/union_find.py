"""Things that belong together because they are linked, directly or through others (a union-find)."""

from __future__ import annotations

from collections import defaultdict
from typing import Generic, TypeVar

Thing = TypeVar("Thing", int, str)


class Links(Generic[Thing]):
    """Sets that grow together; of each set the smallest leads, whatever the order of the links."""

    def __init__(self) -> None:
        self._leader: dict[Thing, Thing] = {}

    def leader(self, one: Thing) -> Thing:
        """The smallest of all that `one` is linked with; itself if with nothing."""
        while (above := self._leader.get(one, one)) != one:
            self._leader[one] = self._leader[above]
            one = above
        return one

    def join(self, one: Thing, other: Thing) -> None:
        """Link the two."""
        first, second = sorted((self.leader(one), self.leader(other)))
        self._leader.setdefault(first, first)
        self._leader[second] = first

    def sets(self) -> list[list[Thing]]:
        """What belongs together, two or more each, sorted."""
        found: dict[Thing, list[Thing]] = defaultdict(list)
        for one in sorted(self._leader):
            found[self.leader(one)].append(one)
        return [members for members in found.values() if len(members) > 1]

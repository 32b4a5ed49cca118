"""Things that belong together because they are linked, directly or through others (a union-find)."""

from __future__ import annotations

from collections import defaultdict
from typing import Generic, TypeVar

Thing = TypeVar("Thing", int, str)


class Links(Generic[Thing]):
    """Sets that grow together; of each set the smallest leads, whatever the order of the links."""

    def __init__(self) -> None:
        self._leader: dict[Thing, Thing] = {}

    def leader(self, item: Thing) -> Thing:
        """The smallest of the items linked with `item`; `item` itself if there are none."""
        while (above := self._leader.get(item, item)) != item:
            self._leader[item] = self._leader[above]
            item = above
        return item

    def join(self, item: Thing, other: Thing) -> None:
        """Link the two."""
        first, second = sorted((self.leader(item), self.leader(other)))
        self._leader.setdefault(first, first)
        self._leader[second] = first

    def sets(self) -> list[list[Thing]]:
        """What belongs together, two or more each, sorted."""
        members_of: dict[Thing, list[Thing]] = defaultdict(list)
        for item in sorted(self._leader):
            members_of[self.leader(item)].append(item)
        return [members for members in members_of.values() if len(members) > 1]

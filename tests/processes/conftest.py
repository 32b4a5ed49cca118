"""After each test of several machines, none of their processes is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.processes.machines import STARTED


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        STARTED.pop().kill()

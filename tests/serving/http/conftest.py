"""Two servers for the whole session: one without keys, one with keys, an admin key and short times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.conftest import OPEN, put, train
from tests.serving.conftest import Place
from tests.serving.http.server import Server, serving

KEYS = ("first-key-of-sixteen-letters", "other-key-of-sixteen-letters")
ADMIN_KEY = "admin-key-of-sixteen-letters"
PERMISSION = "Dr. Weber allows it, 3 May 2026"


@pytest.fixture(scope="session")
def open_server(llama_place: Place) -> Iterator[Server]:
    with serving(llama_place) as server:
        yield server


@pytest.fixture(scope="session")
def guarded_place(llama_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The adapters again in a store that tests may change, with two more.

    `secret` learned from credentialed data; `overflow` gives logits that are not finite.
    """
    import shutil

    import torch

    store = Path(shutil.copytree(llama_place.store, tmp_path_factory.mktemp("guarded") / "store"))
    place = Place(llama_place.folder, store)
    base = place.base()
    put(train(base, store=store, seed=9), base, "secret", store, data=replace(OPEN, access="credentialed"))
    model = train(place.base(), store=store, seed=10)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_B" in name:
                values.fill_(1e30)  # finite, and so published; the logits are not
    put(model, place.base(), "overflow", store)
    return place


@pytest.fixture(scope="session")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The options that name the files of keys."""
    folder = tmp_path_factory.mktemp("keys")
    for name, keys in (("api", KEYS), ("admin", (ADMIN_KEY,))):
        (folder / name).write_text("# for tests\n\n" + "\n".join(keys) + "\n")
        (folder / name).chmod(0o600)
    return ["--api-key-file", str(folder / "api"), "--admin-key-file", str(folder / "admin")]


@pytest.fixture(scope="session")
def guarded_server(guarded_place: Place, key_files: list[str]) -> Iterator[Server]:
    """With keys, bodies of at most 16 KiB, clients that have 1 s, and a queue of two for each key."""
    options = [*key_files, "--permission", PERMISSION, "--max-body", "0.016", "--client-seconds", "3"]
    options += ["--max-batch", "1", "--max-per-key", "2", "--max-queue", "3", "--max-connections", "300"]
    with serving(guarded_place, *options, names=("a", "b", "secret"), key=KEYS[0]) as server:
        yield server

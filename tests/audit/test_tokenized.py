"""Tokens are text to whoever has the tokenizer: of credentialed data none stay on disk, unless the settings say so."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from lora_med.adapters.store.store import WEIGHTS
from lora_med.errors import PreflightError, StoppedError
from lora_med.training.preparation.prepared_names import FOLDER
from lora_med.training.rows.token_cache import delete_cached
from tests.audit.test_private import CANARY, everything, modes, notes, train
from tests.tiny import make_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("base"), context=4096)


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All caches of the process, in the folder that is searched."""
    folder = tmp_path / "work" / "caches"
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_DATASETS_CACHE", "TMPDIR"):
        (folder / name).mkdir(parents=True)
        monkeypatch.setenv(name, str(folder / name))
    return folder


def numbers(value: Any) -> Iterator[list[int]]:
    """Every list of whole numbers in a JSON value."""
    if isinstance(value, dict):
        yield from chain.from_iterable(map(numbers, value.values()))
    elif isinstance(value, list):
        if value and all(isinstance(each, int) for each in value):
            yield value
        yield from chain.from_iterable(numbers(each) for each in value if isinstance(each, dict | list))


def as_list(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def arrays(path: Path) -> Iterator[Iterable[int]]:
    """The whole numbers in a file, whatever its format: NumPy, Arrow, Parquet, safetensors, JSON; else its bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from safetensors.torch import load_file

    content = path.read_bytes()
    if path.suffix in (".npz", ".npy"):
        held = np.load(path, allow_pickle=False)
        yield from (held[name].ravel().tolist() for name in held) if path.suffix == ".npz" else [held.ravel().tolist()]
    elif content[:4] == b"PK\x03\x04":
        state = torch.load(path, weights_only=False)  # of the test's own run
        yield from numbers(json.loads(json.dumps(state, default=as_list)))
    elif path.suffix == ".safetensors":
        yield from (one.flatten().tolist() for one in load_file(path).values() if not one.is_floating_point())
    elif content[:4] == b"PAR1" or path.suffix == ".arrow":
        table = pq.read_table(path) if content[:4] == b"PAR1" else pa.ipc.open_stream(content).read_all()
        yield from numbers(table.to_pylist())
    else:
        for line in content.splitlines():
            try:
                yield from numbers(json.loads(line))
            except ValueError:
                continue
        for width in (np.uint16, np.int32, np.int64):  # raw token shards
            yield np.frombuffer(content[: len(content) // 8 * 8], width).tolist()


def decoded(folder: Path, base: Path) -> str:
    """Everything below a folder that a tokenizer turns into text."""
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    lists = (values for path in sorted(folder.rglob("*")) if path.is_file() for values in arrays(path))
    return "\n".join(tokenizer.decode([each for each in values if 0 <= each < size]) for values in lists)


def test_no_token_of_credentialed_notes_stays(base: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    train(base, work, notes(tmp_path))
    assert CANARY not in decoded(work, base) and CANARY.encode() not in everything(work)
    assert not (work / "run" / FOLDER).exists()


def test_what_is_kept_on_purpose_decodes_and_is_the_owners_alone(base: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    train(base, work, notes(tmp_path), "train.keep_tokenized=true")
    assert len(list((work / "run" / FOLDER).glob("*.rows.arrow"))) == 2
    assert CANARY in decoded(work, base)
    assert modes(work / "run") == {0o700, 0o600}


def test_the_next_run_deletes_what_an_earlier_one_kept(base: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    train(base, work, notes(tmp_path), "train.keep_tokenized=true")
    (work / "run" / FOLDER / ".a.npz.12345678.tmp").write_bytes(b"torn")
    train(base, work, notes(tmp_path), "adapter.overwrite=true")
    assert not (work / "run" / FOLDER).exists() and CANARY not in decoded(work, base)


class StopAtFirstStep(logging.Handler):
    """Sends this process the signal of a scheduler when the first step is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("step 1 of"):
            signal.raise_signal(signal.SIGTERM)


def test_a_run_that_stops_leaves_no_token_and_resumes_bit_identical(base: Path, tmp_path: Path) -> None:
    source, work = notes(tmp_path), tmp_path / "work"
    whole = train(base, tmp_path / "whole", source, "train.max_steps=4")
    logger, handler = logging.getLogger("lora_med.training.run.callbacks"), StopAtFirstStep()
    logger.addHandler(handler)
    try:
        with pytest.raises(StoppedError):
            train(base, work, source, "train.max_steps=4")
    finally:
        logger.removeHandler(handler)
    assert list((work / "run").glob("checkpoint-*")) and CANARY not in decoded(work, base)
    again = train(base, work, source, "train.max_steps=4")
    assert (again / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert CANARY not in decoded(work, base)


def test_a_run_that_fails_leaves_no_token(base: Path, tmp_path: Path) -> None:
    with pytest.raises(PreflightError):
        train(base, tmp_path / "work", notes(tmp_path), "train.max_length=16", "train.too_long=error")
    assert CANARY not in decoded(tmp_path / "work", base)


def test_only_our_files_are_deleted(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in ("a.npz", ".a.npz.0123abcd.tmp", "mine.txt"):
        (folder / name).write_text("x")
    delete_cached(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    delete_cached(tmp_path / "nowhere")

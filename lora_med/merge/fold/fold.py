"""W + scale * B A, folded into safetensors files as a stream: fp32 sums, one rounding, a few megabytes of memory.

The kernel copies bytes that do not change. Blocks of rows are folded in parallel, one a core. The arithmetic and its
order are PEFT's (`merge_and_unload`), so a plain LoRA comes out bit-identical. Nothing is rounded twice, and the base
is never held in memory.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from lora_med.adapters.tensors.expert_update import ExpertUpdates
from lora_med.errors import IntegrityError
from lora_med.files import disk_errors, write_json
from lora_med.merge.fold.dequantized_values import dequantized_values_of
from lora_med.merge.fold.merge_plan import Output, Plan
from lora_med.merge.fold.row_blocks import (
    Folding,
    Scratch,
    blocks,
    final_dtype,
    folded,
    load,
    squares,
    touches,
    with_factor,
)
from lora_med.merge.fold.streaming_digest import FileDigest
from lora_med.models.files.weight_files import BITS, INDEX, SINGLE, open_descriptor

NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
COPY_BYTES = 1 << 26
SYNC_BYTES = 1 << 28  # written between two syncs, so that the last sync is short
MOST_WORKERS = 4
Advance = Callable[[int], None]
Task = Callable[[], int]


def fold(plan: Plan, out: Path, *, dtype: str | None = None, advance: Advance = lambda size: None) -> dict[Path, str]:
    """Write the merged weights into the folder `out`, in as many files as the base has; returns each file's SHA-256.

    Args:
        dtype: `float32`, `bfloat16` or `float16` for every floating tensor; None keeps each tensor's own.
        advance: called with the number of bytes of each write.

    Raises:
        IntegrityError: a merged value is not finite; for float16 that can be a weight over 65504.
        OutputError, DiskError: the folder cannot be written, or the disk is full.
    """
    name = None if dtype is None else NAMES[dtype]
    by_file: dict[Path, list[Output]] = {}
    for output in sorted(plan.outputs.values(), key=lambda output: (output.offset, output.name)):
        by_file.setdefault(output.file, []).append(output)
    written: dict[Path, FileDigest] = {}
    index: dict[str, str] = {}
    with torch.inference_mode(), _Workers() as workers:
        for number, (_, outputs) in enumerate(sorted(by_file.items()), 1):
            shard = SINGLE if len(by_file) == 1 else f"model-{number:05d}-of-{len(by_file):05d}.safetensors"
            with disk_errors(out / shard):
                written[out / shard] = _fold_file(outputs, out / shard, name, workers, advance)
            index |= dict.fromkeys((output.name for output in outputs), shard)
        with disk_errors(out):
            workers.finish()
            digests = {path: digest.hexdigest() for path, digest in written.items()}
    if len(digests) > 1:
        write_json(
            out / INDEX,
            {"metadata": {"total_size": size_after(plan, dtype)}, "weight_map": dict(sorted(index.items()))},
        )
    return digests


def size_after(plan: Plan, dtype: str | None = None) -> int:
    """The bytes of all merged tensors, without the files' headers."""
    name = None if dtype is None else NAMES[dtype]
    return sum(_size(output, name) for output in plan.outputs.values())


class _Workers:
    """One thread a core, each computing on one core: small blocks keep all busy. One more syncs, one hashes."""

    def __init__(self) -> None:
        self.before = torch.get_num_threads()
        self.pool = ThreadPoolExecutor(min(MOST_WORKERS, self.before), initializer=torch.set_num_threads, initargs=(1,))
        self.syncing, self.hashing = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.synced: list[Future[None]] = []

    def sync(self, descriptor: int) -> None:
        """Sync an open file to the disk, while the next blocks are folded."""
        self.synced.append(self.syncing.submit(_sync, os.dup(descriptor)))

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *raised: object) -> None:
        self.pool.shutdown()
        self.syncing.shutdown()
        self.hashing.shutdown(cancel_futures=True)
        torch.set_num_threads(self.before)

    def finish(self) -> None:
        """Wait until all is on the disk.

        Raises:
            OSError: a file cannot be synced.
        """
        for future in self.synced:
            future.result()


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(output: Output, dtype: str | None) -> int:
    return math.prod(output.shape) * BITS[final_dtype(output, dtype)] // 8


def _header(outputs: list[Output], dtype: str | None) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for output in outputs:
        size = _size(output, dtype)
        entry = {
            "dtype": final_dtype(output, dtype),
            "shape": list(output.written_shape or output.shape),
            "data_offsets": [offset, offset + size],
        }
        entries[output.name] = entry
        offset += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text


def _fold_file(
    outputs: list[Output], target: Path, dtype: str | None, workers: _Workers, advance: Advance
) -> FileDigest:
    with ExitStack() as stack:
        stored_in = {output.source.file: output.source for output in outputs}
        sources = {path: stack.enter_context(open_descriptor(stored)).fileno() for path, stored in stored_in.items()}
        out = stack.enter_context(open(target, "wb"))
        header = _header(outputs, dtype)
        out.write(header)
        out.flush()
        out.truncate(len(header) + sum(_size(output, dtype) for output in outputs))
        digest, complete_bytes = FileDigest(target, workers.hashing), len(header)
        futures: list[Future[int]] = []
        unsynced = 0
        try:
            futures += map(
                workers.pool.submit, _tasks(outputs, sources, out.fileno(), len(header), dtype, workers.pool)
            )
            for future in futures:
                advance(future.result())
                unsynced += future.result()
                complete_bytes += future.result()  # tasks end in any order; results are read by offset
                digest.upto(complete_bytes)
                if unsynced > SYNC_BYTES:
                    workers.sync(out.fileno())
                    unsynced = 0
        finally:  # no worker may hold a file that is closed
            for future in futures:
                future.cancel()
            wait(futures)
        workers.sync(out.fileno())
        digest.upto(complete_bytes)
    return digest


def _tasks(
    outputs: Iterable[Output],
    sources: dict[Path, int],
    out: int,
    offset: int,
    dtype: str | None,
    pool: ThreadPoolExecutor,
) -> Iterator[Task]:
    """All tasks for one file; they are independent of each other."""
    scratch, experts = Scratch(), ExpertUpdates()
    for output in outputs:
        source, size = sources[output.source.file], _size(output, dtype)
        if touches(output, dtype):
            folding = _after_first_pass(load(output, experts), source, scratch, pool)
            row = size // output.shape[0]
            for begin, end in blocks(output):
                yield _folding_task(folding, source, out, begin, end, offset + begin * row, dtype, scratch)
        else:
            for begin in range(0, size, COPY_BYTES):
                count = min(COPY_BYTES, size - begin)
                yield _copying_task(source, output.source.start + begin, out, offset + begin, count)
        offset += size


def _after_first_pass(folding: Folding, source: int, scratch: Scratch, pool: ThreadPoolExecutor) -> Folding:
    """The folding with what needs a first pass over the whole weight: its dequantized values, and DoRA's factor."""
    if folding.output.quantized is not None:
        folding = replace(folding, dequantized=dequantized_values_of(folding.output, source))
    if folding.update is None or folding.update.magnitude is None:
        return folding
    futures = [pool.submit(squares, source, folding, begin, end, scratch) for begin, end in blocks(folding.output)]
    parts = [future.result() for future in futures]
    sums = torch.stack(parts).sum(0) if folding.output.transposed else torch.cat(parts)
    return with_factor(folding, sums.sqrt())


def _folding_task(
    folding: Folding, source: int, out: int, begin: int, end: int, offset: int, dtype: str | None, scratch: Scratch
) -> Task:
    def task() -> int:
        with torch.inference_mode():
            rows = folded(source, folding, begin, end, final_dtype(folding.output, dtype), scratch)
            return _write(out, rows.reshape(-1).view(torch.uint8).numpy().data, offset)

    return task


def _write(out: int, data: memoryview, offset: int) -> int:
    done = 0
    while done < len(data):
        done += os.pwrite(out, data[done:], offset + done)
    return done


def _copying_task(source: int, begin: int, out: int, offset: int, count: int) -> Task:
    def task() -> int:
        done = 0
        while done < count:
            try:
                copied = os.copy_file_range(source, out, count - done, begin + done, offset + done)
            except OSError:  # two file systems, or one without this call
                copied = _write(
                    out, memoryview(os.pread(source, min(count - done, 1 << 22), begin + done)), offset + done
                )
            if not copied:
                raise IntegrityError("a file of the base became shorter while it was read", fix="merge again")
            done += copied
        return done

    return task

"""Work on many files by several processes, with results in the order of the files, as one process gives them.

A worker is a new Python process that imports nothing of the caller's main module, and no torch. So a script needs no
guard, and no state of the parent, such as threads, locks or a loaded model, is copied. Jobs and results go through
private pipes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from lora_med.run import prepare_environment

Job = TypeVar("Job")
Result = TypeVar("Result")
MOST_PROCESSES = 4  # each takes 100 MB and more
MOST_JOBS = 25  # of one worker, which then ends: what its libraries keep does not grow with the number of files
AHEAD = 2  # results for each process that may wait for their turn
START = "from lora_med.data.scanning.workers import serve; serve()"
logger = logging.getLogger(__name__)


def available_processes() -> int:
    """How many processes work on files: one for each core that this process of a launch may use, up to four."""
    launched = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_PROCESSES, len(os.sched_getaffinity(0)) // launched))


def in_order(work: Callable[[Job], Result], jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    """`work(job)` for each job, in order; with several processes at most two results a process are computed ahead.

    `work` is a function of a module, and jobs and results can be pickled. An error is raised where the job's result
    would be, as with one process. If the iteration ends early, by Ctrl-C too, the workers are ended. The job of a
    worker that died is done in this process.
    """
    processes = min(processes, len(jobs))
    if processes < 2:
        yield from map(work, jobs)
        return
    waiting: deque[Future[Result]] = deque()
    rest = iter(jobs)
    with _Workers() as workers, ThreadPoolExecutor(processes) as threads:
        try:
            for job in rest:
                waiting.append(threads.submit(workers.run, work, job))
                if len(waiting) == AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            workers.end()


class _Workers:
    """One worker for each thread that asks for work."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: list[subprocess.Popen[bytes]] = []
        self._is_ended = False

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def run(self, work: Callable[[Job], Result], job: Job) -> Result:
        """The result of a job, from the worker of this thread."""
        worker = self._worker()
        try:
            is_done, value = exchange(worker, work, job)
        except (OSError, EOFError, pickle.UnpicklingError):
            if self._is_ended:
                raise
            logger.warning("a process that read files ended (status %s): this process does its work", worker.wait())
            self._own.worker = None
            return work(job)
        self._own.jobs += 1
        if self._own.jobs == MOST_JOBS and worker.stdin is not None:
            worker.stdin.close()
            self._own.worker = None
        if is_done:
            return cast(Result, value)
        raise value

    def _worker(self) -> subprocess.Popen[bytes]:
        worker = getattr(self._own, "worker", None)
        if worker is None:
            with self._lock:
                if self._is_ended:
                    raise EOFError
                worker = self._own.worker = start_worker()
                self._own.jobs = 0
                self._all.append(worker)
        return worker

    def end(self) -> None:
        """End all workers now."""
        with self._lock:
            self._is_ended = True
            for worker in self._all:
                worker.kill()
            for worker in self._all:
                worker.wait()


def exchange(worker: subprocess.Popen[bytes], work: Callable[[Any], Any], job: Any) -> tuple[bool, Any]:
    """Whether the worker did the job, and the result or else the error.

    Raises:
        OSError, EOFError, pickle.UnpicklingError: the worker ended.
    """
    assert worker.stdin is not None and worker.stdout is not None
    pickle.dump((work, job), worker.stdin, protocol=pickle.HIGHEST_PROTOCOL)
    worker.stdin.flush()
    return pickle.load(worker.stdout)


def start_worker() -> subprocess.Popen[bytes]:
    """A new Python process that works on what `exchange` sends it, until its input ends."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)  # what this process imports, a worker imports
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to all processes of a terminal's group: the parent alone decides
    )


def serve() -> None:
    """Work on jobs from standard input until it ends; what a worker is."""
    prepare_environment(offline=os.environ.get("HF_HUB_OFFLINE") == "1")
    # transformers loads torch wherever it is found, which takes more memory than reading and tokenizing.
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - Python's own mark for a module not to import
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            work, job = pickle.load(sys.stdin.buffer)
            replies.write(_reply(work, job))
            replies.flush()


def _reply(work: Callable[[Any], Any], job: Any) -> bytes:
    try:
        return pickle.dumps((True, work(job)))
    except Exception as error:
        try:
            pickle.loads(reply := pickle.dumps((False, error)))
        except Exception:
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
        return reply

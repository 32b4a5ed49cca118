"""A failure as text that travels between processes, and the file in which a launcher finds it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lora_med.errors import LoraMedError, StoppedError, bug
from lora_med.processes.launch import Place, own_place
from lora_med.processes.progress import Progress, Waiting

NONE = "-"  # of the failure that has not come
OWN_LAUNCHER = "LORA_MED_LAUNCHER"  # the process id of `lora-med train --processes`, which prints the error last

DISTRIBUTED_ERRORS = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")
BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "gloo/transport")


def as_error(error: BaseException) -> LoraMedError:
    """Any exception as one of ours; an unexpected one without its message, which may quote data."""
    if isinstance(error, LoraMedError):
        return error
    if isinstance(error, Exception):
        return bug(error)
    return StoppedError("interrupted between two steps of the run", fix="run the same command again")


def is_broken_connection(error: BaseException) -> bool:
    """Whether torch or the system reports that a collective operation lost another process."""
    if isinstance(error, ConnectionError) or type(error).__name__ in DISTRIBUTED_ERRORS:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in BROKEN)


def encode(error: LoraMedError, place: Place) -> str:
    """The failure of the process at `place`."""
    return json.dumps({"place": asdict(place), **error.as_json(), "kind": type(error).__name__})


def encode_gone(place: Place) -> str:
    """That the process at `place` was killed."""
    return json.dumps({"place": asdict(place), "kind": None})


def culprit(text: str) -> tuple[Place, bool]:
    """The place of an encoded failure, and whether the process there is gone."""
    content = json.loads(text)
    return Place(**content["place"]), content["kind"] is None


def decode(text: str) -> LoraMedError:
    """The error of another process, with its class and its exit code, and with its place in front of where it is."""
    content = json.loads(text)
    kinds = {kind.__name__: kind for kind in _kinds(LoraMedError)}
    where = ": ".join(str(part) for part in (Place(**content["place"]), content["where"]) if part is not None)
    return kinds.get(content["kind"], LoraMedError)(content["what"], where=where, fix=content["fix"])


def _kinds(kind: type[LoraMedError]) -> list[type[LoraMedError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in _kinds(child))]


def gone(place: Place, where: str, progress: Progress) -> StoppedError:
    """The error for a process that was killed or vanished, as a process that has come so far tells it."""
    return StoppedError(f"{place} is gone {reached(progress)}", where=where, fix=AGAIN)


def waited_too_long(wait: Waiting, where: str, progress: Progress) -> StoppedError:
    """The error for a process that does nothing and is not waited for any longer."""
    waited = f"waited {wait.seconds:.0f} s for {wait.place}, {wait.reason}, since {wait.since}"
    setting = "; train.peer_timeout sets how long a process waits" if progress.remains is None else ""
    return StoppedError(f"{waited}, {reached(progress)}", where=where, fix=f"{AGAIN}{setting}")


def reached(progress: Progress) -> str:
    """How far the run has come, and what of it remains."""
    if progress.remains is not None:
        return progress.remains
    after = f"after step {progress.step}" if progress.step else "before the first step"
    if progress.writing is not None:
        return f"{after}, while {progress.writing} was written; the same command goes on from what is whole"
    if progress.checkpoint is None:
        return f"{after}; there is no checkpoint yet; the same command starts again"
    return f"{after}; {progress.checkpoint} is whole; the same command goes on"


AGAIN = "run the same command again on every machine"


def is_shown_by(failed: Place, own: Place, is_gone: bool, places: Sequence[Place] = ()) -> bool:
    """Whether a process shows another's failure for this one: one does on each machine, the failed one if it can."""
    if not is_gone and failed.machine == own.machine:
        return True
    alive = [place.local_rank for place in places if place.machine == own.machine and place.rank != failed.rank]
    return own.local_rank != min(alive, default=0)


def leave_word(error: LoraMedError) -> bool:
    """Write the error where the launcher looks for it; True if the launcher is ours and prints it."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return False
    moment = {"timestamp": str(int(time.time()))}
    message = {"message": str(error), "errorCode": error.exit_code, "extraInfo": moment}
    content = {"message": message, "lora_med": encode(error, own_place()), "time": time.time()}
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps(content), encoding="utf-8")
        return os.environ.get(OWN_LAUNCHER) == str(os.getppid())  # it lives
    return False

"""The audit trail: what was pushed, served and purged, by whom and when; a JSON line before and one after each action.

Each line begins with the SHA-256 of the line before it, so a line that was changed or removed later is found. The last
lines can be cut off unseen, unless someone has noted a later hash. No text of a patient is ever in it.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.append_log import FIRST, append_line, complete_lines, line_hash
from lora_med.errors import InputMissingError, IntegrityError, LoraMedError, SettingsError

VARIABLE = "LORA_MED_AUDIT_TRAIL"
OFF = "off"
NOTED = re.compile("[0-9a-f]{16,64}")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trail:
    """The lines of a trail whose chain holds, and the hash of the last one."""

    lines: list[dict[str, Any]]
    head: str

    @property
    def unfinished(self) -> list[dict[str, Any]]:
        """The actions that began and have no end: they run still, or their process was killed."""
        ended = {line.get("id") for line in self.lines if line.get("state") != "begun"}
        return [line for line in self.lines if line.get("state") == "begun" and line.get("id") not in ended]


def trail_file() -> tuple[Path | None, bool]:
    """The file of the trail, None where it is switched off or there is no home; and whether the user named it."""
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return (None if named.lower() == OFF else Path(named)), True
    home = os.environ.get("HOME", "")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path(home, ".local", "state"))
    return (state / "lora_med" / "audit-trail.jsonl" if state.is_absolute() else None), False


def _record(action: str, state: str, action_id: str, **facts: Any) -> None:
    """Add a line; one that cannot be written is an error in a trail that the user named, and else a warning."""
    path, is_named = trail_file()
    if path is None:
        return
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "action": action,
        "state": state,
        "id": action_id,
        "user": _user(),
        "host": platform.node(),
        **facts,
    }
    try:
        if not is_named:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        append_line(path, line, is_chained=True)
    except (LoraMedError, OSError) as error:
        if is_named:
            raise
        logger.warning("%s is not in the audit trail: %s cannot be written (%s)", action, path, type(error).__name__)


@contextmanager
def recorded(action: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """A line before the block and one after it, with the facts that the block puts into the dictionary it gets.

    Without a trail that the user named, a line that cannot be written is a warning.

    Raises:
        DiskError, OutputError: a line of a named trail cannot be written; without the first one the block does not run.
    """
    action_id = uuid.uuid4().hex[:12]
    _record(action, "begun", action_id, **facts)
    found: dict[str, Any] = {}
    try:
        yield found
    except BaseException as error:
        code = error.code if isinstance(error, LoraMedError) else type(error).__name__
        state = "stopped" if isinstance(error, SystemExit | KeyboardInterrupt) else "failed"
        _record(action, state, action_id, error=code, **found)
        raise
    _record(action, "done", action_id, **found)


def read_trail(path: Path, holds: str | None = None) -> Trail:
    """The trail, after its chain was followed.

    Args:
        holds: the hash of a line that was noted earlier, in hex; its first 16 characters are enough.

    Raises:
        SettingsError: `holds` is no such hash.
        InputMissingError: there is no such file.
        IntegrityError: a line was changed, removed or added, or none has the hash `holds`.
    """
    if holds is not None and not NOTED.fullmatch(holds):
        raise SettingsError(f"{holds[:80]!r} is not a hash", where="holds", fix="16 to 64 characters of 0-9 and a-f")
    if not path.is_file():
        raise InputMissingError("no audit trail is here", where=str(path), fix=f"name its file, or set {VARIABLE}")
    before, lines, hashes = FIRST, [], []
    for number, content in enumerate(complete_lines(path), 1):
        try:
            line = json.loads(content)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            raise IntegrityError(f"line {number} is not JSON", where=str(path), fix="restore the file from a copy")
        if line.get("previous") != before:
            what = f"line {number} does not follow line {number - 1}: one of them was changed, or lines between removed"
            if number == 1:
                what = "the first line is not the first of a trail: those before it were removed, or it was changed"
            raise IntegrityError(what, where=str(path), fix="compare it with a copy; who can write this file?")
        before = line_hash(content)
        lines.append(line)
        hashes.append(before)
    if holds is not None and not any(one.startswith(holds) for one in hashes):
        raise IntegrityError(
            f"no line has the hash {holds[:16]}: lines at the end were removed or changed since it was noted",
            where=str(path),
            fix="compare it with a copy; who can write this file?",
        )
    return Trail(lines, before)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return str(os.getuid())

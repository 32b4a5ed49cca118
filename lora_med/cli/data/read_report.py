"""What `data read` prints: how many records were read and kept, and what was read from which column."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_med.cli.data.output_file import is_stdout
from lora_med.cli.terminal import print_text

if TYPE_CHECKING:
    from lora_med.data.outcome import Tally
    from lora_med.data.source import Source


def print_counts(
    row: Source, tally: Tally, columns: dict[str, Any], more: dict[str, Any], out: Path, *, as_json: bool
) -> None:
    """What was read, on standard error where the records are on standard output."""
    from lora_med.data.shapes.columns.accounting import columns_lines

    summary: dict[str, Any] = {"read": tally.read, "kept": tally.kept, "dropped": tally.dropped, **more}
    if tally.repeated:
        summary["repeated"] = tally.repeated
    if row.versions_articles:  # versions of one article are one, and a deleted one is none
        gone = sum(tally.dropped.get(reason, 0) for reason in ("superseded", "deleted", "bad"))
        summary["articles"] = tally.read - gone
    if columns["used"]:
        summary["columns"] = columns
    report = sys.stderr if is_stdout(out) else sys.stdout
    if as_json:
        print_text(json.dumps(summary | {"out": str(out)}), file=report)
        return
    articles = f" ({summary['articles']:,} articles)" if "articles" in summary else ""
    print_text("\n".join([f"{tally}{articles}", *columns_lines(columns), str(out)]), file=report)

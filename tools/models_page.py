"""python -m tools.models_page [--families NAME...] [--only-page]: try every family, and write docs/models.md.

Each cell is run on a tiny random base (tests/family_capabilities.py). The results are cached in runs/models/, so that
a killed run goes on; `--only-page` writes the page from them. `make models-page` does both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import lora_med

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN, END = "<!-- the table below is written by `make models-page` -->\n", "<!-- end of the table -->\n"
Results = Mapping[str, Mapping[str, str]]


def table(results: Results, capabilities: tuple[str, ...]) -> str:
    """The table with a row for each family, and below it the sentence of each `no`."""
    lines = ["| family | " + " | ".join(capabilities) + " |", "|---|" + "---|" * len(capabilities)]
    sentences: list[str] = []
    for family, cells in results.items():
        row = []
        for capability in capabilities:
            answer = cells.get(capability, "not run")
            if answer in ("yes", "not run") or answer.endswith("%"):
                row.append(answer)
                continue
            if answer not in sentences:
                sentences.append(answer)
            row.append(f"no [{sentences.index(answer) + 1}]")
        lines.append(f"| `{family}` | " + " | ".join(row) + " |")
    notes = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1)]
    return "\n".join([*lines, "", *notes, ""])


def write_page(results: Results, capabilities: tuple[str, ...]) -> None:
    """Put the table between its marks in the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(results, capabilities)}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Try the families that have no results yet, then write the page."""
    from tests.family_capabilities import CAPABILITIES, capabilities
    from tests.tiny_families import ALL

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="*", default=list(ALL))
    parser.add_argument("--only-page", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/models"))
    options = parser.parse_args()
    lora_med.prepare_environment(offline=True)
    options.work.mkdir(parents=True, exist_ok=True)
    for family in () if options.only_page else options.families:
        answers = options.work / f"{family}.json"
        if answers.is_file():
            continue
        folder = options.work / family
        shutil.rmtree(folder, ignore_errors=True)
        cells = capabilities(family, folder.resolve())
        answers.write_text(json.dumps(cells, indent=1))
        shutil.rmtree(folder)
        sys.stderr.write(f"{family}: {cells}\n")
    found = {family: options.work / f"{family}.json" for family in ALL}
    write_page({family: json.loads(path.read_text()) for family, path in found.items() if path.is_file()}, CAPABILITIES)


if __name__ == "__main__":
    main()

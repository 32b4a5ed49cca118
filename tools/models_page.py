"""python -m tools.models_page [--families NAME...] [--only-page | --only-gguf]: try every family, write docs/models.md.

Each cell is run on a tiny random base (tests/family_capabilities.py), and on families with routed experts a second time
with `lora.target_experts=true`. The results are cached in runs/models/, so that a killed run goes on; `--only-page`
writes the page from them. `make models-page` does both. The column of GGUF needs llama.cpp's converter and the packages
of lora-med[gguf]. Without them, and for families that are not tried, the page's own answers stay. `--only-gguf` runs
that column alone.
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
BEGIN_EXPERTS = "<!-- the table of routed experts is written by `make models-page` -->\n"
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


def write_page(results: Results, capabilities: tuple[str, ...], begin: str = BEGIN) -> None:
    """Put the table between its marks in the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{begin}\n{table(results, capabilities)}\n{END}{after}", encoding="utf-8")


def read_page(begin: str = BEGIN) -> dict[str, dict[str, str]]:
    """Family -> column -> answer, as the page has them now."""
    lines = PAGE.read_text(encoding="utf-8").partition(begin)[2].partition(END)[0].splitlines()
    sentences = dict(line.split(". ", 1) for line in lines if line.partition(". ")[0].isdecimal())
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    (_, *names), *rows = cells
    return {
        family.strip("`"): {
            name: sentences[answer.removeprefix("no [").removesuffix("]")] if answer.startswith("no [") else answer
            for name, answer in zip(names, row, strict=True)
            if answer != "not run"
        }
        for family, *row in rows
    }


def main() -> None:
    """Try the families that have no results yet, then write the page."""
    from tests.family_capabilities import CAPABILITIES, COLUMNS, GGUF, capabilities, exports_gguf, gguf_answer
    from tests.tiny_families import ALL, EXPERTS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="*", default=list(ALL))
    parser.add_argument("--only-page", action="store_true")
    parser.add_argument("--only-gguf", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("runs/models"))
    options = parser.parse_args()
    lora_med.prepare_environment(offline=True)
    options.work.mkdir(parents=True, exist_ok=True)
    with_gguf = exports_gguf()
    for begin, families, experts in ((BEGIN, ALL, False), (BEGIN_EXPERTS, EXPERTS, True)):
        results: dict[str, dict[str, str]] = {family: {} for family in families} | read_page(begin)
        for family in families:
            path = options.work / f"{family}{'+experts' if experts else ''}.json"
            cells = json.loads(path.read_text()) if path.is_file() else {}
            if family in options.families and not options.only_page:
                folder = (options.work / family).resolve()
                shutil.rmtree(folder, ignore_errors=True)
                if not options.only_gguf and not cells.keys() - {GGUF}:
                    cells |= capabilities(family, folder, experts=experts)
                if with_gguf and not experts and GGUF not in cells:
                    cells[GGUF] = gguf_answer(family, folder)
                path.write_text(json.dumps(cells, indent=1))
                shutil.rmtree(folder, ignore_errors=True)
                sys.stderr.write(f"{family}: {cells}\n")
            results[family] |= cells
        write_page({family: results[family] for family in families}, CAPABILITIES if experts else COLUMNS, begin)


if __name__ == "__main__":
    main()

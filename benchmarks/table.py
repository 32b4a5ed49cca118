"""python benchmarks/table.py: the figures that the last run of each benchmark of training saved, as one table."""

from __future__ import annotations

import json
from typing import Any

from measure import RESULTS, spread

FORMER_NAMES = {"target": "reach", "correctness_check": "gate"}  # of these fields in older files


def main() -> None:
    by_machine: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(RESULTS.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        by_machine.setdefault(content["machine"], []).extend(content["figures"])
    for machine, figures in by_machine.items():
        print(f"\n{machine}\n\n| figure | median (range) | target | correctness check |\n|---|---|---|---|")
        for figure in figures:
            values = [float(value) for value in figure["values"]]
            digits = 2 if max(map(abs, values)) < 100 else 0
            unit = f" {figure['unit']}" if figure["unit"] else ""
            target, check = (figure.get(name, figure.get(former)) for name, former in FORMER_NAMES.items())
            print(f"| {figure['name']} | {spread(values, digits)}{unit} | {target} | {check} |")


if __name__ == "__main__":
    main()

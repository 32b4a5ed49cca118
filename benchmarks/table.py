"""python benchmarks/table.py: the figures that the last run of each benchmark of training kept, as one table."""

from __future__ import annotations

import json
from typing import Any

from measure import KEPT, spread


def main() -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(KEPT.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        found.setdefault(told["machine"], []).extend(told["figures"])
    for machine, figures in found.items():
        print(f"\n{machine}\n\n| figure | median (range) | target | correctness check |\n|---|---|---|---|")
        for one in figures:
            values = [float(value) for value in one["values"]]
            digits = 2 if max(map(abs, values)) < 100 else 0
            unit = f" {one['unit']}" if one["unit"] else ""
            print(f"| {one['name']} | {spread(values, digits)}{unit} | {one['reach']} | {one['gate']} |")


if __name__ == "__main__":
    main()

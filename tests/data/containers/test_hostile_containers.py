"""Damaged and hostile containers of rows: rows, or an error that names the file, soon and in little memory.

tests/data/test_fuzz.py does the same for one small file of each source.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_med.data.formats.tables import TableRow, is_encodable, rows
from lora_med.data.outcome import Drop, PartDrop
from lora_med.errors import DataError
from tests.data.containers.test_workbooks import book
from tests.data.damage import DAMAGES, damaged
from tests.data.test_fuzz import PIECES, SECONDS, limited

MUTATIONS = 500
RECORDS = [{"text": "Fièvre, une note.", "n": "1"}, {"text": 'Two "lines"\nof it', "n": "2"}]
TABLE = 'text;n\r\n"Fièvre; une note.";1\r\n"Two ""lines""\r\nof it";2\r\n'


def parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), sink)
    return sink.getvalue().to_pybytes()


CONTAINERS: dict[str, Callable[[], bytes]] = {
    "semicolons.csv": TABLE.encode,
    "tabs.tsv": TABLE.replace(";", "\t").encode,
    "commented.csv": lambda: ("# a comment\n\n" + TABLE.replace("\r\n", "\r")).encode(),
    "excel.csv": lambda: ("sep=;\r\n" + TABLE).encode("utf-16"),
    "wide.jsonl": lambda: "".join(json.dumps(row) + "\n" for row in RECORDS).encode("utf-16"),
    "lines.json": lambda: "".join(json.dumps(row) + "\n" for row in RECORDS).encode(),
    "wrapped.json": lambda: json.dumps({"version": 1, "data": RECORDS}).encode(),
    "keyed.json": lambda: json.dumps({"a": RECORDS[0], "b": RECORDS[1]}, indent=1).encode(),
    "columns.json": lambda: json.dumps({name: [row[name] for row in RECORDS] for name in RECORDS[0]}).encode(),
    "pretty.json": lambda: "\n".join(json.dumps(row, indent=1) for row in RECORDS).encode(),
    "a.xlsx": lambda: book({"Notes": [list(RECORDS[0]), *(list(row.values()) for row in RECORDS)]}),
    "a.parquet": parquet,
}


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, inner in value.items() for text in [key, *texts(inner)]]
    return [text for inner in value for text in texts(inner)] if isinstance(value, list) else [str(value)]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_damaged_container_gives_rows_or_a_named_error(name: str, tmp_path: Path) -> None:
    draw = random.Random(f"fuzz {name}")
    path = tmp_path / name
    content = CONTAINERS[name]()
    refused = 0
    for number in range(MUTATIONS):
        path.write_bytes(damaged(content, draw, PIECES, most=4, kinds=[draw.choice(DAMAGES)]))
        with limited(SECONDS):
            try:
                outcomes = list(rows(path))
            except DataError as error:
                outcomes = [Drop("damaged_file", error)]
        numbers = [row.number for row in outcomes if isinstance(row, TableRow)]
        assert len(set(numbers)) == len(numbers), number
        for outcome in outcomes:
            if isinstance(outcome, TableRow):
                assert "\0" not in "".join(texts(outcome.values)), number
                assert name.endswith(("json", "jsonl")) or all(map(is_encodable, texts(outcome.values))), number
            elif isinstance(outcome, PartDrop):
                assert outcome.reason == "repeated_key" and str(path) in outcome.where, number
                assert "une note" not in outcome.what and '"lines"' not in outcome.what, number
            else:
                refused += 1
                assert outcome.error and outcome.error.fix and str(path) in (outcome.error.where or ""), number
                said = str(outcome.error)
                assert "une note" not in said and '"lines"' not in said, (number, said)
    assert refused > 20


def xlsx(sheet: bytes, *, shared: bytes = b"") -> bytes:
    """A workbook with the XML of its sheet, and of its shared texts, replaced."""
    stream = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(book({"S": [["text"], ["a"]]})))
    with source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name in source.namelist():
            replaced = {"xl/worksheets/sheet1.xml": sheet, "xl/sharedStrings.xml": shared}.get(name)
            target.writestr(name, replaced or source.read(name))
    return stream.getvalue()


MAIN = b'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def sheet_xml(rows_xml: bytes) -> bytes:
    return b"<worksheet " + MAIN + b"><sheetData>" + rows_xml + b"</sheetData></worksheet>"


def cell(reference: bytes, text: bytes) -> bytes:
    return b'<c r="' + reference + b'" t="inlineStr"><is><t>' + text + b"</t></is></c>"


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a CSV of zeros": ("a.csv", lambda: gzip.compress(b"text,n\n" + b"\0" * 400_000_000, 1)),
    "a CSV of spaces": ("a.csv", lambda: gzip.compress(b" " * 400_000_000, 1)),
    "a CSV of empty lines": ("a.csv", lambda: gzip.compress(b"\n" * 100_000_000 + b"text\na\n", 1)),
    "a CSV of one long line": ("a.csv", lambda: b"text,n\n" + b"a" * 60_000_000),
    "a header of commas": ("a.csv", lambda: b"," * 60_000_000),
    "a row of commas": ("a.csv", lambda: b"text,n\n" + b"," * 60_000_000),
    "a cell of quotes": ("a.csv", lambda: b'text,n\n"' + b'""' * 30_000_000),
    "a comment without end": ("a.csv", lambda: b"#" * 60_000_000),
    "comments without end": ("a.csv", lambda: b"# a\n" * 5_000_000),
    "JSON of empty lines": ("a.jsonl", lambda: gzip.compress(b"\n" * 400_000_000, 1)),
    "JSON of spaces in UTF-16": ("a.json", lambda: gzip.compress(b"\xff\xfe" + b" \0" * 200_000_000, 1)),
    "JSON of spaces inside": ("a.json", lambda: gzip.compress(b'{"text": ' + b" " * 400_000_000 + b'"a"}', 1)),
    "JSON lines, then spaces": ("a.jsonl", lambda: gzip.compress(b'{"text": "a"}\n' + b" " * 400_000_000, 1)),
    "a long line of JSON": ("a.jsonl", lambda: b'{"text": "a"}\n{"text": "' + b"a" * 60_000_000 + b'"}'),
    "deep objects": ("a.json", lambda: b'{"a":' * 3_000_000),
    "deep arrays": ("a.jsonl", lambda: b'{"text": "a"}\n' + b"[" * 5_000_000),
    "many values": ("a.json", lambda: b"{}" * 500_000),
    "many keys, one twice": ("a.json", lambda: b"{" + b"".join(b'"%d":1,' % n for n in range(500_000)) + b'"7":1}'),
    "a number without end": ("a.json", lambda: b'{"text": ' + b"9" * 5_000_000 + b"}"),
    "a bomb of shared texts": ("a.xlsx", lambda: xlsx(sheet_xml(b""), shared=b" " * 600_000_000)),
    "a bomb of a sheet": ("a.xlsx", lambda: xlsx(sheet_xml(b" " * 600_000_000))),
    "a row far away": ("a.xlsx", lambda: xlsx(sheet_xml(b'<row r="999999999999">' + cell(b"A1", b"x") + b"</row>"))),
    "wide rows": (
        "a.xlsx",
        lambda: xlsx(
            sheet_xml(b"".join(b'<row r="%d">' % n + cell(b"XFD%d" % n, b"x") + b"</row>" for n in range(1, 2000)))
        ),
    ),
    "a long cell": ("a.xlsx", lambda: xlsx(sheet_xml(b'<row r="1">' + cell(b"A1", b"x" * 50_000_000) + b"</row>"))),
    "deep XML": ("a.xlsx", lambda: xlsx(sheet_xml(b"<a>" * 1_000_000))),
    "entities": (
        "a.xlsx",
        lambda: xlsx(
            b"<!DOCTYPE a [<!ENTITY x0 'ha'>"
            + b"".join(b"<!ENTITY x%d '&x%d;&x%d;'>" % (n, n - 1, n - 1) for n in range(1, 40))
            + b"]>"
            + sheet_xml(b'<row r="1">' + cell(b"A1", b"&x39;") + b"</row>")
        ),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_container_ends_within_seconds_and_little_memory(kind: str, tmp_path: Path) -> None:
    """In a process of its own, whose peak memory is read."""
    name, make = HOSTILE[kind]
    path = tmp_path / name
    path.write_bytes(make())
    code = (
        "import sys, time; from pathlib import Path; from lora_med.data.formats.tables import rows;"
        "from lora_med.data.outcome import Drop; begun = time.process_time(); drops = 0\n"
        "for outcome in rows(Path(sys.argv[1])):\n"
        "    if isinstance(outcome, Drop):\n"
        "        drops += 1; assert sys.argv[1] in outcome.error.where, outcome.error\n"
        "peak = int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "print(peak, time.process_time() - begun, drops)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    peak, seconds, _ = map(float, done.stdout.split())
    assert peak < 450_000, f"{peak} kB"  # of which some 100 are Python and its libraries
    assert seconds < 2 * SECONDS + 10, seconds

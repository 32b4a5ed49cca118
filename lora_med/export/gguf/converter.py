"""llama.cpp's converter: located in the user's checkout or in the cache, and run in a separate process."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.export.export_folder import check_packages
from lora_med.export.gguf.converter_setup import MANIFEST, cached_converter, digest_tree
from lora_med.files import read_json

CHECKOUT = "LLAMA_CPP_DIR"
DRIVER = Path(__file__).with_name("convert_driver.py")
NEEDED = {"gguf": "gguf", "sentencepiece": "sentencepiece", "xllamacpp": "xllamacpp"}  # module -> package
TAIL_LINES = 12
UNKNOWN_KIND = re.compile(r"Model (\w+) is not supported")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Converter:
    """The folder with llama.cpp's scripts, their version, and the SHA-256 over the scripts."""

    folder: Path
    version: str
    digest: str


def check_gguf_packages() -> None:
    """Refuse an export to GGUF if a package that it needs is not installed.

    Raises:
        DependencyMissingError: with the command that installs the packages.
    """
    check_packages(NEEDED, "GGUF")


def find_converter() -> Converter:
    """The converter in the checkout that LLAMA_CPP_DIR names, or else the one that `export setup` downloaded.

    Raises:
        InputMissingError: neither exists.
        IntegrityError: the downloaded one was changed.
    """
    checkout = os.environ.get(CHECKOUT)
    folder = Path(checkout).expanduser() if checkout else cached_converter()
    if not (folder / "convert_hf_to_gguf.py").is_file():
        raise InputMissingError(
            "no convert_hf_to_gguf.py: llama.cpp's converter is not here",
            where=f"{CHECKOUT}={folder}" if checkout else str(folder),
            fix=f"lora-med export setup (downloads 77 MB, keeps 2 MB), or set {CHECKOUT} to a llama.cpp checkout",
        )
    digest = digest_tree(folder)
    if checkout:
        return Converter(folder, f"the checkout in {CHECKOUT}", digest)
    facts = read_json(folder / MANIFEST)
    if facts.get("digest") != digest:
        raise IntegrityError(
            f"the converter is not as it was fetched: SHA-256 {digest[:16]}, was {str(facts.get('digest'))[:16]}",
            where=str(folder),
            fix="delete that folder, then: lora-med export setup",
        )
    return Converter(folder, f"llama-cpp-python {facts['version']}", digest)


def convert_model(
    converter: Converter, model: Path, target: Path, *, pre: str | None = None, vocabulary_only: bool = False
) -> str | None:
    """Write the Hugging Face folder `model` as a float32 GGUF; returns llama.cpp's own name for its pre-tokenizer.

    Args:
        pre: the name to write; None takes llama.cpp's own, or `default` if it has none.
        vocabulary_only: write no weights.

    Raises:
        IntegrityError: the converter failed (the message ends with its output).
    """
    options = ["--outfile", str(target), "--outtype", "f32", *(["--vocab-only"] if vocabulary_only else [])]
    return _run(converter, "convert_hf_to_gguf.py", [str(model), *options], pre, model, target)


def convert_adapter(converter: Converter, adapter: Path, base: Path, target: Path) -> None:
    """Write the PEFT folder `adapter` of the model in `base` as a GGUF adapter in float32.

    Raises:
        IntegrityError: the converter failed.
    """
    options = ["--base", str(base), "--outfile", str(target), "--outtype", "f32"]
    _run(converter, "convert_lora_to_gguf.py", [str(adapter), *options], None, adapter, target)


def _run(
    converter: Converter, script: str, arguments: list[str], pre: str | None, source: Path, target: Path
) -> str | None:
    with tempfile.TemporaryDirectory() as scratch:
        facts = Path(scratch) / "facts.json"
        facts.write_text(json.dumps({"pre": pre}), encoding="utf-8")
        command = [sys.executable, "-P", str(DRIVER), str(facts), str(converter.folder / script), *arguments]
        quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
        result = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True, errors="replace")
        if result.returncode != 0 or not target.is_file():
            tail = [line[:200] for line in result.stderr.splitlines() if line.strip()][-TAIL_LINES:]
            unknown_kind = UNKNOWN_KIND.search(result.stderr)
            if unknown_kind is not None:
                raise SettingsError(
                    f"llama.cpp's converter does not know models of the class {unknown_kind[1]}",
                    where=f"{source.name}, read by {converter.version}",
                    fix="lora-med merge writes a Hugging Face folder; or try a newer llama.cpp (LLAMA_CPP_DIR)",
                )
            reason = tail[-1].strip().replace(f"{source}/", "") if tail else f"exit {result.returncode}"
            raise IntegrityError(
                f"llama.cpp's {script} failed: {reason}\n  " + "\n  ".join(tail[:-1]),
                where=f"{source.name}, converted by {converter.version}",
                fix="lora-med adapters check NAME --target gguf shows what is supported; try a newer llama.cpp",
            )
        return json.loads(facts.read_text(encoding="utf-8")).get("known")

"""A GGUF file that llama.cpp does not take is refused with llama.cpp's reason, and the command lives on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_med.errors import IntegrityError
from lora_med.export.gguf.trial import check_runs


def test_a_file_that_llama_cpp_cannot_load_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(IntegrityError, match=r"llama\.cpp cannot load the converted model"):
        check_runs(tmp_path / "bad.gguf", context=64)

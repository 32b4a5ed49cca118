"""export_gguf(): the merged model, or the adapter alone, as GGUF files whose outputs in llama.cpp are proved.

The vocabulary comes first: it is cheap, and the likeliest to fail. Then one float32 file is written. At every probe
position llama.cpp must agree with PyTorch within a hundredth of a nat. The requested formats are rounded from that
file, and each is measured.
"""

from __future__ import annotations

import gc
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.attach import attach_opened
from lora_med.adapters.store.published import Published, open_published
from lora_med.adapters.store.store import CHAT_TEMPLATE
from lora_med.config.near_names import unknown
from lora_med.errors import SettingsError
from lora_med.export.compatibility import refuse
from lora_med.export.export_folder import WORK, Export, count_parameters, fresh_export, read_export
from lora_med.export.gguf.adapter_folder import write_for_converter
from lora_med.export.gguf.converter import (
    Converter,
    check_gguf_packages,
    convert_adapter,
    convert_model,
    find_converter,
)
from lora_med.export.gguf.gguf_check import (
    Agreement,
    Reference,
    agreement,
    check_exact,
    check_rounded,
    check_template,
    check_tokens,
    make_reference,
)
from lora_med.export.gguf.llama_server import loaded
from lora_med.export.gguf.number_types import BITS, check_formats, write_as
from lora_med.export.gguf.pretokenizer import choose_pre_tokenizer, tokenizer_kind
from lora_med.export.gguf.trial import check_runs
from lora_med.files import write_atomic
from lora_med.merge.merge import merge_published
from lora_med.merge.proof.logits import probe_ids, probe_logits
from lora_med.models.base import STANDARD, Base, load_base
from lora_med.models.tokenizer import load_tokenizer

PARTS = ("merged", "adapter", "swappable")
MOST_CONTEXT = 512
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Vocabulary:
    """llama.cpp's name for the pre-tokenizer, and how it was found."""

    pre: str | None
    facts: dict[str, Any]


def export_gguf(
    name: str,
    out: Path | str,
    *,
    base: str | None = None,
    revision: str | None = None,
    store: Path | str = "adapters",
    part: str = "merged",
    formats: tuple[str, ...] = ("f16",),
    accept_memorization: str | None = None,
) -> Export:
    """Write GGUF files of adapter `name` into the fresh folder `out`, proved in llama.cpp.

    Args:
        base: folder, Hub id or `micro`; None takes what the adapter's card names.
        revision: of a base on the Hub; None takes the card's.
        part: `merged`, the model with the adapter folded in; `adapter`, the adapter alone, which fits any GGUF of
            its base; or `swappable`, the base and the adapter side by side.
        formats: number formats of the model (the adapter is float32).
        accept_memorization: who accepts that the adapter exceeds the bound of its memorization audit.

    Raises:
        NotPermittedError: it exceeds that bound, and nobody accepts it.
        DependencyMissingError, InputMissingError: a package, the converter, the adapter or its base is missing.
        SettingsError: llama.cpp does not support this adapter, base or format.
        IntegrityError: llama.cpp's outputs differ from PyTorch's.
        OutputError, DiskError: `out` cannot be written.
    """
    if part not in PARTS:
        raise SettingsError(unknown("part", part, PARTS), where="--part")
    check_formats(formats)
    check_gguf_packages()
    converter = find_converter()
    adapter = open_published(name, store, base, revision)
    refuse(adapter.card, adapter.base, "gguf", "merged" if part == "merged" else "adapter")
    facts: dict[str, Any] = {"target": "gguf", "part": part}
    facts["converter"] = {"version": converter.version, "sha256": converter.digest}
    with fresh_export(
        Path(out),
        adapter,
        needed_bytes=needed_bytes(adapter, part, formats),
        facts=facts,
        accept_memorization=accept_memorization,
    ) as folder:
        fill_gguf(folder, adapter, converter, part, formats, facts)
    return read_export(out)


def fill_gguf(
    folder: Path, adapter: Published, converter: Converter, part: str, formats: tuple[str, ...], facts: dict[str, Any]
) -> dict[str, str]:
    """Write and prove the files inside a `fresh_export`; returns the file name of `model` and of `adapter`."""
    vocabulary = _vocabulary(adapter, converter, folder / WORK)
    facts["tokenizer"] = vocabulary.facts
    if part == "merged":
        return _fill_merged(folder, adapter, converter, vocabulary, formats, facts)
    return _fill_adapter(folder, adapter, converter, vocabulary, formats if part == "swappable" else (), facts)


def needed_bytes(adapter: Published, part: str, formats: tuple[str, ...]) -> int:
    """Bytes of the model in float32 twice (Hugging Face folder and GGUF), and of each written file."""
    bits_a_weight = sum(BITS[name] for name in formats) if part != "adapter" else 0
    return round(count_parameters(adapter.base) * ((64 if part == "merged" else 32) + bits_a_weight) / 8)


def _vocabulary(adapter: Published, converter: Converter, work: Path) -> _Vocabulary:
    logger.info("comparing llama.cpp's tokens with those of the base's tokenizer")
    path = work / "vocabulary.gguf"
    name_by_hash = convert_model(converter, adapter.base, path, vocabulary_only=True)
    tokenizer, _ = load_tokenizer(adapter.base)
    pre = choose_pre_tokenizer(tokenizer, path, name_by_hash)
    how = "llama.cpp knows its hash" if name_by_hash else "tried" if pre else "its kind needs none"
    facts = {"kind": tokenizer_kind(path), "pre_tokenizer": pre, "found": how}
    path.unlink()
    return _Vocabulary(pre, facts)


def _fill_merged(
    folder: Path,
    adapter: Published,
    converter: Converter,
    vocabulary: _Vocabulary,
    formats: tuple[str, ...],
    facts: dict[str, Any],
) -> dict[str, str]:
    work = folder / WORK
    logger.info("merging in float32")
    certificate = merge_published(adapter, work / adapter.name, dtype="float32").certificate
    facts["merge"] = {"probe": certificate["probe"], "weights": certificate["merged"]["fingerprint"]["weights"]}
    merged = load_base(str(work / adapter.name), quantization="none", dtype="float32", attention=STANDARD)
    reference = _reference(merged.model, merged)
    tokenizer = merged.tokenizer
    del merged
    gc.collect()
    float32_file = work / "float32.gguf"
    logger.info("converting with %s", converter.version)
    convert_model(converter, work / adapter.name, float32_file, pre=vocabulary.pre)
    logger.info("comparing log-probabilities in llama.cpp")
    check_runs(float32_file, context=_context(reference))
    with loaded(float32_file, context=_context(reference), exact=True) as server:
        exact = agreement(server.score(reference.rows), reference)
        facts["proof"] = {
            "tokens": check_tokens(server, tokenizer),
            "chats": check_template(server, tokenizer),
            "float32": _shown(exact),
        }
    check_exact("the merged model", exact)
    facts["formats"] = _round(float32_file, folder, adapter.name, reference, formats, vocabulary.pre)
    return {"model": f"{adapter.name}-{formats[0]}.gguf"}


def _fill_adapter(
    folder: Path,
    adapter: Published,
    converter: Converter,
    vocabulary: _Vocabulary,
    formats: tuple[str, ...],
    facts: dict[str, Any],
) -> dict[str, str]:
    work = folder / WORK
    base = load_base(
        adapter.base_name, quantization="none", dtype="float32", attention=STANDARD, revision=adapter.revision
    )
    bare = _reference(base.model, base)
    adapted = _reference(attach_opened(base, adapter), base)
    tokenizer = base.tokenizer
    del base
    gc.collect()
    float32_file, product_file = work / "float32.gguf", folder / f"{adapter.name}-adapter.gguf"
    logger.info("converting with %s", converter.version)
    convert_model(converter, adapter.base, float32_file, pre=vocabulary.pre)
    plain = write_for_converter(adapter.tensors(), adapter.config, adapter.method, adapter.base, work / "plain")
    convert_adapter(converter, plain, adapter.base, product_file)
    logger.info("comparing log-probabilities in llama.cpp with the adapter off, on and off again")
    check_runs(float32_file, context=_context(bare))
    with loaded(float32_file, context=_context(bare), exact=True, adapters=[product_file]) as server:
        off = agreement(server.score(bare.rows, scales=[0.0]), bare)
        on = agreement(server.score(bare.rows, scales=[1.0]), adapted)
        again = agreement(server.score(bare.rows, scales=[0.0]), bare)
        facts["proof"] = {
            "tokens": check_tokens(server, tokenizer),
            "chats": check_template(server, tokenizer),
            "adapter_off": _shown(off),
            "adapter_on": _shown(on),
            "adapter_off_again": _shown(again),
        }
    for what, measured in (("the base", off), ("base + adapter", on), ("the base after the adapter", again)):
        check_exact(what, measured)
    files = {"adapter": product_file.name}
    if adapter.chat_template is not None:  # the GGUF of a base holds the template of the base
        write_atomic(folder / CHAT_TEMPLATE, adapter.chat_template)
        facts["chat_template"] = CHAT_TEMPLATE
    if formats:
        facts["formats"] = _round(float32_file, folder, "base", bare, formats, vocabulary.pre)
        files["model"] = f"base-{formats[0]}.gguf"
    return files


def _reference(model: Any, base: Base) -> Reference:
    # gpt2's n_positions has this name as well; a base without positions (Bloom, Mamba) has no limit
    most = getattr(base.model.config.get_text_config(), "max_position_embeddings", None) or MOST_CONTEXT
    rows = [row[: min(most, MOST_CONTEXT)] for row in probe_ids(base.tokenizer)]
    return make_reference(rows, probe_logits(model, rows, next(base.model.parameters()).device))


def _context(reference: Reference) -> int:
    """A context length for the longest row; llama.cpp also counts the sampled token."""
    return max(256, max(map(len, reference.rows)) + 2)


def _round(
    float32_file: Path, folder: Path, stem: str, reference: Reference, formats: tuple[str, ...], pre: str | None
) -> dict[str, Any]:
    """Write each format from the float32 file, and measure it as users run it (keys and values in 16 bits)."""
    facts: dict[str, Any] = {}
    for name in formats:
        logger.info("writing and measuring %s", name)
        path = folder / f"{stem}-{name}.gguf"
        tensors = write_as(float32_file, path, name, pre=pre)
        with loaded(path, context=_context(reference)) as server:
            measured = agreement(server.score(reference.rows), reference)
        check_rounded(name, measured)
        facts[name] = {"file": path.name, "tensors": tensors, **_shown(measured)}
    return facts


def _shown(measured: Agreement) -> dict[str, Any]:
    return {
        **{key: round(value, 7) for key, value in asdict(measured).items()},
        "nll_change": round(measured.nll_change, 7),
    }

"""export_vllm(): a folder and the command that serves it with vLLM, after a check of what vLLM refuses.

vLLM needs its own versions of libraries, and is not run here. The folder is proved by PEFT (the adapter) or by the
merge's proof.
"""

from __future__ import annotations

import shlex
import warnings
from pathlib import Path
from typing import Any

from lora_med.adapters.runtime.attach import attach_opened
from lora_med.adapters.store.published import Published, open_published
from lora_med.adapters.store.store import CHAT_TEMPLATE, CONFIG, WEIGHTS
from lora_med.config.near_names import unknown
from lora_med.errors import IntegrityError, SettingsError
from lora_med.export.compatibility import PARTS, VLLM_RANKS, refuse, shape_of_card
from lora_med.export.export_folder import Export, count_parameters, fresh_export, read_export
from lora_med.files import write_atomic
from lora_med.merge.merge import merge_published
from lora_med.merge.proof.logits import probe_ids, probe_logits
from lora_med.models.base import STANDARD, load_base
from lora_med.models.files.resolve import display_name

SCRIPT = "serve.sh"
TOLERANCE = 1e-4  # of a logit: the same tensors in the same library


def export_vllm(
    name: str,
    out: Path | str,
    *,
    base: str | None = None,
    revision: str | None = None,
    store: Path | str = "adapters",
    part: str = "adapter",
    dtype: str | None = None,
    accept_memorization: str | None = None,
) -> Export:
    """Write the adapter, or the merged model, and serve.sh into the fresh folder `out`.

    Args:
        part: `adapter`, served beside its base with --enable-lora; or `merged`.
        dtype: of the merged model; None keeps the base's own.
        accept_memorization: who accepts that the adapter exceeds the bound of its memorization audit.

    Raises:
        NotPermittedError: it exceeds that bound, and nobody accepts it.
        SettingsError: vLLM would refuse the adapter, or scale it wrongly.
        InputMissingError, IntegrityError, OutputError, DiskError: as in `merge_adapter`.
    """
    if part not in PARTS:
        raise SettingsError(unknown("part", part, PARTS), where="--part")
    adapter = open_published(name, store, base, revision)
    notes = [finding.what for finding in refuse(adapter.card, adapter.base, "vllm", part)]
    facts: dict[str, Any] = {"target": "vllm", "part": part, "warnings": notes}
    needed = count_parameters(adapter.base) * 4 if part == "merged" else sum(map(len, adapter.contents.values()))
    with fresh_export(
        Path(out), adapter, needed_bytes=needed, facts=facts, accept_memorization=accept_memorization
    ) as folder:
        if part == "merged":
            certificate = merge_published(adapter, folder / name, dtype=dtype).certificate
            facts["proof"] = {"by": "merge", **(certificate["probe"] or certificate["tensors"])}
        else:
            facts["proof"] = {"by": "peft", **_copy_adapter(adapter, folder / name)}
        facts["command"] = command(adapter, part, ".")
        write_atomic(folder / SCRIPT, _script(adapter, part))
        (folder / SCRIPT).chmod(0o755)
    return read_export(out)


def max_lora_rank(ranks: list[int]) -> int:
    """The smallest value of --max-lora-rank that fits all `ranks`; vLLM allows certain values only."""
    return next(allowed for allowed in VLLM_RANKS if allowed >= max(ranks))


def command(adapter: Published, part: str, here: str) -> str:
    """The command that serves the folder `here`; a base that is a folder is `$1`."""
    if part == "merged":
        return f"vllm serve {here}/{adapter.name} --served-model-name {adapter.name}"
    rank = max_lora_rank(shape_of_card(adapter.card, adapter.base).ranks)
    base_folder = Path(adapter.base_name).expanduser()
    base = '"$1"' if adapter.base_name == "micro" or base_folder.is_dir() else shlex.quote(adapter.base_name)
    revision = f" --revision {shlex.quote(adapter.revision)}" if adapter.revision else ""
    modules = f"--lora-modules {adapter.name}={here}/{adapter.name}"
    chat = "" if adapter.chat_template is None else f" --chat-template {here}/{adapter.name}/{CHAT_TEMPLATE}"
    return f"vllm serve {base}{revision} --enable-lora {modules} --max-lora-rank {rank}{chat}"


def _script(adapter: Published, part: str) -> str:
    line = command(adapter, part, '"$(dirname "$0")"')
    first = f': "${{1:?the folder of the base {display_name(adapter.base_name)}}}"\n' if '"$1"' in line else ""
    return f"#!/bin/sh\n# Needs vLLM, in an environment of its own.\nset -eu\n{first}exec {line}\n"


def _copy_adapter(adapter: Published, target: Path) -> dict[str, Any]:
    """Copy what vLLM reads, load it with PEFT alone, and compare logits with the adapter attached by lora_med."""
    from peft import PeftModel

    target.mkdir()
    for name in (WEIGHTS, CONFIG, *([CHAT_TEMPLATE] if adapter.chat_template is not None else [])):
        (target / name).write_bytes(adapter.contents[name])
    options: dict[str, Any] = {"quantization": "none", "dtype": "float32", "attention": STANDARD}
    ours = load_base(adapter.base_name, revision=adapter.revision, **options)
    rows = probe_ids(ours.tokenizer)
    device = next(ours.model.parameters()).device
    expected = probe_logits(attach_opened(ours, adapter), rows, device)
    theirs = load_base(adapter.base_name, revision=adapter.revision, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT's own calls of transformers
        loaded = PeftModel.from_pretrained(theirs.model, str(target)).eval()
    copied = probe_logits(loaded, rows, device)
    worst = max(
        float((attached_logits - copied_logits).abs().max())
        for attached_logits, copied_logits in zip(expected, copied, strict=True)
    )
    if not worst <= TOLERANCE:
        raise IntegrityError(
            f"the logits of the copied adapter differ by up to {worst:.3g}; allowed is {TOLERANCE:g}",
            where=f"{sum(map(len, rows))} positions; nothing was written",
            fix="lora-med adapters verify NAME",
        )
    return {"positions": sum(map(len, rows)), "largest_logit_difference": worst}

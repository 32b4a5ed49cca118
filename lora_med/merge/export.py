"""merge_adapter(): an adapter folded into its base, proved equal to base + adapter, and then given its name.

Everything happens in a hidden folder beside the target, which is renamed only after the proof: a refusal or a kill
leaves no folder that looks like a model. `merge_certificate.json` says what went in, what came out, how near it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from lora_med.adapters.attach import attach, check_base
from lora_med.adapters.card import CARD, Card, read_card
from lora_med.adapters.store import find_adapter
from lora_med.config.names import unknown
from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.files import fresh_folder, read_json, sha256_file, write_atomic, write_json
from lora_med.merge.fold import DTYPES, NAMES, fold
from lora_med.merge.plan import Plan, plan_merge
from lora_med.merge.readme import render_readme
from lora_med.merge.verify import (
    COMPUTED_IN_16_BITS,
    TOLERANCES,
    Agreement,
    Tolerance,
    compare,
    probe_ids,
    probe_logits,
)
from lora_med.models.base import Base, load_base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.resolve import resolve_base
from lora_med.run import keep_private, versions

CERTIFICATE = "merge_certificate.json"
SCHEMA = "lora_med.merge_certificate/1"
COPIED = ("generation_config.json", "chat_template.jinja", "tokenizer*.json", "tokenizer.model", "spiece.model")
COPIED += (
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "LICENSE*",
    "NOTICE*",
)
ROOM_TO_VERIFY = 0.6  # share of the free memory that the weights in fp32 may take
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merge:
    """A merged model's folder, and its certificate as it stands in merge_certificate.json."""

    folder: Path
    certificate: Mapping[str, Any]


@dataclass(frozen=True)
class _Reference:
    """What base + adapter, and the bare base, say to the probes; and the base's identity."""

    rows: list[list[int]]
    adapted: list[torch.Tensor]
    bare: list[torch.Tensor]
    base: Mapping[str, Any]


def merge_adapter(
    name: str,
    out: Path | str,
    *,
    base: str | None = None,
    revision: str | None = None,
    store: Path | str = "adapters",
    dtype: str | None = None,
    tolerance: Tolerance | None = None,
) -> Merge:
    """Fold the adapter into the full-precision original of its base, prove it, and write a model folder at `out`.

    Args:
        name: of the adapter in the store.
        out: a folder that does not exist yet, or is empty.
        base: folder, Hub id or `micro`; None takes what the adapter's card names.
        revision: of a base on the Hub; None takes the card's.
        store: the folder of adapters.
        dtype: `float32`, `bfloat16` or `float16` of the result; None keeps the base's own.
        tolerance: the most the result may differ from base + adapter; None takes that of the result's dtype.

    Raises:
        BaseMismatchError: the adapter was trained on another base.
        IntegrityError: a file was changed, a tensor does not fit, or the result is not within the tolerance.
        OutputError: `out` is not empty or cannot be written.
        SettingsError: the adapter's method cannot be merged exactly, or no such dtype.
    """
    begun = time.perf_counter()
    if dtype is not None and dtype not in NAMES:
        raise SettingsError(unknown("dtype", dtype, NAMES), where="--dtype")
    adapter = find_adapter(name, store)
    card = read_card(adapter)
    folder, asked = locate_base(card, base, revision)
    check_base(fingerprint(folder), asked, card, adapter)
    plan = plan_merge(adapter, folder)
    target = Path(out)
    sweep(target)
    with fresh_folder(target) as temporary, held(temporary):
        computed_in = _verify_dtype(plan)
        reference = _reference(
            name, store, asked, revision or (card.base.revision if base is None else None), computed_in
        )
        written = fold(plan, temporary, dtype=dtype)
        _copy_around(folder, temporary, dtype)
        stored_as = dtype or _stored_dtype(plan)
        allowed = tolerance or _tolerance(stored_as, computed_in)
        agreement = _verify(temporary, reference, computed_in, allowed)
        certificate = _certificate(card, adapter, plan, reference, temporary, written, stored_as, agreement, allowed)
        certificate["probe"]["computed_in"] = computed_in
        certificate["seconds"] = round(time.perf_counter() - begun, 1)
        write_atomic(temporary / "README.md", render_readme(target.name, certificate))
        write_json(temporary / CERTIFICATE, certificate)
        if card.data.access == "credentialed":
            keep_private(temporary)
    return Merge(target, certificate)


def locate_base(card: Card, base: str | None, revision: str | None) -> tuple[Path, str]:
    """The folder of the base to use and the name it was asked for: the one given, else the one the card names.

    Raises:
        InputMissingError: it is not here.
    """
    asked = base if base is not None else card.base.name
    try:
        folder, _ = resolve_base(asked, revision or (card.base.revision if base is None else None))
    except InputMissingError as error:
        if base is not None:
            raise
        raise InputMissingError(
            f"the base {card.base.name!r} of adapter {card.name!r} is not here",
            where=error.where,
            fix=f"give its folder with --base; it is the one with weights {card.base.fingerprint.weights[:16]}",
        ) from error
    return folder, asked


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a temporary folder; the kernel lets go when the process ends, so `sweep` knows the dead from the living."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sweep(target: Path) -> None:
    """Remove what killed merges into `target` left beside it."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(OSError):
            with held(leftover):
                pass
            shutil.rmtree(leftover)


def _verify_dtype(plan: Plan) -> str:
    """float32, where base + adapter and the merge are told apart best, or the stored dtype if fp32 does not fit."""
    needed = sum(4 * one.size // DTYPES[one.dtype].itemsize for one in plan.tensors.values() if one.dtype in DTYPES)
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    return "float32" if needed < ROOM_TO_VERIFY * free else _stored_dtype(plan)


def _stored_dtype(plan: Plan) -> str:
    """The dtype most of the changed weights are stored in."""
    found = [str(DTYPES[one.base.dtype]).removeprefix("torch.") for one in plan.changes.values()]
    return max(sorted(set(found)), key=found.count)


def _tolerance(stored_as: str, computed_in: str) -> Tolerance:
    """That of rounding the weights, or the wider one where the sums are rounded too."""
    return TOLERANCES[stored_as] if computed_in in ("float32", "float64") else COMPUTED_IN_16_BITS


def _reference(name: str, store: Path | str, asked: str, revision: str | None, dtype: str) -> _Reference:
    base: Base = load_base(asked, quantisation="none", dtype=dtype, attention="sdpa", revision=revision)
    rows = probe_ids(base.tokenizer)
    device = next(base.model.parameters()).device
    bare = probe_logits(base.model, rows, device)
    model = attach(base, name, store)
    adapted = probe_logits(model, rows, device)
    facts = {"name": base.name, "revision": base.revision, "fingerprint": asdict(base.fingerprint)}
    del model, base
    gc.collect()
    return _Reference(rows, adapted, bare, facts)


def _verify(folder: Path, reference: _Reference, dtype: str, allowed: Tolerance) -> Agreement:
    merged = load_base(str(folder), quantisation="none", dtype=dtype, attention="sdpa")
    if probe_ids(merged.tokenizer) != reference.rows:
        raise IntegrityError("the merged model's tokenizer cuts the probes otherwise than the base's")
    device = next(merged.model.parameters()).device
    agreement = compare(reference.adapted, probe_logits(merged.model, reference.rows, device), reference.bare)
    if not agreement.within(allowed):
        raise IntegrityError(
            f"the merged model is not base + adapter: mean KL {agreement.mean_kl:.3g} nats over {agreement.positions} "
            f"positions, largest logit difference {agreement.largest_logit_difference:.3g}; allowed is at most "
            f"{allowed.mean_kl:.3g} and {allowed.share_of_effect:.0%} of the adapter's effect of "
            f"{agreement.adapter_effect_kl:.3g}",
            where=f"computed in {dtype}; nothing was written",
            fix="merge with --dtype float32",
        )
    return agreement


def _copy_around(base: Path, out: Path, dtype: str | None) -> None:
    """Settings and tokenizer, by an allow-list: no adapter_config.json, no code, no pickles."""
    config = read_json(base / "config.json")
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    write_json(out / "config.json", config)
    for pattern in COPIED:
        for path in base.glob(pattern):
            shutil.copyfile(path, out / path.name)


def _certificate(
    card: Card,
    adapter: Path,
    plan: Plan,
    reference: _Reference,
    out: Path,
    written: list[Path],
    dtype: str,
    agreement: Agreement,
    allowed: Tolerance,
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "adapter": {
            "name": card.name,
            "description": card.description,
            "method": plan.method,
            "template": card.template,
            "trained_on": card.base.quantisation,
            "card_sha256": sha256_file(adapter / CARD),
            "files": dict(card.files),
        },
        "base": dict(reference.base),
        "merged": {
            "fingerprint": asdict(fingerprint(out)),
            "files": {path.name: sha256_file(path) for path in sorted(out.iterdir())},
        },
        "arithmetic": "W + scale * B A per tensor in float32 from the full-precision base, rounded once",
        "dtype": dtype,
        "tensors_changed": len(plan.changes),
        "parameters_changed": plan.parameters_changed,
        "probe": asdict(agreement),
        "tolerance": asdict(allowed),
        "data": {
            "source": card.data.source,
            "earlier_sources": card.data.earlier_sources,
            "licence": card.data.licence,
            "access": card.data.access,
        },
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

"""merge_certificate.json: the inputs and outputs of a merge, and its arithmetic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import Card
from lora_med.files import sha256_file
from lora_med.merge.fold.merge_plan import Plan
from lora_med.merge.proof.proof import ON_DISK, Proof
from lora_med.merge.rounded_original import Rounding
from lora_med.models.files.resolve import display_name
from lora_med.models.fingerprint import fingerprint
from lora_med.models.on_disk.stored_quantization import StoredQuantization
from lora_med.run import versions

CERTIFICATE = "merge_certificate.json"
SCHEMA = "lora_med.merge_certificate/2"
ARITHMETIC = {
    "original": "W + scale * B A per tensor in float32 from the full-precision base, rounded once",
    "dequantized": "dequantized W + scale * B A per tensor in float32, rounded once",
    ON_DISK: "W dequantized from the base's files + scale * B A per tensor in float32, rounded once",
    "whole": "whole tensors of the adapter in place of the base's, rounded once",
}


@dataclass(frozen=True)
class Arithmetic:
    """What was merged onto (`original`, `dequantized`, `on_disk` or `whole`), and the requested dtype.

    `stored`: how the base is quantized on disk. `rounding`: the proof that the adapter's own base is its rounding.
    """

    onto: str
    dtype: str | None
    stored: StoredQuantization | None = None
    rounding: Rounding | None = None


def certify(
    card: Card,
    *,
    card_sha256: str | None,
    plan: Plan,
    out: Path,
    base_name: str,
    revision: str | None,
    arithmetic: Arithmetic,
    weights: Mapping[Path, str],
    proof: Proof,
) -> dict[str, Any]:
    """The certificate, with the hash of every file in `out`; nothing may be written there later.

    Args:
        card_sha256: of the adapter's card.json; None for an adapter that has no card of its own yet.
        base_name, revision: as requested, with the Hub commit; the fingerprint is already compared with the card's.
        weights: SHA-256 of the files of weights, from the fold.
        proof: if it holds no result, the merged model's fingerprint is omitted, which would read all weights again.
    """
    facts = proof.as_json()
    return {
        "schema": SCHEMA,
        "adapter": {
            "name": card.name,
            "description": card.description,
            "method": plan.method,
            "template": card.template,
            "trained_on": arithmetic.rounding.trained_on if arithmetic.rounding else card.base.quantization,
            "card_sha256": card_sha256,
            "files": dict(card.files),
        },
        "base": {
            "name": display_name(base_name),
            "revision": revision,
            "fingerprint": asdict(card.base.fingerprint),
            **_on_disk(arithmetic.stored, arithmetic.rounding),
        },
        "merged": {
            "fingerprint": asdict(fingerprint(out)) if facts["verified_by"] else None,
            "files": {path.name: weights.get(path) or sha256_file(path) for path in sorted(out.iterdir())},
        },
        "onto": arithmetic.onto,
        "arithmetic": ARITHMETIC[arithmetic.onto],
        "dtype": arithmetic.dtype or plan.stored_dtype,
        "tensors_changed": len(plan.changes),
        "parameters_changed": plan.parameters_changed,
        "settings_changed": dict(plan.settings),
        "data": {
            "source": card.data.source,
            "earlier_sources": card.data.earlier_sources,
            "license": card.data.license,
            "access": card.data.access,
        },
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
    }


def _on_disk(stored: StoredQuantization | None, rounding: Rounding | None) -> dict[str, Any]:
    """The entries about a base that is quantized on disk, or the original of one."""
    facts: dict[str, Any] = {} if stored is None else {"quantized_on_disk": str(stored)}
    return facts if rounding is None else {**facts, "rounding": rounding.as_json()}

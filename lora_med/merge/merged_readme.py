"""README.md of a merged model: its base and adapter, its proof, and how it may be shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_med.visible import markdown

SHARING = {
    "open": "It learned from open data.",
    "registered": "It learned from data that needs registration: share the model only with those registered.",
    "credentialed": "It learned from credentialed data, so treat the model as holding sensitive information: "
    "share it only where the data's own agreement allows.",
}


def render_readme(name: str, certificate: Mapping[str, Any]) -> str:
    """The README's text; every figure comes from the certificate."""
    base, adapter, data = (certificate[part] for part in ("base", "adapter", "data"))
    revision = f" at {base['revision']}" if base["revision"] else ""
    lines = [
        f"# {name}",
        "",
        _what(certificate),
        "",
        f"- **Base**: {markdown(base['name'])}{revision}, weights SHA-256 `{base['fingerprint']['weights']}`",
        *_on_disk(base),
        f"- **Adapter**: {adapter['method']}, prompt template `{adapter['template']}`; data {data['source']}, "
        f"license {markdown(data['license'])}, access {data['access']}",
        f"- **Merge**: {certificate['tensors_changed']} tensors, {certificate['arithmetic']}; stored as "
        f"{certificate['dtype']}",
        f"- **Proof**: {'; '.join(_proofs(certificate)) or 'none was requested'}; see merge_certificate.json",
        "",
        SHARING[data["access"]],
        "",
        "Not a medical device: its text can be wrong, and no decision about a patient may rest on it.",
        "",
    ]
    return "\n".join(lines)


def _on_disk(base: Mapping[str, Any]) -> list[str]:
    """The line on a base that is quantized on disk: the merge is onto its dequantized values, or onto its original."""
    if base.get("quantized_on_disk"):
        return [
            f"- **Base on disk**: quantized, {markdown(base['quantized_on_disk'])}; merged onto its dequantized values"
        ]
    rounding = base.get("rounding")
    if not rounding:
        return []
    return [
        f"- **Trained on**: {markdown(rounding['base']['name'])}, which is this base quantized "
        f"({markdown(rounding['quantization'])}): its {rounding['weights']:,} quantized weights are within "
        f"{rounding['largest_error']:.2f} of a step, and its other {rounding['equal']} tensors are equal"
    ]


def _what(certificate: Mapping[str, Any]) -> str:
    base, adapter = markdown(certificate["base"]["name"]), certificate["adapter"]
    if certificate["onto"] == "whole":
        return (
            f"{base} with the tensors that the adapter `{adapter['name']}` replaces (vocabulary, biases). "
            "It is the base of that adapter, which is not merged in."
        )
    said = f": {markdown(adapter['description'])}" if adapter["description"] else "."
    return f"{base} with the adapter `{adapter['name']}` merged in{said}"


def _proofs(certificate: Mapping[str, Any]) -> list[str]:
    probe, tensors, heldout = (certificate[part] for part in ("probe", "tensors", "heldout"))
    sentences = []
    if probe is not None:
        sentences.append(
            f"over {probe['positions']} probe positions the mean KL divergence from base + adapter is "
            f"{probe['mean_kl']:.2g} nats (the adapter's own effect: {probe['adapter_effect_kl']:.2g}), the first "
            f"choice is the same at {probe['same_first_choice']:.1%}"
        )
    if tensors is not None:
        sentences.append(
            f"{tensors['rows_recomputed']:,} rows recomputed in fp64 are within one rounding, "
            f"{tensors['copied']} other tensors are bit-identical to the base's"
        )
    if heldout is not None:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in heldout["nll"].items())
        sentences.append(f"nll in nats a token on {heldout['texts']} held-out texts: {scores}")
    return sentences

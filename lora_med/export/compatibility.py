"""What each target supports of an adapter and its base, before anything is written, and before training too.

The rules come from the targets' own sources: vLLM's PEFTHelper and LoRAConfig, llama.cpp's converter and its LoRA
loader. A refusal is for what would fail, or would be computed differently with no error. A warning is for what
cannot be checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import Card
from lora_med.config.near_names import unknown
from lora_med.config.schema import LoraSettings
from lora_med.errors import SettingsError
from lora_med.files import read_json

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Families whose vLLM class supports LoRA; of the families supported here, only gpt2 is without it.
VLLM_LORA = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "phi4")
VLLM_LORA += ("granite", "olmo2", "smollm3", "starcoder2", "stablelm", "glm4", "cohere", "opt")
GGUF_TESTED = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text", "phi3", "gpt2")
OLLAMA_LORA = ("llama", "mistral", "gemma")
ONNX_TESTED = ("llama", "gpt2")
PARTS = ("adapter", "merged")
ENDS = ("lm_head", "embed_out", "embed_tokens", "wte", "word_embeddings", "embed_in")


@dataclass(frozen=True)
class Finding:
    """One property that a target does not support (`refusal`) or that cannot be checked (`warning`), and the fix."""

    level: str
    what: str
    fix: str


@dataclass(frozen=True)
class Shape:
    """The properties of an adapter that decide which targets support it; `base` is None if it is not on this machine.

    `more` lists what an adapter made elsewhere may include besides updates of inner layers.
    """

    r: int
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool
    quantization: str
    base: Path | None
    more: tuple[str, ...] = ()

    @property
    def ranks(self) -> list[int]:
        """All ranks of the layers."""
        return sorted({self.r, *self.rank_pattern.values()})

    @property
    def model_type(self) -> str | None:
        """The base's model type, if the base is on this machine."""
        return None if self.base is None else read_json(self.base / "config.json").get("model_type")


def shape_of_card(card: Card, base: Path | None) -> Shape:
    """The shape of a published adapter."""
    method = card.method
    return Shape(
        r=method["r"],
        rank_pattern=method["rank_pattern"],
        alpha_pattern=method["alpha_pattern"],
        use_rslora=method["use_rslora"],
        use_dora=method["use_dora"],
        quantization=card.base.quantization,
        base=base,
        more=_more(method),
    )


def _more(method: Mapping[str, Any]) -> tuple[str, ...]:
    ends = [name for name in method["target_modules"] if name.rpartition(".")[2] in ENDS]
    additions = {
        "biases (lora_bias)": method.get("lora_bias"),
        "whole layers (modules_to_save)": method.get("modules_to_save"),
        "trained tokens (trainable_token_indices)": method.get("trainable_token_indices"),
        f"updates of {', '.join(ends)}": ends,
        "updates of routed experts (target_parameters)": method.get("target_parameters"),
    }
    return tuple(what for what, included in additions.items() if included)


def shape_of_settings(lora: LoraSettings, quantization: str, base: Path | None) -> Shape:
    """The shape of the adapter that these settings would train."""
    return Shape(
        r=lora.r,
        rank_pattern=lora.rank_pattern,
        alpha_pattern=lora.alpha_pattern,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        quantization=quantization,
        base=base,
        more=("updates of routed experts (target_experts)",) if lora.target_experts else (),
    )


def _vllm_adapter(shape: Shape) -> list[Finding]:
    merge = "serve it merged: lora-med export vllm NAME --part merged"
    findings = [Finding("refusal", f"vLLM does not support {what}", merge) for what in shape.more]
    if shape.use_dora:
        findings.append(Finding("refusal", "vLLM does not support DoRA (use_dora)", merge))
    if shape.ranks[-1] > VLLM_RANKS[-1]:
        what = f"rank {shape.ranks[-1]} is over {VLLM_RANKS[-1]}, the largest value of --max-lora-rank"
        findings.append(Finding("refusal", what, merge))
    for name, pattern in (("rank_pattern", shape.rank_pattern), ("alpha_pattern", shape.alpha_pattern)):
        if pattern:
            what = f"vLLM reads r and lora_alpha only, so layers in {name} would be scaled wrongly"
            findings.append(Finding("refusal", what, merge))
    if shape.model_type is not None and shape.model_type not in VLLM_LORA:
        is_gpt2 = shape.model_type == "gpt2"
        what = f"vLLM's {shape.model_type} {'does not support adapters' if is_gpt2 else 'may not support adapters'}"
        findings.append(Finding("refusal" if is_gpt2 else "warning", what, merge))
    if shape.quantization != "none":
        what = f"the adapter was trained on a {shape.quantization} base, and vLLM serves the original one"
        findings.append(
            Finding("warning", what, "lora-med eval compares both; or serve with --quantization bitsandbytes")
        )
    return findings + _base_absent(shape)


def _vllm_merged(shape: Shape) -> list[Finding]:
    return _base_absent(shape)


def _gguf_adapter(shape: Shape) -> list[Finding]:
    merge = "export it merged: --part merged"
    findings = [Finding("refusal", f"an adapter in GGUF cannot contain {what}", merge) for what in shape.more]
    if shape.use_dora:
        what = "llama.cpp adds updates to a weight, and DoRA (use_dora) rescales the weight itself"
        findings.append(Finding("refusal", what, merge))
    return findings + _gguf_merged(shape)


def _gguf_merged(shape: Shape) -> list[Finding]:
    findings = _base_absent(shape)
    if shape.base is None:
        return findings
    if _bpe_without_merges(shape.base):
        what = "llama.cpp does not support a BPE vocabulary without merges, such as a byte vocabulary"
        findings.append(Finding("refusal", what, "train on a base whose tokenizer has merges"))
    if shape.model_type not in GGUF_TESTED:
        what = f"model type {shape.model_type!r} is not among the tested types ({', '.join(GGUF_TESTED)})"
        findings.append(Finding("warning", what, "the export tries this type, and is refused if the proof fails"))
    return findings


def _ollama_adapter(shape: Shape) -> list[Finding]:
    findings = _gguf_adapter(shape)
    if shape.model_type is not None and shape.model_type not in OLLAMA_LORA:
        what = f"Ollama documents ADAPTER for {', '.join(OLLAMA_LORA)} only, not for {shape.model_type}"
        findings.append(Finding("warning", what, "export it merged: --part merged"))
    return findings


def _onnx_adapter(shape: Shape) -> list[Finding]:
    return [Finding("refusal", "an ONNX graph contains full weights, no adapter", "export it merged: --part merged")]


def _onnx_merged(shape: Shape) -> list[Finding]:
    findings = _base_absent(shape)
    if shape.model_type is not None and shape.model_type not in ONNX_TESTED:
        what = f"model type {shape.model_type!r} is not among the tested types ({', '.join(ONNX_TESTED)})"
        findings.append(Finding("warning", what, "the export tries this type, and is refused if the proof fails"))
    return findings


def _base_absent(shape: Shape) -> list[Finding]:
    if shape.base is not None:
        return []
    return [Finding("warning", "the base is not here, so it was not checked", "name its folder with --base")]


def _bpe_without_merges(base: Path) -> bool:
    path = base / "tokenizer.json"
    if not path.is_file():
        return False
    model = read_json(path).get("model") or {}
    return model.get("type") == "BPE" and not model.get("merges")


RULES: dict[str, dict[str, Callable[[Shape], list[Finding]]]] = {
    "vllm": {"adapter": _vllm_adapter, "merged": _vllm_merged},
    "gguf": {"adapter": _gguf_adapter, "merged": _gguf_merged},
    "ollama": {"adapter": _ollama_adapter, "merged": _gguf_merged},
    "onnx": {"adapter": _onnx_adapter, "merged": _onnx_merged},
}


def check(shape: Shape, target: str, part: str) -> list[Finding]:
    """The refusals and warnings of `target` for an adapter of this shape, refusals first.

    Args:
        part: `adapter`, the adapter alone; or `merged`, the model it is folded into.

    Raises:
        SettingsError: no such target or part.
    """
    if target not in RULES:
        raise SettingsError(unknown("target", target, RULES), where="--target")
    if part not in PARTS:
        raise SettingsError(unknown("part", part, PARTS), where="--part")
    return sorted(RULES[target][part](shape), key=lambda finding: finding.level)


def refuse(card: Card, base: Path, target: str, part: str) -> list[Finding]:
    """Refuse an adapter that `target` does not support; returns the warnings.

    Raises:
        SettingsError: names every refusal and its fix.
    """
    findings = check(shape_of_card(card, base), target, part)
    refusals = [finding for finding in findings if finding.level == "refusal"]
    if refusals:
        raise SettingsError(
            f"{target} does not support the {part} of {card.name!r}:\n  "
            + "\n  ".join(finding.what for finding in refusals),
            where=f"adapter {card.name!r}",
            fix="; ".join(dict.fromkeys(finding.fix for finding in refusals)),
        )
    return findings

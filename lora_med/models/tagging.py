"""load_tagger(): a base with a token classification head in place of a language model head.

Decoder families and encoders such as BERT are both supported. A decoder's token sees only the tokens before it, so
the model must recognize a mention from its beginning. An encoder sees both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_med.errors import SettingsError
from lora_med.models.base import OWN, Base, check_attention, choose_attention, choose_dtype, fit_tokenizer
from lora_med.models.files.resolve import has_sdpa, model_class, read_config, resolve_base
from lora_med.models.fingerprint import fingerprint
from lora_med.models.on_disk.weights_source import weights_source
from lora_med.models.precision import Choice, log_choices
from lora_med.models.quantize import bitsandbytes_config
from lora_med.models.structure.backbone import TAG_HEADS, tag_head
from lora_med.models.tokenizer import load_tokenizer
from lora_med.models.weight_loading import load_weights

ATTENTIONS = ("sdpa", "eager")  # those for padded rows


def load_tagger(
    base: str,
    labels: Sequence[str],
    *,
    quantization: str = "none",
    quant_type: str = "nf4",
    double_quant: bool = True,
    dtype: str = "auto",
    attention: str = "auto",
    revision: str | None = None,
    head_dropout: float = 0.1,
) -> Base:
    """Load a base with a head for `labels`, in float32 and all zeros: before training every tag is equally likely.

    All else is as from `load_base`, the identity too: the head belongs to the adapter.

    Args:
        head_dropout: share of the head's inputs that are dropped in training, in place of what the base's settings say.

    Raises:
        InputMissingError: no such base, or no safetensors.
        SettingsError: an unknown choice, a kind of model without a token classifier, or a tokenizer without offsets.
        IntegrityError: files are truncated, or weights are absent.
    """
    choices: list[Choice] = []
    dtype = choose_dtype(dtype, choices)
    folder, commit = resolve_base(base, revision)
    config = read_config(folder, tags=True)
    attention = _choose_attention(attention, config, choices)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    quantized = bitsandbytes_config(quantization, quant_type=quant_type, double_quant=double_quant, dtype=dtype)
    tokenizer, tokenizer_choices = load_tokenizer(folder, needs_eos=False)
    _refuse_without_offsets(tokenizer, folder)
    source = weights_source(
        folder, config, quantization=quantization, double_quant=double_quant, dtype=dtype, heads=TAG_HEADS
    )
    quantized = None if source.is_quantized else _without_head(quantized)
    model = load_weights(source.folder, source.config, quantized, dtype, attention, head=TAG_HEADS)
    _untrained_head(model)
    _set_dropout(model, head_dropout)
    choices += [*source.choices, *tokenizer_choices, *fit_tokenizer(model, tokenizer, folder)]
    log_choices(choices)
    return Base(
        model=model,
        tokenizer=tokenizer,
        name=base,
        folder=folder,
        revision=commit,
        quantization=source.quantization,
        dtype=dtype,
        attention=attention,
        choices=tuple(choices),
        fingerprint=fingerprint(folder),
        labels=tuple(labels),
        double_quant=source.double_quant,
        quantized_now=source.quantization == "4bit" and not source.is_quantized,
    )


def _without_head(quantized: Any) -> Any:
    """What transformers needs to quantize all but the head, or None as given."""
    if quantized is not None:
        quantized.llm_int8_skip_modules = list(TAG_HEADS)
    return quantized


def _choose_attention(attention: str, config: Any, choices: list[Choice]) -> str:
    """`attention`, or for "auto" the best one for this tagger, which is then added to `choices`."""
    able, lays = has_sdpa(config, tags=True), _lays_end_to_end(config)
    if attention == "auto" and able and lays:
        return choose_attention(attention, config, choices)
    if attention == "auto":
        attention = "sdpa" if able else "eager"
        choices.append(Choice("attention", attention, "this tagger's rows are padded"))
    check_attention(attention, config, able=able, known=(*ATTENTIONS, OWN) if lays else ATTENTIONS)
    return attention


def _lays_end_to_end(config: Any) -> bool:
    """Whether texts can be laid end to end in a row: a decoder whose classifier passes on where each of them ends."""
    from transformers.modeling_layers import GenericForTokenClassification

    text = config.get_text_config()
    looks_ahead = getattr(text, "use_bidirectional_attention", False) or not getattr(text, "is_causal", True)
    is_decoder = model_class(config) is not None and not looks_ahead
    return is_decoder and issubclass(model_class(config, tags=True), GenericForTokenClassification)


def _set_dropout(model: Any, share: float) -> None:
    """Give the head's own dropout this share; transformers calls it `dropout` or `drop`, and a few models have none."""
    from torch.nn import Dropout

    for name in ("dropout", "drop"):
        layer = getattr(model, name, None)
        if isinstance(layer, Dropout):
            layer.p = share


def _refuse_without_offsets(tokenizer: Any, folder: Path) -> None:
    if not tokenizer.is_fast:
        raise SettingsError(
            f"{type(tokenizer).__name__} does not report the offsets of its tokens",
            where=str(folder),
            fix="use a base with tokenizer.json",
        )


def _untrained_head(model: Any) -> None:
    """Replace the random head by zeros, and add the generation config that the model lacks, with its end token."""
    import torch
    from transformers import GenerationConfig

    class Head(torch.nn.Linear):
        """A linear head that computes in its own dtype, not the base's."""

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.to(self.weight.dtype))

    name = tag_head(model)
    if name is None or not isinstance(getattr(model, name), torch.nn.Linear):
        raise SettingsError(
            f"the token classifier of model type {model.config.model_type!r} has no linear head",
            where="model.base",
            fix="use a llama, mistral, qwen2, qwen3, gemma, gpt2 or bert base",
        )
    old = getattr(model, name)
    # Where one process of a sharded run reads the base for all, the others hold it on `meta`; the head is not read.
    device = "cpu" if old.weight.is_meta else old.weight.device
    head = Head(old.in_features, old.out_features, bias=old.bias is not None, device=device)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    setattr(model, name, head.requires_grad_(False).eval())
    if getattr(model, "generation_config", None) is None:
        model.generation_config = GenerationConfig(eos_token_id=model.config.eos_token_id)

"""README.md of an adapter: the model card that people and the Hub read, rendered from card.json."""

from __future__ import annotations

from typing import Any

from lora_med.adapters.runtime.peft_injection import moves_names
from lora_med.adapters.store.card import Card
from lora_med.adapters.store.on_validation import OnValidation
from lora_med.adapters.tensors.method import Method
from lora_med.models.structure.adaptable_layers import language_part
from lora_med.visible import markdown

HUB_LICENSES = {"MIT": "mit", "CC BY 4.0": "cc-by-4.0", "CC-BY-4.0": "cc-by-4.0", "Apache-2.0": "apache-2.0"}
OWN_TEMPLATE = (
    "- **Chat template**: its own, in chat_template.jinja, and not its base's; `lora-med` uses it, elsewhere set "
    "`tokenizer.chat_template` to its text"
)
RATED = "- **Blind rating**:"
LAST_FACTS = ("- **Data**:", "- **Result**:")  # the lines that blind ratings follow
SHARING = {
    "open": "Learned from open data.",
    "registered": "Learned from data that needs registration: keep it private to those who registered.",
    "credentialed": "Learned from credentialed data: it may hold traces of patients' records. Share it only where the "
    "data's own agreement allows, never on a public hub.",
}


def render_readme(card: Card, method: Method, model: Any, *, own_template: bool = False) -> str:
    """The README's text: YAML metadata for the Hub, then the facts needed to use the adapter and to trust it.

    Args:
        model: the base without adapters; its class is named where transformers' automatic choice is another.
    """
    from huggingface_hub import ModelCard, ModelCardData

    metadata: dict[str, Any] = {"library_name": "peft", "tags": ["lora", "medical"]}
    metadata["pipeline_tag"] = "token-classification" if card.labels else "text-generation"
    if "/" in card.base.name:
        metadata["base_model"] = card.base.name
    metadata["license"] = HUB_LICENSES.get(card.data.license, "other")
    head = ModelCardData(**metadata).to_yaml()
    return str(ModelCard(f"---\n{head}\n---\n{_body(card, method, model, own_template)}"))


def _with_peft(card: Card, method: Method, model: Any) -> list[str]:
    """The lines of Python that load the adapter without lora_med, from the folder that contains its folder."""
    kind = "AutoModelForTokenClassification" if card.labels else "AutoModelForCausalLM"
    if language_part(model):
        kind = type(model).__name__
    head = f", num_labels={len(card.labels)}" if card.labels else ""
    revision = f', revision="{card.base.revision}"' if card.base.revision else ""
    lines = [f"import peft, transformers  # {card.base.name}: the base's folder or its id on the Hub"]
    if moves_names(model, method.peft_config(model, inference=True)):
        lines += [
            "import peft.utils.transformers_weight_conversion as conversion  # PEFT 0.19 to 0.21 takes some of the",
            "conversion.convert_peft_config_for_transformers = lambda *_, **__: None  # names for the routed experts'",
        ]
    lines.append(f'base = transformers.{kind}.from_pretrained("{card.base.name}"{revision}{head})')
    if card.tokens:
        words = sorted(card.tokens, key=lambda token: card.tokens[token])
        rows = max(card.tokens.values()) + 1
        lines += [
            f'tokenizer = transformers.AutoTokenizer.from_pretrained("{card.base.name}"{revision})',
            f"tokenizer.add_tokens({words!r})  # its ids for them must be {sorted(card.tokens.values())}",
            f"if base.get_input_embeddings().num_embeddings < {rows}:",
            f"    base.resize_token_embeddings({rows})",
        ]
    return [
        *lines,
        f'model = peft.PeftModel.from_pretrained(base, "{card.name}")',
    ]


def _origin(card: Card) -> list[str]:
    """The line on the file from which the base was made, if it has no files of its own."""
    origin = card.base.origin
    if not origin:
        return []
    if "method" in origin:
        how = markdown(str(origin.get("quantization")))
        return [f"- **Base on disk**: quantized, {how}; the SHA-256 is that of these files"]
    kinds = ", ".join(f"{kind} ({number} tensors)" for kind, number in dict(origin.get("quantization", {})).items())
    file = f"{str(origin.get('format', '')).upper()} file {markdown(str(origin.get('file')))}"
    return [
        f"- **Origin of the base**: the {file}, SHA-256 `{markdown(str(origin.get('sha256')))}`, {kinds}; license "
        f"{markdown(str(origin.get('license', 'not stated')))}. The dequantized values are the base."
    ]


def _on_validation(card: Card) -> list[str]:
    """The line on how the adapter compares on validation with what its training began from."""
    comparison = OnValidation.of(card.scores)
    if comparison is None:
        return []
    return [f"- **Result**: {markdown(comparison.sentence(card.settings.get('lora', {}).get('continue_from')))}"]


def _privacy(card: Card) -> list[str]:
    """The line on what a training with differential privacy spent."""
    spent = card.privacy
    if not spent:
        return []
    return [
        f"- **Differential privacy**: epsilon {spent['epsilon']:.2f} at delta {spent['delta']:g} for each of "
        f"{spent['patients']:,} patients ({markdown(spent['accountant'])}); it covers the weights, and neither the "
        "counts and hashes of the card nor a choice among several adapters"
    ]


def blind_ratings(card: Card) -> list[str]:
    """A line for each blind rating in the card: who was preferred, by how much, and on how many items."""
    rated = [entry for _, entry in sorted(card.scores.items()) if _is_rating(entry)]
    return [f"{RATED} {markdown(_rating_sentence(entry))}" for entry in rated]


def _is_rating(entry: object) -> bool:
    return isinstance(entry, dict) and entry.get("scoring") == "blind_rating"


def _rating_sentence(entry: dict[str, Any]) -> str:
    difference = entry["measures"]["win_difference"]
    low, high = difference["low"], difference["high"]
    interval = "no interval" if low is None or high is None else f"95% interval {low:+.2f} to {high:+.2f}"
    verdict, other = difference["change"]["verdict"], entry["against"]
    outcome = f"{verdict} than {other}" if verdict != "cannot tell" else f"cannot tell it from {other}"
    return (
        f"{outcome}, win difference {difference['value']:+.2f} ({interval}); {entry['n']:,} items of "
        f"{entry['source']}, {entry['split']}, {entry['template']}; {entry['ratings']:,} ratings by "
        f"{entry['raters']:,} {'rater' if entry['raters'] == 1 else 'raters'}, {str(entry['created'])[:10]}"
    )


def with_blind_ratings(readme: str, card: Card) -> str:
    """The README of a published adapter with the lines of the card's blind ratings in place of those that it had."""
    lines = [line for line in readme.split("\n") if not line.startswith(RATED)]
    facts = [number for number, line in enumerate(lines) if line.startswith(LAST_FACTS)]
    end = facts[-1] + 1 if facts else len(lines)
    return "\n".join([*lines[:end], *blind_ratings(card), *lines[end:]])


def _tokens(card: Card) -> list[str]:
    """The line on the tokens that the adapter trained."""
    if not card.tokens:
        return []
    named = ", ".join(f"{markdown(token)} (id {number})" for token, number in card.tokens.items())
    return [f"- **Trained tokens**: {named}; `lora-med` adds those that the base's tokenizer does not have"]


def _body(card: Card, method: Method, model: Any, own_template: bool) -> str:
    kind = "DoRA" if method.use_dora else "LoRA"
    scores = [
        f"| {markdown(name)} | {markdown(str(value))} |"
        for name, value in card.scores.items()
        if not isinstance(value, dict | list)
    ]
    counts = ", ".join(f"{number:,} {what}" for what, number in card.data.counts.items())
    lines = [
        f"# {card.name}",
        "",
        markdown(card.description) or "A LoRA adapter for medical text, made with lora_med.",
        "",
        f"- **Base**: {markdown(card.base.name)}{f' at {card.base.revision}' if card.base.revision else ''}, "
        f"trained on it as {card.base.quantization} ({card.base.dtype})",
        f"- **Base weights**: SHA-256 `{card.base.fingerprint.weights}`; any other base is refused",
        *_origin(card),
        f"- **Method**: {kind}, rank {method.r}, alpha {method.lora_alpha:g}, on "
        f"{', '.join((*method.target_modules, *method.target_parameters))}",
        f"- **Labels of tokens**: {markdown(', '.join(card.labels))}"
        if card.labels
        else f"- **Prompt template**: `{card.template}`",
        *([OWN_TEMPLATE] if own_template else []),
        *_tokens(card),
        *_privacy(card),
        f"- **Data**: {card.data.source}{f' ({counts})' if counts else ''}; license {markdown(card.data.license)}; "
        f"access {card.data.access}",
        *_on_validation(card),
        *blind_ratings(card),
        "",
        SHARING[card.data.access],
        "",
        "```",
        f"lora-med adapters verify {card.name}",
        *([] if card.labels else [f'lora-med generate --adapter {card.name} --prompt "..."']),
        "```",
        "",
        "With PEFT alone (which does not check the base; compare the SHA-256 above first):",
        "",
        "```python",
        *_with_peft(card, method, model),
        "```",
    ]
    if scores:
        lines += ["", "| score | value |", "|---|---|", *scores]
    lines += ["", "Not a medical device: its text can be wrong, and no decision about a patient may rest on it.", ""]
    return "\n".join(lines)

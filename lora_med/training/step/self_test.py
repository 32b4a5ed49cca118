"""The self-test before the first step: are packed documents separate, and is the one-pass loss the model's own?"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import TrainerCallback

from lora_med.errors import SettingsError
from lora_med.training.rows.batches import Collator

LENGTHS = (12, 9)
PREFIX = 5
EXACT, ROUNDED = 1e-4, 0.05  # largest relative difference in float32, and where bfloat16 or 4-bit weights round
logger = logging.getLogger(__name__)


def _documents(words: int) -> list[list[int]]:
    """Two documents of token ids spread over the vocabulary; the second begins like the first, to reveal a leak."""
    ids = [(number * 7919 + 11) % words for number in range(LENGTHS[0])]
    return [ids, ids[: LENGTHS[1]]]


def _difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over that of the expected values around their mean."""
    spread = (expected - expected.mean(-1, keepdim=True)).square().mean().sqrt()
    return float((actual - expected).square().mean().sqrt() / spread)


def _on(device: torch.device, batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


@torch.no_grad()
def probe(
    model: Any,
    collator: Collator,
    *,
    words: int,
    dtype: str,
    device: torch.device,
    compact: bool,
    shared_prefix: bool = False,
    tags: bool = False,
) -> list[str]:
    """The failed checks: any of "packing", "shared_prefix" and "loss", or none.

    "packing": documents of one batch get other logits than alone. A tagger's head begins with zeros, so its hidden
    states are compared. "shared_prefix", checked only if asked for: the same for documents that share their
    beginning. "loss": the one-pass loss is not that of the logits. The model does not
    change, and no random number is drawn. Every process must call it.
    """
    tolerance = EXACT if dtype == "float32" else ROUNDED
    documents = _documents(words)
    rows = [{"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)]} for ids in documents]
    batch = _on(device, collator(rows))
    labels = batch.pop("labels")
    training = model.training
    model.eval()
    wrong = []

    def outputs(**inputs: Any) -> torch.Tensor:
        if tags:
            return model(**inputs, use_cache=False, output_hidden_states=True).hidden_states[-1].float()
        return model(**inputs, use_cache=False).logits.float()

    alone = [outputs(input_ids=torch.tensor([ids], device=device))[0] for ids in documents]
    logits = outputs(**batch)
    together = logits[0].split(LENGTHS) if collator.flat else [logits[n, :length] for n, length in enumerate(LENGTHS)]
    if any(_difference(actual, expected) > tolerance for actual, expected in zip(together, alone, strict=True)):
        wrong.append("packing")
    if shared_prefix:
        first, second = documents
        ids = first + second[PREFIX:]
        lengths = [PREFIX, len(first) - PREFIX, len(second) - PREFIX]
        row = {"input_ids": ids, "labels": ids, "seq_lengths": [len(ids)], "shared_prefixes": [lengths]}
        inputs = _on(device, collator([row]))
        inputs.pop("labels")
        actual = outputs(**inputs)[0]
        if _difference(actual, torch.cat([alone[0], alone[1][PREFIX:]])) > tolerance:
            wrong.append("shared_prefix")
    if compact:
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        actual = model(**batch, nll_labels=labels)
        if abs(float(actual / expected) - 1) > tolerance:
            wrong.append("loss")
    model.train(training)
    return wrong


class SelfTest(TrainerCallback):
    """Runs the self-test before the first step, and refuses a model that would train something else than was set.

    It also takes the logging, validation and saving intervals from the present settings. transformers would take those
    of the checkpoint that is resumed.
    """

    def __init__(self, trainer: Any, dtype: str) -> None:
        self.trainer = trainer
        self.dtype = dtype

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Check the model in the form in which it is trained.

        Raises:
            SettingsError: documents see each other, or a shared prefix changes the logits.
        """
        state.compute_steps(args, state.max_steps)
        trainer = self.trainer
        if not trainer.predicts_words and not trainer.collator.flat:
            return
        wrong = probe(
            trainer.model_wrapped if trainer.sharded else trainer.model,
            trainer.collator,
            words=trainer.model.config.get_text_config().vocab_size,
            dtype=self.dtype,
            device=args.device,
            compact=trainer.fallback is None and trainer.predicts_words,
            shared_prefix=trainer.settings.share_context,
            tags=not trainer.predicts_words,
        )
        if "packing" in wrong:
            raise SettingsError(
                "with this attention the documents of a batch see each other",
                where="model.attn_implementation",
                fix="set model.attn_implementation=sdpa and train.packing=false",
            )
        if "shared_prefix" in wrong:
            raise SettingsError(
                "this model computes other logits for rows with a shared prefix than for each row alone",
                where="train.share_context",
                fix="train.share_context=false",
            )
        if wrong:
            trainer.fallback = "the one-pass loss is not the model's own"
            logger.warning("loss: TRL's standard path, because %s", trainer.fallback)

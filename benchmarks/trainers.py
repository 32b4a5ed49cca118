"""The trainers that the benchmarks compare: TRL's, with its defaults or its best flags, and lora_med's.

Both train LoRA (r=16 on all linear layers) on rows of `{"input_ids", "trained"}` in the order of the list. `options`
are those of train_arm.py, and DEFAULTS are theirs. A clock counts the real tokens of each batch.
"""

from __future__ import annotations

import tempfile
from typing import Any, Protocol

LONGEST = 2048  # tokens a row
DEFAULTS = {
    "dtype": "bfloat16",
    "quantization": "none",
    "layers": None,
    "dropout": 0.05,
    "cache_frozen": False,
    "packing": False,
}


class Counter(Protocol):
    """What counts the tokens of a step."""

    def count(self, tokens: int) -> None:
        """Add to the tokens of this step."""


def real_tokens(inputs: dict[str, Any]) -> int:
    """The tokens of a batch, padding not counted; a batch without a mask has no padding."""
    mask = inputs.get("attention_mask")
    return int(inputs["input_ids"].numel() if mask is None else mask.sum())


def quantized(quantization: str, dtype: Any) -> dict[str, Any]:
    """What `from_pretrained` is told for a base in NF4 with double quantization, or in full precision."""
    if quantization != "4bit":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": four_bits, "device_map": {"": 0 if torch.cuda.is_available() else "cpu"}}


def trl_trainer(
    model: str,
    rows: list[dict[str, Any]],
    steps: int,
    batch: int,
    options: dict[str, Any],
    *,
    clock: Counter | None = None,
    best: bool = False,
) -> Any:
    """TRL as `trl sft` sets it, or with its best flags: weights in the requested format, and no checkpointing.

    The best flags on a GPU include autocast: without it the float32 adapters are multiplied in float32.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **rest: Any) -> Any:
            if clock is not None:
                clock.count(real_tokens(inputs))
            return super().training_step(model, inputs, *arguments, **rest)

    lowest = torch.bfloat16 if options["dtype"] == "bfloat16" else torch.float32
    flags: dict[str, Any] = {"bf16": options["dtype"] == "bfloat16"}
    if best:
        flags = {"bf16": flags["bf16"] and torch.cuda.is_available(), "gradient_checkpointing": False}
    loaded = AutoModelForCausalLM.from_pretrained(
        model, dtype=lowest if best else torch.float32, **quantized(options["quantization"], lowest)
    )
    data = [{"input_ids": row["input_ids"], "completion_mask": list(map(int, row["trained"]))} for row in rows]
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=steps,
        max_length=LONGEST,
        packing=options["packing"],
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        learning_rate=2e-4,
        completion_only_loss=True,
        disable_tqdm=True,
        logging_steps=1,
        train_sampling_strategy="sequential",
        **flags,
    )
    return Counting(
        model=loaded,
        args=arguments,
        train_dataset=Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=16,
            lora_alpha=32,
            lora_dropout=options["dropout"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
            layers_to_transform=options["layers"],
        ),
    )


def our_trainer(
    model: str,
    rows: list[dict[str, Any]],
    steps: int,
    batch: int,
    options: dict[str, Any],
    *,
    clock: Counter | None = None,
) -> Any:
    """lora_med as its recipes call it, but for the order of the rows."""
    from lora_med.adapters.runtime.attach import attach_new
    from lora_med.config.schema import LoraSettings, TrainSettings
    from lora_med.models.base import load_base
    from lora_med.prompts.tokens_and_labels import Tokens
    from lora_med.training.rows.batches import load_rows
    from lora_med.training.trainer import AdapterTrainer

    base = load_base(model, quantization=options["quantization"], dtype=options["dtype"])
    lora = LoraSettings(lora_dropout=options["dropout"], layers_to_transform=options["layers"])
    documents = [Tokens(str(number), row["input_ids"], row["trained"]) for number, row in enumerate(rows)]
    settings = TrainSettings(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_steps=steps,
        max_length=LONGEST,
        packing=options["packing"],
        logging_steps=1,
        cache_frozen=options["cache_frozen"],
    )

    class Counting(AdapterTrainer):
        def get_train_dataloader(self) -> Any:
            return load_rows(self.train_dataset, self.collator, batch_size=batch, share=self.share, seed=None)

        def training_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **rest: Any) -> Any:
            if clock is not None:
                clock.count(real_tokens(inputs))
            return super().training_step(model, inputs, *arguments, **rest)

    return Counting(attach_new(base, lora, seed=0), base, settings, train=documents)

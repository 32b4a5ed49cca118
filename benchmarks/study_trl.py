"""python benchmarks/study_trl.py --config smollm2_note --out FOLDER [key=value ...]: one adapter by TRL alone.

The peer of benchmarks/study.py. The rows are those that lora_med renders from the same settings (an equal prompt and
completion); tokens, batches, loss and optimizer are TRL's SFTTrainer's with equal settings. It saves what PEFT saves.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prepare import as_trl


def trl_rows(settings: Any) -> list[dict[str, Any]]:
    """The rows of the training split that lora_med would train, as TRL takes them."""
    from lora_med import open_corpus
    from lora_med.models.files.resolve import resolve_base
    from lora_med.models.tokenizer import load_tokenizer
    from lora_med.prompts.fit import fit_rows
    from lora_med.prompts.render import render

    corpus = open_corpus(settings.data)
    rows = render(corpus.train, corpus.templates, settings.train.too_long)
    tokenizer, _ = load_tokenizer(resolve_base(settings.model.base, None)[0])
    if settings.train.too_long == "drop":
        rows = [row for row in rows if fit_rows([row], tokenizer, settings.train.max_length)]
    return [as_trl(row) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    from lora_med.config.parse import parse
    from lora_med.models.files.resolve import resolve_base
    from lora_med.models.precision import best_dtype
    from lora_med.run import prepare_environment

    settings = parse(options.config, options.overrides)
    prepare_environment(settings.offline)
    rows = trl_rows(settings)

    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    folder = str(resolve_base(settings.model.base, None)[0])
    train, lora = settings.train, settings.lora
    dtype = best_dtype("cpu").value if settings.model.dtype == "auto" else settings.model.dtype
    arguments = SFTConfig(
        output_dir=str(options.out / "run"),
        per_device_train_batch_size=train.per_device_train_batch_size,
        num_train_epochs=train.num_train_epochs,
        max_steps=train.max_steps,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        warmup_steps=train.warmup_ratio,  # under one, transformers takes it as a share of the steps
        max_grad_norm=train.max_grad_norm,
        weight_decay=train.weight_decay,
        max_length=train.max_length,
        packing=train.packing,
        seed=train.seed,
        data_seed=train.seed,
        completion_only_loss="prompt" in rows[0],
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_steps=10,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(
            r=lora.r,
            lora_alpha=int(lora.lora_alpha),
            lora_dropout=lora.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()
    trainer.save_model(str(options.out))


if __name__ == "__main__":
    main()

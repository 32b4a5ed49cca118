"""Fold an adapter into the full-precision original of its base, and prove the result before keeping it.

    python recipes/merge_adapter.py adapter.name=quickstart-pubmed train.output_dir=runs/merged

It reads five settings. `adapter.name` and `adapter.store` name the adapter, and `model.base` (with `model.revision`)
the base it was trained on. `train.output_dir` is where the merged model goes: a folder that does not exist yet.
"""

from __future__ import annotations

import lora_med


def main(settings: lora_med.Settings) -> None:
    merged = lora_med.merge_adapter(
        settings.adapter.name,
        settings.train.output_dir,
        base=settings.model.base,
        revision=settings.model.revision,
        store=settings.adapter.store,
    )
    probe = merged.certificate["probe"]
    print(
        f"merged into {merged.folder}: mean KL from base + adapter {probe['mean_kl']:.2g} nats, "
        f"the same first choice at {probe['same_first_choice']:.1%} of {probe['positions']} positions"
    )


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

"""Score an adapter against its base on held-out items, with 95% intervals and a verdict.

    python recipes/eval_adapter.py --config quickstart_pubmed evaluate.max_items=200

It takes the settings file that trained the adapter. The section `data` names the files and how they are split. The
section `evaluate` chooses the split, how many items are scored, and metrics of your own. The report goes to `eval`
inside train.output_dir, and the scores go into the adapter's card.
"""

from __future__ import annotations

from pathlib import Path

import lora_med


def main(settings: lora_med.Settings) -> None:
    adapter, model, options = settings.adapter, settings.model, settings.evaluate
    card = lora_med.read_card(lora_med.find_adapter(adapter.name, adapter.store))
    base = lora_med.load_base(model.base, quantization=model.quantization, dtype=model.dtype, revision=model.revision)
    evaluation = lora_med.evaluate(
        base,
        [adapter.name],
        lora_med.open_heldout(settings.data, options.split, access=adapter.access),
        lora_med.EvalOptions(
            settings.data.template or card.template,
            store=adapter.store,
            max_items=options.max_items,
            bootstrap_samples=options.bootstrap_samples,
            seed=settings.data.split_seed,
            metrics={name: lora_med.load_metric(name) for name in options.metrics},
            lower_is_better=options.lower_is_better,
        ),
    )
    lora_med.record_scores(evaluation, adapter.store)
    report = lora_med.write_report(
        [evaluation], Path(settings.train.output_dir) / "eval", title=f"{adapter.name} against {model.base}"
    )
    print(report.markdown.read_text(encoding="utf-8"))
    print(f"the report: {report.html}")


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

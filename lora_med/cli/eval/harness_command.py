"""lora-med eval harness: task files for lm-evaluation-harness, to score the same items there."""

from __future__ import annotations

import json

from lora_med.cli.eval.heldout_paths import ask_for_data, check_written
from lora_med.cli.options import (
    STORE,
    Adapters,
    AsJson,
    Data,
    DataAccess,
    OutFolder,
    Overrides,
    Source,
    Split,
    Store,
    Tasks,
    Template,
)
from lora_med.cli.terminal import print_text
from lora_med.run import prepare_environment


def harness_command(
    out: OutFolder,
    overrides: Overrides = None,
    adapter: Adapters = None,
    task: Tasks = None,
    data: Data = None,
    source: Source = None,
    template: Template = None,
    access: DataAccess = None,
    store: Store = STORE,
    split: Split = None,
    as_json: AsJson = False,
) -> None:
    """Write the held-out items as tasks of lm-evaluation-harness: the same questions, options and texts."""
    prepare_environment(offline=True)
    from lora_med.adapters.store.card import read_card
    from lora_med.adapters.store.store import find_adapter
    from lora_med.evaluation.eval_options import PromptOptions
    from lora_med.workflows.evaluate import make_jobs, open_job
    from lora_med.workflows.lm_eval_export import task_name, write_harness, write_readme

    cards = [read_card(find_adapter(name, store)) for name in adapter or ()]
    written = []
    with ask_for_data(data):
        jobs = make_jobs(
            task or (),
            cards,
            source=source,
            template=template,
            paths=data or (),
            overrides=overrides or (),
            split=split,
            access=access,
        )
        names = [task_name(job.settings.source, job.template, job.split) for job in jobs]
        check_written(out, [f"{name}{ending}" for name in names for ending in (".jsonl", ".yaml")], jobs)
    for job in jobs:
        with ask_for_data(data):
            heldout = open_job(job, PromptOptions(), calibrate=False)
        written.append(write_harness(heldout, out, template=job.template, scoring=job.scoring))
    readme = write_readme(written, out)
    if as_json:
        print_text(
            json.dumps(
                {
                    "readme": str(readme),
                    "tasks": [{"name": task_file.name, "items": task_file.items} for task_file in written],
                }
            )
        )
        return
    for task_file in written:
        print_text(f"{task_file.name}: {task_file.items} items, {task_file.yaml}")
    print_text(f"how to run them: {readme}")

"""Train an adapter on a task: a prompt and its completion, or a conversation and its last answer.

    accelerate launch recipes/sft_task.py --config micro_pubmedqa data.paths=[ori_pqal.json]

Only the completion is trained, and it is never cut: train.too_long says what happens to a row longer than
train.max_length. The five steps are those of sft_pubmed.py, because the template decides what is trained. The same
command resumes from the last checkpoint. The test split stays closed: `lora-med eval` opens it.
"""

import lora_med


def main(settings: lora_med.Settings) -> None:
    with lora_med.open_data(settings) as data:  # the records, and the template that makes prompts of them
        base = data.load_base()  # in 4 or 8 bits, frozen, with its fingerprint
        adapter = base.attach()  # completions are found and checked; a new LoRA adapter
        trained = adapter.train()  # loss on the completions only
        trained.publish()  # all files or none, the card last


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

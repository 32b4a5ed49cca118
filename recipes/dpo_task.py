"""Train an adapter to prefer the better of two answers: pairs of a chosen and a rejected one (DPO).

    accelerate launch recipes/dpo_task.py --config micro_preferences data.paths=[pairs.jsonl]

The reference is the base, or with lora.continue_from the adapter that is trained further. Neither prompts nor answers
are cut; pairs that are too long are refused, or left out and counted. The card holds the preference accuracy on the
held-out pairs with its interval, and how long the answers are before and after. The same command resumes from the last
checkpoint. The test split stays closed: `lora-med eval` opens it.
"""

import lora_med


def main(settings: lora_med.Settings) -> None:
    with lora_med.open_data(settings) as data:  # the pairs; a prompt is in one split only
        base = data.load_base()  # in 4 or 8 bits, frozen: with the adapter at its start it is the reference
        adapter = base.attach()  # both answers of each pair are found and checked; a new LoRA adapter
        trained = adapter.train()  # the chosen answer likelier than the rejected one, compared with the reference
        trained.publish()  # all files or none, the card last


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__, overrides=["train.method=dpo"])

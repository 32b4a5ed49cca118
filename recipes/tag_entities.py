"""Train an adapter that tags named entities: LoRA on an encoder or a decoder, with a head that labels each token.

    accelerate launch recipes/tag_entities.py --config micro_tags train.learning_rate=1e-3

The base may be an encoder such as BERT, or a decoder, whose tokens see only what precedes them. The tags are B-, I- and
O over character offsets; the types are those of the training records. The head starts at zero, is trained in full and
is published in the adapter. The card names its labels and its scores on the validation split. The same command resumes
from the last checkpoint. The test split stays closed: `lora-med eval` opens it.
"""

import lora_med


def main(settings: lora_med.Settings) -> None:
    tagging = settings.lora.model_copy(update={"task_type": "TOKEN_CLS"})
    with lora_med.open_data(settings.model_copy(update={"lora": tagging})) as data:  # the entity types are found here
        base = data.load_base()  # with an untrained head for these types
        adapter = base.attach()  # texts are cut into tagged rows; a new LoRA adapter
        trained = adapter.train()
        trained.publish()  # with the head, its labels and its scores


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

"""Train an adapter on a task: a prompt and its completion, or a conversation and its last answer.

    accelerate launch recipes/sft_task.py --config lora_med/assets/configs/micro_pubmedqa.yaml train.learning_rate=1e-3

Only the completion is trained, and it is never cut: train.too_long says what is done with a row longer than
train.max_length. The steps are those of sft_pubmed.py: the template decides what is trained. The same command goes on
from the last checkpoint. The test part is not opened here: `lora-med eval` is for that.
"""

from sft_pubmed import main

import lora_med

if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

"""Train an adapter on running text: PubMed abstracts, or any source with a plain text template.

    accelerate launch recipes/sft_pubmed.py --config micro_pubmed data.paths=[pubmed25n0001.xml.gz]

Every token is trained, except typed tags that replace an identifier. Several documents share a row (train.packing) and
cannot see each other; a longer one is chunked without losing a token. A corpus larger than memory is read again at each
pass (data.streaming). The same command resumes from the last checkpoint. The test split stays closed: `lora-med eval`
opens it.
"""

import lora_med


def main(settings: lora_med.Settings) -> None:
    with lora_med.open_data(settings) as data:  # locks the folder; names, files and licenses are checked here
        base = data.load_base()  # in 4 or 8 bits, frozen, with its fingerprint
        adapter = base.attach()  # rows are tokenized and pass the preflight; a new LoRA adapter
        trained = adapter.train()  # resumes exactly; stops before a step that is not finite
        trained.publish()  # all files or none, the card last


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

"""Train an adapter that tags named entities: LoRA on an encoder or a decoder, with a head that labels each token.

    accelerate launch recipes/tag_entities.py --config lora_med/assets/configs/micro_tags.yaml train.learning_rate=1e-3

The base may be an encoder such as BERT, or a decoder, whose tokens see what stands before them only. The tags are B-,
I- and O over character offsets; the types are those of the training records. The head starts at zero, is trained whole
and published in the adapter; the card names its labels and the scores on the validation part. The same command goes on
from the last checkpoint. The test part is not opened here: `open_tagger` and `score_tags` are for that.
"""

import sys

import lora_med


def main(settings: lora_med.Settings) -> None:
    model, train, adapter = settings.model, settings.train, settings.adapter
    resolved = settings.model_dump(mode="json")
    with lora_med.start_run(train.output_dir, settings=resolved, seed=train.seed, command=sys.argv) as run:
        # What is cheap to find out comes first: a name that is taken, a source that is misspelt.
        lora_med.check_free(adapter.name, adapter.store, overwrite=adapter.overwrite)
        corpus = lora_med.open_corpus(settings.data)
        labels = lora_med.tag_labels(corpus.train)
        lora_med.check_training(train)
        facts = lora_med.data_facts(settings, corpus)
        run.restrict(facts.access)
        run.record(data=vars(facts), labels=labels, split=corpus.split)

        base = lora_med.load_tagger(
            model.base,
            labels,
            quantization=model.quantization,
            quant_type=model.bnb_4bit_quant_type,
            double_quant=model.bnb_4bit_use_double_quant,
            dtype=model.dtype,
            attention=model.attn_implementation,
            revision=model.revision,
        )
        run.record(choices=[str(choice) for choice in base.choices], base=vars(base.fingerprint))

        rows = lora_med.read_tagged(corpus.train, base, train)
        held_out = lora_med.read_tagged(corpus.validation, base, train, what="validation")
        run.record(lengths={"training": rows.report, "validation": held_out.report})

        peft_model = lora_med.attach_new(base, settings.lora, seed=train.seed, store=adapter.store, rows=rows.sample())
        trainer = lora_med.TagTrainer(
            peft_model,
            base,
            train,
            train=rows.rows,
            validation=held_out.rows,
            identity=lora_med.run_identity(settings, base, corpus.hashes),
        )
        trainer.train()

        found = lora_med.score_tags(peft_model, base, list(corpus.validation), train.max_length)
        scores = {**trainer.scores(), "entities (validation)": found}
        weights = trainer.weights()  # on every process: a model in shards is gathered
        if trainer.is_world_process_zero():
            folder = lora_med.publish(
                peft_model,
                base=base,
                name=adapter.name,
                store=adapter.store,
                template="tags",
                data=facts,
                settings=resolved,
                description=adapter.description,
                scores=scores,
                overwrite=adapter.overwrite,
                state=weights,
            )
            run.record(adapter=str(folder), scores=scores)


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

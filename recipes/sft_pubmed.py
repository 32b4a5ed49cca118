"""Train an adapter on running text: PubMed abstracts, or any source with a plain text template.

    accelerate launch recipes/sft_pubmed.py --config lora_med/assets/configs/micro_pubmed.yaml train.learning_rate=1e-3

Every token is trained but typed tags, which stand where an identifier was. Several documents share a row
(train.packing) and cannot see each other; one longer than a row is chunked, no token lost. A corpus larger than memory
is read again at each pass (data.streaming). The same command goes on from the last checkpoint. The test part is not
opened here: `lora-med eval` is for that.
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
        lora_med.check_validation_task(settings.evaluate, corpus, seed=settings.data.split_seed)
        lora_med.check_training(train)
        facts = lora_med.data_facts(settings, corpus)
        run.restrict(facts.access)
        run.record(data=vars(facts), template=corpus.template, split=corpus.split)

        base = lora_med.load_base(
            model.base,
            quantization=model.quantization,
            quant_type=model.bnb_4bit_quant_type,
            double_quant=model.bnb_4bit_use_double_quant,
            dtype=model.dtype,
            attention=model.attn_implementation,
            revision=model.revision,
            keep_quantized=model.keep_quantized,
        )
        run.record(choices=[str(choice) for choice in base.choices], base=vars(base.fingerprint))
        key = lora_med.data_key(settings, corpus)
        rows = lora_med.read_documents(corpus.train, corpus.templates, base, train, access=facts.access, key=key)
        held_out = lora_med.read_documents(
            corpus.validation, corpus.templates, base, train, access=facts.access, what="validation", key=key
        )
        run.record(lengths={"training": rows.report, "validation": held_out.report})

        peft_model = lora_med.attach_new(base, settings.lora, seed=train.seed, store=adapter.store, rows=rows.sample())
        trainer = lora_med.AdapterTrainer(
            peft_model,
            base,
            train,
            train=rows.documents,
            validation=held_out.documents,
            identity=lora_med.run_identity(settings, base, corpus.hashes, stream=key if rows.streamed else None),
            validation_task=lora_med.validation_task(settings.evaluate, corpus, base, seed=settings.data.split_seed),
        )
        trainer.train()

        weights = trainer.weights()  # on every process: a model in shards is gathered
        if trainer.is_world_process_zero():
            folder = lora_med.publish(
                peft_model,
                base=base,
                name=adapter.name,
                store=adapter.store,
                template=corpus.template,
                data=facts,
                settings=resolved,
                description=adapter.description,
                scores=trainer.scores(),
                overwrite=adapter.overwrite,
                state=weights,
            )
            run.record(adapter=str(folder), scores=trainer.scores())


if __name__ == "__main__":
    lora_med.run_recipe(main, doc=__doc__)

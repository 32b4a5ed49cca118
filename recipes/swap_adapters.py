"""python recipes/swap_adapters.py quickstart-pubmed quickstart-pubmedqa --prompt "Aspirin is"

Load one base once (the first adapter's, by its card), swap between the named adapters, and print each one's answer to
the same prompt with the time that the swap took. At the end the bare base runs again: its logits must be
bit-identical to those at the start.
"""

from __future__ import annotations

import argparse
import sys
import time

import lora_med


def main(names: list[str], prompt: str, base: str | None, store: str, max_new_tokens: int) -> None:
    card = lora_med.read_card(lora_med.find_adapter(names[0], store))
    loaded = lora_med.load_base(base or card.base.name, quantization=card.base.quantization)
    bare_ids = loaded.tokenizer(prompt, return_tensors="pt").to(loaded.model.device)
    before = loaded.model(**bare_ids).logits
    pool = lora_med.load_many(loaded, names, store)
    ids = loaded.tokenizer(prompt, return_tensors="pt").to(loaded.model.device)  # now with their trained tokens
    for name in [None, *names]:
        started = time.perf_counter()
        with lora_med.use(pool, name) as model:
            swap_microseconds = 1e6 * (time.perf_counter() - started)
            output = model.generate(**ids, max_new_tokens=max_new_tokens, do_sample=False)[0]
        print(f"\n== {name or 'the bare base'} (swapped in {swap_microseconds:.0f} microseconds)")
        new_tokens = output[ids["input_ids"].shape[1] :]
        print(loaded.tokenizer.decode(new_tokens, skip_special_tokens=True).strip())
    pool.close()
    restored = bool((loaded.model(**bare_ids).logits == before).all())
    print(f"\nthe base is {'exactly what it was' if restored else 'NOT what it was'}")
    if not restored:
        raise lora_med.LoraMedError("swapping changed the base", fix="report it: this is a bug in lora_med")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="adapter", help="names in the store")
    parser.add_argument("--prompt", required=True, help="the text that each adapter continues")
    parser.add_argument("--base", help="the base: a folder, a Hub id or micro [default: the base in the card]")
    parser.add_argument("--store", default="adapters", help="the folder that holds the adapters")
    parser.add_argument("--max-new-tokens", type=int, default=60)
    options = parser.parse_args()
    lora_med.prepare_environment(offline=True)
    try:
        main(**vars(options))
    except lora_med.LoraMedError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)

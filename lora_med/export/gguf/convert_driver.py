"""Runs one of llama.cpp's conversion scripts in a process of its own: `python -P convert_driver.py FACTS SCRIPT ...`.

Four things differ from a direct call of the script:
- Code that comes with a model is never run.
- Settings are read under the names that transformers uses today, or that it drops from a published config.json.
- A SentencePiece vocabulary in tokenizer.json alone gets the order of its merges as scores, not equal ones.
- A tokenizer whose hash llama.cpp does not know gets the pre-tokenizer named in FACTS, a JSON file.

Without a name in FACTS the default is used, which is enough to read the vocabulary only. Afterwards the key `known` of
FACTS is llama.cpp's own name by hash. This module imports nothing of lora_med.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any


def main(facts_path: Path, script: Path, arguments: list[str]) -> None:
    """Run `script` with `arguments`; afterwards the facts file has llama.cpp's own name of the pre-tokenizer."""
    sys.path[:0] = [str(script.parent), str(script.parent / "gguf-py")]
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    _refuse_foreign_code()
    base = importlib.import_module("conversion.base")
    _name_pre_tokenizer(base.TextModel, facts)
    _name_settings(base.ModelBase)
    _score_by_merges(base.gguf.LlamaHfVocab)
    sys.argv = [str(script), *arguments]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        facts_path.write_text(json.dumps(facts), encoding="utf-8")


def _refuse_foreign_code() -> None:
    transformers = importlib.import_module("transformers")
    for kind in (transformers.AutoTokenizer, transformers.AutoConfig):
        original = kind.from_pretrained

        def closed(*arguments: Any, _original: Any = original, **options: Any) -> Any:
            return _original(*arguments, **{**options, "trust_remote_code": False, "local_files_only": True})

        kind.from_pretrained = staticmethod(closed)


def _name_pre_tokenizer(text_model: Any, facts: dict[str, Any]) -> None:
    by_hash = text_model.get_vocab_base_pre

    def named(self: Any, tokenizer: Any) -> str:
        try:
            facts["known"] = by_hash(self, tokenizer)
        except NotImplementedError:
            facts["known"] = None
        return facts.get("pre") or facts["known"] or "default"

    text_model.get_vocab_base_pre = named


def _name_settings(model_base: Any) -> None:
    """Complete the settings, whether the converter's loader reads them or a class reads config.json itself."""
    load, start = model_base.load_hparams, model_base.__init__

    def loaded(folder: Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        return _complete(folder, load(folder, *arguments, **options))

    def started(self: Any, folder: Path, *arguments: Any, **options: Any) -> None:
        if options.get("hparams") is not None:
            options["hparams"] = _complete(folder, options["hparams"])
        start(self, folder, *arguments, **options)

    model_base.load_hparams, model_base.__init__ = staticmethod(loaded), started


def _complete(folder: Path, values: dict[str, Any]) -> dict[str, Any]:
    """The settings with those that only the published config.json has, and with the names that the converter reads."""
    published = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    complete = {**published, **values}
    for name, value in _older_names(complete).items():
        complete.setdefault(name, value)
    if complete.get("model_type") == "falcon" and not complete.get("new_decoder_architecture"):
        complete["num_kv_heads"] = 1 if complete.get("multi_query") else complete["num_attention_heads"]
    return complete


def _older_names(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that the converter reads under names of earlier versions of transformers, by model type."""
    kind, rotation = values.get("model_type"), values.get("rope_parameters") or {}
    if kind == "gpt2":
        return {"n_ctx": values["n_positions"]}
    if kind in ("gpt_neox", "cohere2"):
        return {"rotary_pct": rotation.get("partial_rotary_factor", 1.0)}
    if kind == "falcon_h1":
        return {"head_dim": values["hidden_size"] // values["num_attention_heads"]}
    return {}


def _score_by_merges(vocabulary: Any) -> None:
    read = vocabulary.__init__

    def read_with_ranks(self: Any, base_path: Path) -> None:
        read(self, base_path)
        merges = json.loads((base_path / "tokenizer.json").read_text(encoding="utf-8"))["model"].get("merges", [])
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
        ranks: dict[str, int] = {}
        for rank, (left, right) in enumerate(pairs):
            ranks.setdefault(left + right, rank)
        self.merge_ranks = {self.tokenizer.convert_tokens_to_ids(text): rank for text, rank in ranks.items()}

    def score(self: Any, token_id: int) -> float:
        # llama.cpp joins the pair with the highest score first, so a token without a merge comes last.
        return -float(self.merge_ranks.get(token_id, 10_000_000))

    vocabulary.__init__ = read_with_ranks
    vocabulary.get_token_score = score


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

"""merge_adapter(): an adapter folded into its base, proved equal to base + adapter, then renamed to its final name.

Everything happens in a hidden folder beside the target, which is renamed only after the proof. So a refusal or a kill
leaves no folder that looks like a model. `merge_certificate.json` states the inputs, the outputs and their difference.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_med.adapters.store.card import Card
from lora_med.adapters.store.published import Published
from lora_med.adapters.store.store import CHAT_TEMPLATE
from lora_med.config.near_names import unknown
from lora_med.errors import DiskError, IntegrityError, SettingsError
from lora_med.files import read_json, write_atomic, write_json
from lora_med.folders import fresh_folder, held, sweep_folders
from lora_med.merge.fold.fold import NAMES, fold, size_after
from lora_med.merge.fold.merge_plan import Plan, Quantized, plan_merge
from lora_med.merge.merged_readme import render_readme
from lora_med.merge.proof.certificate import CERTIFICATE, Arithmetic, certify
from lora_med.merge.proof.heldout_nll import HeldOut, read_heldout
from lora_med.merge.proof.logits import Tolerance
from lora_med.merge.proof.proof import ON_DISK, prove, reference_outputs, training_dtype
from lora_med.merge.rounded_original import Rounding, open_for_merge
from lora_med.models.fingerprint import TOKENIZER_CONFIG
from lora_med.models.on_disk.stored_quantization import StoredQuantization, stored_quantization
from lora_med.models.tokens.tokenizer_files import write_tokens
from lora_med.run import keep_private

ONTO = ("original", "dequantized")
VERIFY = ("auto", "probes", "tensors", "none")
COPIED = ("generation_config.json", "LICENSE*", "NOTICE*")
TOKENIZER = (CHAT_TEMPLATE, "tokenizer*.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
TOKENIZER += ("merges.txt", "special_tokens_map.json", "added_tokens.json")
BYTES_BESIDES_WEIGHTS = 1 << 24  # bytes of tokenizer, settings, headers
ProgressCallback = Callable[[int, int], None]


def _no_progress(done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Merge:
    """A merged model's folder, and the content of its merge_certificate.json."""

    folder: Path
    certificate: Mapping[str, Any]


def merge_adapter(
    name: str,
    out: Path | str,
    *,
    base: str | None = None,
    revision: str | None = None,
    store: Path | str = "adapters",
    onto: str = "original",
    dtype: str | None = None,
    verify: str = "auto",
    heldout: Path | str | None = None,
    tolerance: Tolerance | None = None,
    progress: ProgressCallback = _no_progress,
) -> Merge:
    """Fold the adapter into the full-precision original of its base, prove it, and write a model folder at `out`.

    A base that is quantized on disk is dequantized. Its original may be given as `base`; it is proved to be that first.

    Args:
        name: of the adapter in the store.
        out: a folder that does not exist yet, or is empty.
        base: folder, Hub id or `micro`; None takes what the adapter's card names.
        revision: of a base on the Hub; None takes the card's.
        store: the folder of adapters.
        onto: `original`, or `dequantized` for the dequantized values of the base that the adapter was trained on.
        dtype: `float32`, `bfloat16` or `float16` of the result; None keeps the base's own.
        verify: `probes` (logits), `tensors` (rows recomputed, without a model), `none`; `auto`: what fits in memory.
        heldout: a text file, one text a line, whose nll is measured under base + adapter and after the merge.
        tolerance: the largest allowed difference from base + adapter; None takes the dtype's own.
        progress: called with the bytes written so far and in total.

    Raises:
        BaseMismatchError: the adapter was trained on another base.
        IntegrityError: a file was changed, a tensor does not fit, or the result exceeds the tolerance.
        OutputError: `out` is not empty or cannot be written.
        DiskError: the result does not fit onto the disk.
        SettingsError: the adapter's method cannot be merged exactly, or an option has no such value.
    """
    _check_choices(dtype or "float32", onto, verify)
    texts = None if heldout is None else read_heldout(Path(heldout))
    adapter, rounding = open_for_merge(name, store, base, revision)
    return merge_published(
        adapter,
        Path(out),
        onto=onto,
        dtype=dtype,
        verify=verify,
        texts=texts,
        tolerance=tolerance,
        progress=progress,
        rounding=rounding,
    )


def merge_published(
    adapter: Published,
    target: Path,
    *,
    onto: str = "original",
    dtype: str | None = None,
    verify: str = "auto",
    texts: HeldOut | None = None,
    tolerance: Tolerance | None = None,
    progress: ProgressCallback = _no_progress,
    rounding: Rounding | None = None,
) -> Merge:
    """What `merge_adapter` returns, for an adapter that is open already; its verified bytes are folded.

    Args:
        texts: held-out texts to score; the other arguments are those of `merge_adapter`.
        rounding: the proof that the adapter's own base is the rounding of this one, which the certificate records.

    Raises:
        All that `merge_adapter` raises, except errors of opening the adapter.
    """
    started = time.perf_counter()
    _check_choices(dtype or "float32", onto, verify)
    card = replace(adapter.card, data=adapter.data)
    stored = stored_quantization(adapter.base)
    quantized = _quantized_again(card, stored, onto, rounding)
    onto = ON_DISK if stored is not None and quantized is None else onto
    plan = plan_merge(adapter.folder, adapter.base, quantized, adapter.contents)
    adds_words = any(output.tokens and output.shape != output.source.shape for output in plan.outputs.values())
    if adds_words and not card.tokens:
        raise IntegrityError(
            "the adapter trains tokens that its base does not have, and its card does not name them",
            where=str(adapter.folder),
            fix="publish it again",
        )
    sweep_folders(target)
    check_disk_space(plan, dtype, target)
    with fresh_folder(target) as temporary, held(temporary):
        reference = reference_outputs(adapter, plan, verify=verify, onto=onto, texts=texts)
        weights = fold(plan, temporary, dtype=dtype, advance=_advance(progress, size_after(plan, dtype)))
        copy_around(plan.base, temporary, plan.settings, dtype)
        if adapter.chat_template is not None:
            write_chat_template(temporary, adapter.chat_template)
        if card.tokens:
            write_tokens(temporary, card.tokens)
        proof = prove(plan, temporary, reference, dtype=dtype, texts=texts, tolerance=tolerance)
        certificate = certify(
            card,
            card_sha256=adapter.card_sha256,
            plan=plan,
            out=temporary,
            base_name=adapter.base_name,
            revision=adapter.revision,
            arithmetic=Arithmetic(onto, dtype, stored, rounding),
            weights=weights,
            proof=proof,
        )
        certificate["seconds"] = round(time.perf_counter() - started, 1)
        sign(temporary, target.name, certificate, private=card.data.access == "credentialed")
    return Merge(target, certificate)


def sign(folder: Path, name: str, certificate: Mapping[str, Any], *, private: bool) -> None:
    """Write README and certificate, the latter last; with `private`, only the owner may read the files."""
    write_atomic(folder / "README.md", render_readme(name, certificate))
    write_json(folder / CERTIFICATE, dict(certificate))
    if private:
        keep_private(folder)


def _check_choices(dtype: str, onto: str, verify: str) -> None:
    for value, choices, where in ((dtype, NAMES, "--dtype"), (onto, ONTO, "--onto"), (verify, VERIFY, "--verify")):
        if value not in choices:
            raise SettingsError(unknown(where.removeprefix("--"), value, choices), where=where)


def quantized_as(card: Card) -> Quantized:
    """How the adapter's base was quantized during training.

    Raises:
        SettingsError: it was not quantized.
    """
    if card.base.quantization == "none":
        raise SettingsError(
            f"adapter {card.name!r} was trained on an unquantized base, so there is nothing dequantized to merge onto",
            where="--onto",
            fix="--onto original",
        )
    model = card.settings.get("model") or {}
    return Quantized(
        bits=int(card.base.quantization.removesuffix("bit")),
        quant_type=str(model.get("bnb_4bit_quant_type") or "nf4"),
        double_quant=model.get("bnb_4bit_use_double_quant") is not False,
        dtype=training_dtype(card),
    )


def _quantized_again(
    card: Card, stored: StoredQuantization | None, onto: str, rounding: Rounding | None
) -> Quantized | None:
    """How the base's full-precision values must be quantized for `onto`; None if they are what is merged onto."""
    if onto == "original":
        return None
    if rounding is not None:
        raise SettingsError(
            "--base names the original of the quantized base, and --onto dequantized its dequantized values",
            where="--onto",
            fix="leave one of the two out",
        )
    if stored is not None and card.base.quantization in ("none", stored.loads_as):
        return None
    return quantized_as(card)


def check_disk_space(plan: Plan, dtype: str | None, target: Path) -> None:
    """Refuse a merge that needs more free disk space than `target` has.

    Raises:
        DiskError: with the needed and the free space.
    """
    existing = next(folder for folder in (target, *target.absolute().parents) if folder.is_dir())
    needed, free = size_after(plan, dtype) + BYTES_BESIDES_WEIGHTS, shutil.disk_usage(existing).free
    if needed > free:
        raise DiskError(
            f"the merged model needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(target),
            fix="free some space, or name a folder on another disk",
        )


def _advance(progress: ProgressCallback, total: int) -> Callable[[int], None]:
    done = 0

    def advance(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    return advance


def copy_around(
    base: Path, out: Path, changed: Mapping[str, Any], dtype: str | None, tokenizer: Path | None = None
) -> None:
    """Copy settings and tokenizer by an allow-list: no adapter_config.json, no code, no pickles.

    Args:
        tokenizer: the folder to take the tokenizer from; None takes the base's.
    """
    config = {**read_json(base / "config.json"), **changed}
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    write_json(out / "config.json", config)
    for folder, patterns in ((base, COPIED), (tokenizer or base, TOKENIZER)):
        for path in (path for pattern in patterns for path in folder.glob(pattern)):
            shutil.copyfile(path, out / path.name)


def write_chat_template(folder: Path, text: str) -> None:
    """Give the model in `folder` this chat template alone: some readers take that of tokenizer_config.json first."""
    write_atomic(folder / CHAT_TEMPLATE, text)
    settings_file = folder / TOKENIZER_CONFIG
    if settings_file.is_file():
        settings = read_json(settings_file)
        if settings.pop("chat_template", None) is not None:
            write_json(settings_file, settings)

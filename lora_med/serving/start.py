"""From names of adapters to a running engine: what is cheap to refuse is refused before the base is loaded."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_med.adapters.store.published import Published, open_published
from lora_med.errors import DependencyMissingError, SettingsError, UsageError
from lora_med.models.base import Base, load_base, resolve_base
from lora_med.models.on_disk.weights_source import stored_bits
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Limits
from lora_med.serving.served_models import Audience, ServedModels, check_name_is_free, one_quantization

logger = logging.getLogger(__name__)
WEB_PACKAGES = ("uvicorn", "starlette", "h11")


@dataclass(frozen=True)
class Wanted:
    """What a user names: adapters of a store, or a base alone; None takes what the adapters' cards say."""

    names: tuple[str, ...]
    store: Path
    base: str | None = None
    revision: str | None = None
    quantization: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Opened:
    """Adapters whose files and base are checked, and how the base will be loaded; no weights are in memory yet."""

    adapters: tuple[Published, ...]
    store: Path
    base: str
    revision: str | None
    quantization: str
    dtype: str | None


def require_web() -> None:
    """Refuse to go on without the packages of the extra `serve`.

    Raises:
        DependencyMissingError: it names them.
    """
    missing = [name for name in WEB_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DependencyMissingError(
            f"serving needs {', '.join(missing)}", fix='pip install "lora-med[serve]"', where="the Python environment"
        )


def open_all(wanted: Wanted, audience: Audience) -> Opened:
    """Open the adapters and find their base, which is one for all; without adapters the base is served alone.

    Raises:
        LoraMedError: a name, a file, a base, an access class or a format that does not allow it.
    """
    names, store = wanted.names, wanted.store
    if not names and wanted.base is None:
        raise UsageError("neither --adapter nor --base is given", fix="lora-med adapters list")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise SettingsError(f"adapter {twice!r} is named twice", where="--adapter", fix="name it once")
    if not names:
        folder, commit = resolve_base(str(wanted.base), wanted.revision)
        audience.admit_base(str(wanted.base), folder)
        weights = wanted.quantization or stored_bits(folder)
        return Opened((), store, str(wanted.base), commit, weights, wanted.dtype)
    opened: list[Published] = []
    base, revision = wanted.base, wanted.revision
    for name in names:
        opened.append(open_published(name, store, base, revision))
        audience.admit(opened[-1].card)
        base, revision = opened[0].base_name, opened[0].revision  # the first card's, where none is given
    audience.admit_base(opened[0].base_name, opened[0].base)
    check_name_is_free(names, opened[0].base_name)
    weights = wanted.quantization or one_quantization([one.card for one in opened])
    return Opened(tuple(opened), store, opened[0].base_name, opened[0].revision, weights, wanted.dtype)


@contextmanager
def running_engine(opened: Opened, limits: Limits, audience: Audience) -> Iterator[tuple[Engine, ServedModels, Base]]:
    """Load the base and the adapters; the engine runs until the end of the block, and drains there."""
    started = time.perf_counter()
    dtype = opened.dtype or "auto"
    base = load_base(opened.base, quantization=opened.quantization, revision=opened.revision, dtype=dtype)
    engine = Engine(base, limits)
    engine.start()
    try:
        models = ServedModels(engine, base, opened.store, audience)
        for adapter in opened.adapters:
            models.add(adapter)
        logger.info(
            "%s and %d adapters are loaded in %.1f s",
            models.base_name,
            len(opened.adapters),
            time.perf_counter() - started,
        )
        yield engine, models, base
    except BaseException:
        engine.stop(drain=False)
        raise
    engine.stop(drain=True)

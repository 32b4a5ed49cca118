"""From names of adapters to a running engine: what is cheap to refuse is refused before the base is loaded."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lora_med.adapters.store.published import Published, open_published
from lora_med.errors import DependencyMissingError, SettingsError, UsageError
from lora_med.models.base import Base, load_base, resolve_base
from lora_med.models.files.resolve import display_name
from lora_med.models.on_disk.weights_source import stored_bits
from lora_med.serving.engine import Engine
from lora_med.serving.requests import Limits
from lora_med.serving.served_models import Audience, ServedModels, one_quantization

logger = logging.getLogger(__name__)
WEB_PACKAGES = ("uvicorn", "starlette", "h11")


@dataclass(frozen=True)
class Opened:
    """Adapters whose files and base are checked, and how the base will be loaded; no weights are in memory yet."""

    adapters: tuple[Published, ...]
    base: str
    revision: str | None
    quantization: str


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


def open_all(
    names: Sequence[str],
    store: Path,
    *,
    base: str | None,
    revision: str | None,
    quantization: str | None,
    audience: Audience,
) -> Opened:
    """Open the adapters and find their base, which is one for all; without adapters `base` is served alone.

    Raises:
        LoraMedError: a name, a file, a base, an access class or a format that does not allow it.
    """
    if not names and base is None:
        raise UsageError("neither --adapter nor --base is given", fix="lora-med adapters list")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise SettingsError(f"adapter {twice!r} is named twice", where="--adapter", fix="name it once")
    opened: list[Published] = []
    for name in names:
        first = opened[0] if opened else None
        adapter = open_published(
            name, store, base if first is None else first.base_name, revision if first is None else first.revision
        )
        audience.admit(adapter.card)
        opened.append(adapter)
    if not opened:
        folder, commit = resolve_base(str(base), revision)
        return Opened((), str(base), commit, quantization or stored_bits(folder))
    first = opened[0]
    taken = next((one.name for one in opened if one.name == display_name(first.base_name)), None)
    if taken is not None:
        raise SettingsError(
            f"adapter and base are both called {taken!r}, so a request could not say which it means",
            where="--adapter",
            fix="publish the adapter under another name",
        )
    weights = quantization or one_quantization([one.card for one in opened])
    return Opened(tuple(opened), first.base_name, first.revision, weights)


@contextmanager
def running_engine(
    opened: Opened, store: Path, limits: Limits, *, dtype: str | None, audience: Audience
) -> Iterator[tuple[Engine, ServedModels, Base]]:
    """Load the base and the adapters; the engine runs until the end of the block, and drains there."""
    started = time.perf_counter()
    base = load_base(opened.base, quantization=opened.quantization, revision=opened.revision, dtype=dtype or "auto")
    engine = Engine(base, limits)
    engine.start()
    try:
        models = ServedModels(engine, base, store, audience)
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

"""lora_med: medical text in, a small adapter you can trust out.

The public door. Each name is loaded from its room when first used, so `import lora_med` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Base": "lora_med.models.base",
    "DataFacts": "lora_med.adapters.card",
    "LoraMedError": "lora_med.errors",
    "Settings": "lora_med.config.schema",
    "attach": "lora_med.adapters.attach",
    "attach_new": "lora_med.adapters.attach",
    "detach": "lora_med.adapters.attach",
    "load_base": "lora_med.models.base",
    "load_many": "lora_med.adapters.swap",
    "parse": "lora_med.config.parse",
    "publish": "lora_med.adapters.store",
    "run_recipe": "lora_med.cli.recipe",
    "start_run": "lora_med.run",
    "use": "lora_med.adapters.swap",
    "write_sample": "lora_med.data.synthetic.corpus",
}

if TYPE_CHECKING:
    from lora_med.adapters.attach import attach as attach
    from lora_med.adapters.attach import attach_new as attach_new
    from lora_med.adapters.attach import detach as detach
    from lora_med.adapters.card import DataFacts as DataFacts
    from lora_med.adapters.store import publish as publish
    from lora_med.adapters.swap import load_many as load_many
    from lora_med.adapters.swap import use as use
    from lora_med.cli.recipe import run_recipe as run_recipe
    from lora_med.config.parse import parse as parse
    from lora_med.config.schema import Settings as Settings
    from lora_med.data.synthetic.corpus import write_sample as write_sample
    from lora_med.errors import LoraMedError as LoraMedError
    from lora_med.models.base import Base as Base
    from lora_med.models.base import load_base as load_base
    from lora_med.run import start_run as start_run

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'lora_med' has no public name {name!r}; there are: {', '.join(__all__)}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

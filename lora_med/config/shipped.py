"""The settings files that ship with the package, found by name: `--config micro_pubmed`."""

from __future__ import annotations

from pathlib import Path

from lora_med.config.near_names import unknown
from lora_med.errors import InputMissingError

CONFIGS = Path(__file__).parents[1] / "assets" / "configs"


def list_configs() -> dict[str, str]:
    """Name -> purpose of each settings file that ships, sorted; the purpose is the file's first comment."""
    files = sorted(CONFIGS.glob("*.yaml"))
    return {path.stem: path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for path in files}


def find_config(path: Path | str) -> Path:
    """The settings file `path`; a name without a folder or an ending may name one that ships.

    Raises:
        InputMissingError: there is no such file, and no shipped one of that name.
    """
    path = Path(path)
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        return path
    shipped = CONFIGS / f"{path}.yaml"
    if not shipped.is_file():
        raise InputMissingError(
            unknown("settings file", str(path), list_configs()),
            where="--config",
            fix="`lora-med config list` shows those that ship; else give the path of your own file",
        )
    return shipped

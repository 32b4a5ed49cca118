"""The wheel of this tree, installed into an environment without the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(kind: str, folder: Path) -> Path:
    """The wheel or the sdist of a copy of what git tracks, so that nothing of a working tree gets in."""
    copy = folder / "source"
    if not copy.exists():
        copy.mkdir()
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in names:
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                (copy / name).write_bytes((ROOT / name).read_bytes())
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("built")


@pytest.fixture(scope="session")
def command(built: Path) -> Path:
    """`lora-med` of an environment that has the wheel, and the other packages of this one without the clone."""
    wheel, environment = build("wheel", built), built / "environment"
    venv.create(environment, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    done = subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own = next(environment.glob("lib/python*/site-packages"))
    (own / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth, the clone's, is not read
    return environment / "bin" / "lora-med"


def away() -> dict[str, str]:
    """This environment without what leads back to the clone."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(command: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run([str(command), *arguments], cwd=folder, env=away(), capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-3000:]}"
    assert str(ROOT) not in done.stdout + done.stderr
    return done.stdout

"""A software bill of materials of an adapter, a merged model or an export, in CycloneDX 1.6.

The versions are those that its card, certificate or export record holds. Where the same versions are installed here,
the bill also has their licenses and all packages that they depend on. The model is a component with the hashes of its
files; its base and its adapter are components too. Source of the form: https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from packaging.requirements import Requirement

from lora_med.errors import DependencyMissingError, IntegrityError
from lora_med.files import read_json, sha256_file
from lora_med.signatures import PAPERS, kind_of

OURS, PYTHON = "lora-med", "python"


def bill_of_materials(folder: Path) -> str:
    """The bill of a folder that lora_med made, as CycloneDX JSON.

    Raises:
        InputMissingError: the folder has no card, certificate or export record.
        IntegrityError: its paper does not record versions.
        DependencyMissingError: the package cyclonedx-python-lib is not installed.
    """
    library = _library()
    kind = kind_of(folder)
    paper = next(name for name in PAPERS if PAPERS[name] == kind)
    facts = read_json(folder / paper)
    if not isinstance(facts, dict) or not isinstance(facts.get("versions"), dict):
        raise IntegrityError("no versions of packages are recorded", where=str(folder / paper))
    bom = _bom(library, folder, kind, facts)
    output = library.make_outputter(bom, library.OutputFormat.JSON, library.SchemaVersion.V1_6)
    return str(output.output_as_string(indent=2)) + "\n"


def _bom(library: Any, folder: Path, kind: str, facts: Mapping[str, Any]) -> Any:
    model = library.Component(
        name=str(facts.get("name") or folder.name),
        type=library.ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description=f"{kind}, made by lora_med",
        components=[_file(library, folder, path) for path in _files(folder)],
    )
    bom = library.Bom()
    bom.metadata.component = model
    recorded = {_normal(name): str(version) for name, version in facts["versions"].items()}
    packages = {name: _package(library, name, version) for name, version in sorted(_closure(recorded).items())}
    parts = list(_model_parts(library, facts))
    for component in [*parts, *packages.values()]:
        bom.components.add(component)
    bom.register_dependency(model, [*parts, *(packages[name] for name in recorded)])
    for name, component in packages.items():
        bom.register_dependency(component, [packages[other] for other in _needs(name) if other in packages])
    return bom


def _model_parts(library: Any, facts: Mapping[str, Any]) -> Iterator[Any]:
    """The base and, where it is another than the folder itself, the adapter."""
    for part in ("base", "adapter"):
        recorded = facts.get(part)
        if isinstance(recorded, dict) and recorded.get("name"):
            prints = recorded.get("fingerprint")
            hashes = dict(prints) if isinstance(prints, dict) else dict(recorded.get("files") or {})
            yield library.Component(
                name=str(recorded["name"]),
                type=library.ComponentType.MACHINE_LEARNING_MODEL,
                bom_ref=part,
                version=recorded.get("revision"),
                description=part,
                properties=_properties(library, {f"lora_med:{part}:{name}": value for name, value in hashes.items()}),
            )


def _package(library: Any, name: str, version: str) -> Any:

    licenses = []
    if name != PYTHON and _installed(name) == version:
        about: Any = importlib.metadata.metadata(name)
        license_name = about.get("License-Expression") or about.get("License")
        if license_name and len(license_name) < 100:  # some packages put the whole text there
            licenses = [library.LicenseFactory().make_from_string(license_name)]
    kind = "generic" if name == PYTHON else "pypi"
    return library.Component(
        name=name,
        type=library.ComponentType.PLATFORM if name == PYTHON else library.ComponentType.LIBRARY,
        bom_ref=f"{name}@{version}",
        version=version,
        purl=library.PackageURL(kind, name=name, version=version),
        licenses=licenses,
    )


def _closure(recorded: Mapping[str, str]) -> dict[str, str]:
    """The recorded packages, and what those depend on that are installed here in their recorded versions."""
    versions = dict(recorded)
    waiting = [name for name, version in recorded.items() if _installed(name) == version]
    while waiting:
        for other in _needs(waiting.pop()):
            installed = _installed(other)
            if installed is not None and other not in versions:
                versions[other] = installed
                waiting.append(other)
    return versions


def _needs(name: str) -> list[str]:
    """The names of the packages that an installed one requires here, without its extras."""
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
    except importlib.metadata.PackageNotFoundError:
        return []
    return [_normal(one.name) for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    """The name as the Python index writes it."""
    return name.lower().replace("_", "-").replace(".", "-")


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _file(library: Any, folder: Path, path: Path) -> Any:

    name = path.relative_to(folder).as_posix()
    hashes = [library.HashType(alg=library.HashAlgorithm.SHA_256, content=sha256_file(path))]
    return library.Component(name=name, type=library.ComponentType.FILE, bom_ref=f"file:{name}", hashes=hashes)


def _properties(library: Any, facts: Mapping[str, Any]) -> list[Any]:

    return [library.Property(name=name, value=str(value)) for name, value in facts.items()]


def _library() -> Any:
    """The classes of cyclonedx-python-lib; its decorators hide their parameters from type checkers."""
    try:
        from cyclonedx.factory.license import LicenseFactory
        from cyclonedx.model import HashAlgorithm, HashType, Property
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output import make_outputter
        from cyclonedx.schema import OutputFormat, SchemaVersion
        from packageurl import PackageURL
    except ImportError as error:
        raise DependencyMissingError(
            "a bill of materials needs the package cyclonedx-python-lib, which is not installed",
            where="lora-med sign bill",
            fix='pip install "lora-med[sign]"',
        ) from error
    models = {"Bom": Bom, "Component": Component, "ComponentType": ComponentType, "Property": Property}
    hashes = {"HashAlgorithm": HashAlgorithm, "HashType": HashType}
    output = {"make_outputter": make_outputter, "OutputFormat": OutputFormat, "SchemaVersion": SchemaVersion}
    return SimpleNamespace(**models, **hashes, **output, LicenseFactory=LicenseFactory, PackageURL=PackageURL)

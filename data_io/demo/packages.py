"""Finds installed packages, their sources and their licenses. Nothing is imported."""

import importlib.metadata
import importlib.util
import platform
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STANDARD_LIBRARY = "python"
_FIELDS = ("License-Expression", "License")


@dataclass(frozen=True)
class Package:
    """An installed package: the directory of its sources, its version, and the license that its metadata states."""

    name: str
    root: Path
    version: str
    license: str


def installed_packages(names: Sequence[str]) -> list[Package]:
    """The installed packages among `names` (import names), in that order. "python" is the standard library."""
    distributions = importlib.metadata.packages_distributions()
    return [package for name in names if (package := _package(name, distributions)) is not None]


def _package(name: str, distributions: Mapping[str, Sequence[str]]) -> Package | None:
    if name == STANDARD_LIBRARY:
        return Package(name, Path(sysconfig.get_paths()["stdlib"]), platform.python_version(), "PSF-2.0")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations or name not in distributions:
        return None
    distribution = importlib.metadata.distribution(sorted(distributions[name])[0])
    root = Path(next(iter(spec.submodule_search_locations)))
    return Package(name, root, distribution.version, license_of(distribution.metadata))


def license_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """The license in a package's METADATA: the SPDX expression, or a short text, or the classifiers, in this order."""
    expression, text = ((metadata[field] or "").strip() if field in metadata else "" for field in _FIELDS)
    if expression:
        return expression
    if text and "\n" not in text and len(text) <= 60:
        return text
    classifiers = metadata.get_all("Classifier") or []
    stated = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License ::") and c[11:] != "OSI Approved"]
    return " / ".join(stated) or "not stated"

"""Find files inside installed packages, without importing the packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from hoplens.errors import FileError, ParameterError

INSTALL = "pip install 'hoplens[data]'"


def file_in_package(package: str, *parts: str) -> Path:
    """Return the path of a file or folder inside a package, which is looked up but not imported.

    ``package``: name under which it is imported. ``*parts``: path below the package's folder.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ParameterError(f"this data set is read from the package {package!r}: {INSTALL}")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    found = [folder.joinpath(*parts) for folder in folders if folder.joinpath(*parts).exists()]
    if not found:
        raise FileError(
            f"no {'/'.join(parts)} in the installed {package} ({folders[0]}); reinstall it: {INSTALL}"
        )
    return found[0]

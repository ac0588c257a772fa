"""The study that a store keeps, and the code that comes with it, which is run only if it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hoplens.errors import FileError, HoplensError, ParameterError
from hoplens.studies.extensions.files import SourceFile, load_source
from hoplens.studies.sweeps.checked import damaged, read_object
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.store import open_store
from hoplens.studies.sweeps.strict import complain
from hoplens.studies.sweeps.trust import strangers
from hoplens.text import printable


@dataclass(frozen=True)
class StoredStudy:
    """The latest study of a store as JSON, not yet made, and the files of code that it brings."""

    folder: Path
    text: str
    code: tuple[SourceFile, ...]

    @property
    def strangers(self) -> tuple[SourceFile, ...]:
        """The files that this user has not run before."""
        return strangers(self.code)

    def load(self) -> Study:
        """Run the code of the study and make it."""
        for source in self.code:
            load_source(source)
        study = study_of(self.text, self.folder)
        study.load_data()
        return study


def read_stored(folder: Path) -> StoredStudy:
    """Read the latest study of a store; runs nothing."""
    with open_store(folder) as store:
        text = store.source()
    if not text:
        raise ParameterError(f"the study in {folder} was made in Python; go on with run_sweep from there")
    return StoredStudy(folder, text, code_of(text, folder))


def study_of(text: str, folder: Path) -> Study:
    """Return the study that a store keeps as JSON; its code must be loaded."""
    try:
        return Study.model_validate_json(text)
    except (ValueError, RecursionError, HoplensError) as error:
        reason = complain(error, Study, "study") if isinstance(error, ValidationError) else str(error)
        raise FileError(
            f"{folder} holds a study that this version of hoplens does not know ({printable(reason)}); run "
            "it from its file"
        ) from None


def code_of(text: str, folder: Path) -> tuple[SourceFile, ...]:
    """Return the files of code that a study in a store brings, without running them."""
    plugins = read_object(text, folder, "the study").get("plugins", [])
    if not isinstance(plugins, list) or not all(_is_code(plugin) for plugin in plugins):
        raise damaged(folder, "the plugins of its study are no list of paths and texts")
    return tuple(SourceFile(plugin["path"], plugin["text"]) for plugin in plugins)


def _is_code(plugin: object) -> bool:
    return isinstance(plugin, dict) and all(isinstance(plugin.get(name), str) for name in ("path", "text"))


__all__ = ["StoredStudy", "code_of", "read_stored", "study_of"]

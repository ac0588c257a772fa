"""The study that a store keeps, and the code that comes with it, which is run only if it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hoplens.errors import ParameterError
from hoplens.studies.extensions import SourceFile, load_source
from hoplens.studies.sweeps.config import Study
from hoplens.studies.sweeps.searching import Search, code_of, source_of
from hoplens.studies.sweeps.store import open_store
from hoplens.studies.sweeps.trust import code_hash, strangers
from hoplens.text import printable

ASK = (
    "{store} holds Python code that you have not run before, shown above, and going on runs it with all your "
    "rights; read it, then give --trust-code, or run the study from its file"
)


@dataclass(frozen=True)
class Stored:
    """The latest study of a store, not yet made.

    Attributes
    ----------
    folder : Path
    text : str
        The study as JSON.
    code : tuple of SourceFile
        The files that it brings.
    strangers : tuple of SourceFile
        Those that this user has not run before.
    """

    folder: Path
    text: str
    code: tuple[SourceFile, ...]
    strangers: tuple[SourceFile, ...]

    def load(self) -> Study | Search:
        """Run the code of the study and make it."""
        for source in self.code:
            load_source(source)
        return source_of(self.text, self.folder)


def read_stored(folder: Path) -> Stored:
    """Read the latest study of a store; runs nothing."""
    with open_store(folder) as found:
        text = found.source()
    if not text:
        raise ParameterError(f"the study in {folder} was made in Python; go on with run_sweep from there")
    code = code_of(text, folder)
    return Stored(folder, text, code, strangers(code))


def show_code(console: Console, folder: Path, code: tuple[SourceFile, ...], *, dry_run: bool) -> None:
    """Print the code that a store brings, whole, with nothing in it that a terminal would act on."""
    lines = []
    for source in code:
        lines.append(f"--- {printable(source.path)}, as the store calls it (SHA-256 {code_hash(source)})")
        lines += [printable(line, most=len(line)) for line in source.text.replace("\t", "    ").split("\n")]
    lines.append("--- end of the code")
    if dry_run:
        lines.append(f"nothing was run: going on with {printable(folder)} would run this code (--trust-code)")
    console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


__all__ = ["ASK", "Stored", "read_stored", "show_code"]

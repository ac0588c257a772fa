"""Which Python code in a run store this user has run before, so that going on with it runs nothing new.

A study names files of extensions, and a store keeps their text. The path that stands beside it is whatever
the sender wrote, and a file of that name may have come in the same archive, so neither says anything. What
counts is a note that this user's own sweep made: an empty file named by the hash of the text, in the user's
state folder. It is made when a sweep of code that the user named begins, and by ``--trust-code``.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from hoplens.studies.extensions.files import SourceFile

FOLDER = "trusted-code"


def code_hash(source: SourceFile) -> str:
    """Return the hash by which a text is known: SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()


def state_folder() -> Path | None:
    """Return where hoplens keeps what it must remember about this user; None where there is no place."""
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given, "hoplens")
    try:
        return Path.home() / ".local" / "state" / "hoplens"
    except RuntimeError:  # no home
        return None


def trust(sources: Iterable[SourceFile]) -> None:
    """Note that the user runs this code; where no note can be written, it will be asked for again."""
    folder = state_folder()
    if folder is None:
        return
    with suppress(OSError, ValueError):
        for source in sources:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / FOLDER / code_hash(source)).touch(mode=0o600)


def strangers(sources: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """Return the code that this user is not known to have run."""
    folder = state_folder()
    return tuple(source for source in sources if folder is None or not _is_known(folder, source))


def _is_known(folder: Path, source: SourceFile) -> bool:
    with suppress(OSError, ValueError):
        return (folder / FOLDER / code_hash(source)).is_file()
    return False


__all__ = ["code_hash", "state_folder", "strangers", "trust"]

"""Extensions in a plain Python file, and their way to other processes."""

from __future__ import annotations

import hashlib
import linecache
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from hoplens.errors import ExtensionError, HoplensError
from hoplens.files import read_text
from hoplens.registry import load_as
from hoplens.studies.extensions.kinds import ALL

PREFIX = "hoplens_extension_"
MOST_BYTES = 4 << 20  # of a file


@dataclass(frozen=True)
class SourceFile:
    """A file of extensions: where it was, and its text."""

    path: str
    text: str

    @property
    def module(self) -> str:
        """Name that it is imported under: any change of the text gives another."""
        stem = "".join(letter if letter.isalnum() else "_" for letter in Path(self.path).stem)
        return f"{PREFIX}{stem}_{hashlib.sha256(self.text.encode()).hexdigest()[:10]}"


_sources: dict[str, SourceFile] = {}  # by path: what is loaded
_brought: set[str] = set()  # paths of what came with a carried value
_lock = threading.RLock()  # workers may have several threads
_free = threading.Condition(_lock)
_users: dict[frozenset[SourceFile], int] = {}  # how many blocks of `using` run with these files now


def load_file(path: str | os.PathLike[str]) -> ModuleType:
    """Run a Python file that registers tasks, recipes, measures or readers of one's own.

    Loading the same text again does nothing; a changed file replaces what its last version registered. The
    file is code and is run: load only what you trust.

    Parameters
    ----------
    path : path
        A .py file; it may import installed packages, not files beside it.

    Returns
    -------
    module
        The file's module; its name holds a hash of the text, so that whatever is keyed by it (a study's
        networks) is never taken for the work of another version.

    Raises
    ------
    FileError
        If the file cannot be read.
    ExtensionError
        If it cannot be run, with file and line; registers nothing; or registers a name that is taken.
    """
    return load_source(read_source(path))


def read_source(path: str | os.PathLike[str]) -> SourceFile:
    """Return a file of extensions without running it; see `load_file`."""
    text = read_text(path, "extension", most=MOST_BYTES)
    return SourceFile(str(Path(path).resolve()), text)


def load_source(source: SourceFile) -> ModuleType:
    """Run the text of an extension, here or in another process; see `load_file`."""
    with _lock:
        if _sources.get(source.path) == source:
            return sys.modules[source.module]
        return _run(source)


def _run(source: SourceFile) -> ModuleType:
    module = ModuleType(source.module, f"Extension of hoplens, {source.path}.")
    module.__file__ = source.path
    lines = source.text.splitlines(keepends=True)
    # tracebacks and inspect.getsource show what ran, even where the file has changed or is not there
    linecache.cache[source.path] = (len(source.text), None, lines, source.path)
    before = [registry.forget(source.path) for registry in ALL]
    sys.modules[source.module] = module  # pickle and dataclasses look it up
    try:
        with load_as(source.path):
            exec(compile(source.text, source.path, "exec"), module.__dict__)
        if not any(registry.count(source.path) for registry in ALL):
            raise ExtensionError(
                f"{source.path} registers nothing; use register_task, register_recipe, register_penalty, "
                "register_measure or register_reader of hoplens.extensions in it"
            )
    except BaseException as error:
        for registry, entries in zip(ALL, before, strict=True):
            registry.forget(source.path)
            registry.restore(entries)
        del sys.modules[source.module]
        if isinstance(error, HoplensError | KeyboardInterrupt):
            raise  # anything else is the file's: sys.exit in it must not end this process as if all were well
        raise ExtensionError(
            f"{source.path}, line {_line(error, source.path)}: {type(error).__name__}: {error}; mend the file"
        ) from error
    _sources[source.path] = source
    return module


def _line(error: BaseException, path: str) -> int:
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno or 0
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return (frames[-1].lineno or 0) if frames else 0


def loaded_sources() -> tuple[SourceFile, ...]:
    """Return the files that are loaded in this process, in the order in which they were."""
    return tuple(_sources.values())


def _bring(sources: tuple[SourceFile, ...]) -> None:
    """Load files that another process sent, in place of those sent before that nobody uses now."""
    used = {source.path for files in _users for source in files}
    for path in _brought - used - {source.path for source in sources}:
        for registry in ALL:
            registry.forget(path)
        _sources.pop(path, None)
        _brought.discard(path)
    for source in sources:
        if _sources.get(source.path) != source:
            load_source(source)
            _brought.add(source.path)


@contextmanager
def using(sources: tuple[SourceFile, ...]) -> Iterator[None]:
    """Load files that another process sent, and keep them while a block runs, whatever other threads do.

    Names are those of the whole process, so a block that needs other files waits until no block runs.
    """
    own = frozenset(sources)
    with _free:
        _free.wait_for(lambda: not _users or own in _users)
        _bring(sources)
        _users[own] = _users.get(own, 0) + 1
    try:
        yield
    finally:
        with _free:
            _users[own] -= 1
            if not _users[own]:
                del _users[own]
            _free.notify_all()


__all__ = ["SourceFile", "load_file", "load_source", "loaded_sources", "read_source", "using"]

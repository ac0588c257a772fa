"""Names that packages and files may add to: one registry for tasks, recipes, measures and readers each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from hoplens.errors import ExtensionError, ParameterError, unknown_name

T = TypeVar("T")

# the file that is being loaded: what it registers is its own, and a newer version of it may replace it
_loading: ContextVar[str | None] = ContextVar("loading", default=None)


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    owner: str


class Registry(Generic[T]):
    """Things by name: built in, registered by code, or announced by installed packages as entry points.

    A package's entry points are listed without importing it; the thing is loaded when it is asked for. Errors
    call a thing by its ``kind``, e.g. "task"; ``group`` is that of the entry points, e.g. "hoplens.tasks".
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, T]) -> None:
        self.kind, self.group, self.built_in = kind, group, dict(built_in)
        self._added: dict[str, _Entry[T]] = {}

    def add(self, name: str, value: T, *, owner: str) -> None:
        """Register a thing under a name that is free.

        ``owner`` is who defines it, e.g. ``module:function``, and may define it again, as a notebook does;
        while a file is loaded it is the file, and what its last version registered is gone by then.
        """
        if not isinstance(name, str) or not name:
            raise ParameterError(f"the name of a {self.kind} must be a text, got {name!r}")
        file, taken = _loading.get(), self._owner(name)
        definer = file or owner
        if taken is not None and (file is not None or taken != owner):
            raise ParameterError(
                f"the {self.kind} {name!r} of {definer} is already defined by {taken}; rename one of them"
            )
        self._added[name] = _Entry(value, definer)

    def get(self, name: str) -> T:
        """Return what has this name; an error names the nearest one."""
        value = self.find(name)
        if value is None:
            raise unknown_name(self.kind, name, self.names())
        return value

    def find(self, name: str) -> T | None:
        """Return what has this name, or None; raises only where a package's thing cannot be loaded."""
        if name in self.built_in:
            return self.built_in[name]
        if name in self._added:
            return self._added[name].value
        if name not in self._announced:
            return None
        point = self._only(name)
        try:
            value: T = point.load()
        except Exception as error:  # whatever a package's code raises
            raise ExtensionError(
                f"the {self.kind} {name!r} of {_whose(point)} cannot be loaded ({type(error).__name__}: "
                f"{error}); mend or uninstall that package"
            ) from error
        self._added[name] = _Entry(value, point.value)
        return value

    def call(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Return what the function of this name makes of its options; an error names the wrong one."""
        function, given = self.get(name), dict(options or {})
        if not callable(function):
            raise ParameterError(f"the {self.kind} {name!r} is not a function")
        signature = inspect.signature(function)
        kinds = {p.kind for p in signature.parameters.values()}
        known = [p.name for p in signature.parameters.values() if p.kind is not p.POSITIONAL_ONLY]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            for option in given:
                if option not in known:
                    raise unknown_name(f"option of the {self.kind} {name!r}:", option, known)
        try:
            bound = signature.bind(**given)
        except TypeError as error:
            raise ParameterError(f"the {self.kind} {name!r} cannot be made: {error}") from None
        return function(*bound.args, **bound.kwargs)

    def names(self) -> tuple[str, ...]:
        """Return all names: built-in ones, registered ones, those of packages."""
        return tuple(dict.fromkeys([*self.built_in, *self._added, *self._announced]))

    def source(self, name: str) -> str:
        """Return where a name comes from."""
        return self._owner(name) or "nowhere"

    def forget(self, owner: str) -> dict[str, _Entry[T]]:
        """Take out what an owner registered, and return it."""
        gone = {name: entry for name, entry in self._added.items() if entry.owner == owner}
        for name in gone:
            del self._added[name]
        return gone

    def restore(self, entries: Mapping[str, _Entry[T]]) -> None:
        """Put back what `forget` took out."""
        self._added.update(entries)

    def count(self, owner: str) -> int:
        """Return how many names an owner registered."""
        return sum(entry.owner == owner for entry in self._added.values())

    def _owner(self, name: str) -> str | None:
        if name in self.built_in:
            return "hoplens"
        if name in self._added:
            return self._added[name].owner
        points = self._announced.get(name)
        return points[0].value if points else None

    def _only(self, name: str) -> EntryPoint:
        points = self._announced[name]
        if len({point.value for point in points}) > 1:
            packages = ", ".join(sorted(map(_whose, points)))
            raise ExtensionError(
                f"several packages define the {self.kind} {name!r}: {packages}; uninstall all but one"
            )
        return points[0]

    @cached_property
    def _announced(self) -> dict[str, list[EntryPoint]]:
        points: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            points.setdefault(point.name, []).append(point)
        return points


def _whose(point: EntryPoint) -> str:
    name = point.dist.name if point.dist is not None else "a package"
    return f"{name} ({point.value})"


def owner_of(function: Callable[..., object]) -> str:
    """Return ``module:qualified name`` of a function or class, the form of entry points."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}:{kind.__qualname__}"


@contextmanager
def load_as(owner: str) -> Iterator[None]:
    """Let everything that is registered inside belong to a file."""
    token = _loading.set(owner)
    try:
        yield
    finally:
        _loading.reset(token)


__all__ = ["Registry", "load_as", "owner_of"]

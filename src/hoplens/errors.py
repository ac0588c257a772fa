"""Every error that hoplens raises on purpose, and the checks that raise them.

One sentence per error: what was expected, what came, what to do.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from typing import Any


class HoplensError(Exception):
    """Base class of all errors that hoplens raises on purpose."""


class ShapeError(HoplensError, ValueError):
    """Arrays whose shapes, dtypes or devices do not fit together."""


class NonFiniteError(HoplensError, ValueError):
    """NaN or infinity where a number is needed."""


class UnstableError(HoplensError, ValueError):
    """A sum over all walks or all time that does not exist: damping times spectral radius is 1 or more."""


class RangeError(HoplensError, OverflowError):
    """Numbers that leave the range of their dtype."""


class ConvergenceError(HoplensError, ArithmeticError):
    """A solver that did not reach its answer: eigenvalues, a linear system, a doubling."""


class ParameterError(HoplensError, ValueError):
    """An option outside its legal range, or options that exclude each other."""


class UnknownNameError(HoplensError, KeyError):
    """A task, signal, penalty, recipe or file entry that does not exist."""

    def __str__(self) -> str:  # KeyError would show the message's repr
        return str(self.args[0]) if self.args else ""


class UnsupportedModelError(HoplensError, TypeError):
    """A model or object that hoplens cannot read as a graph."""


class ExtensionError(HoplensError, ImportError):
    """An extension, a file or a package's entry point, that cannot be loaded."""


class ContractError(HoplensError, AssertionError):
    """An own task, penalty, measure or reader that does not keep what hoplens builds on."""


class FileError(HoplensError, OSError):
    """A file or folder that cannot be read, written or trusted."""


class ExportError(HoplensError, RuntimeError):
    """An exported file that does not compute what the model computes; it is not written."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a misspelt name, with the nearest legal one."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "use one of them."
    return UnknownNameError(f"unknown {kind} {name!r}; known: {', '.join(names)}; {hint}")


def check_choice(kind: str, name: str, known: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``known``, else raise with the nearest one."""
    names = tuple(known)
    if name not in names:
        raise unknown_name(kind, name, names)
    return name


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``."""
    whole = _as_int(value)
    if whole is None or whole < least:
        raise ParameterError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return whole


def _as_int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """Return ``value`` as a finite float inside the stated bounds."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of many numbers
        number = math.nan
    if not (math.isfinite(number) and above < number < below and least <= number <= most):
        bounds = [
            f"above {above:g}" if above > -math.inf else "",
            f"at least {least:g}" if least > -math.inf else "",
            f"below {below:g}" if below < math.inf else "",
            f"at most {most:g}" if most < math.inf else "",
        ]
        wanted = " and ".join(b for b in bounds if b)
        raise ParameterError(f"{name} must be a finite number {wanted}".rstrip() + f", got {value!r}")
    return number


__all__ = [
    "ContractError",
    "ConvergenceError",
    "ExportError",
    "ExtensionError",
    "FileError",
    "HoplensError",
    "NonFiniteError",
    "ParameterError",
    "RangeError",
    "ShapeError",
    "UnknownNameError",
    "UnstableError",
    "UnsupportedModelError",
]

"""What fixes a network's numbers, as plain data, and the hash of it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import json
import math
import sys
from typing import Any

from hoplens.errors import UnsupportedModelError
from hoplens.studies.extensions.files import PREFIX

FORMAT = 2  # of descriptions; a change of what the same description computes needs a new number
# Renamed classes and fields go by their first name in stores: the key of a network is a hash of this text.
NAMES_IN_STORES = {"GradualPruning": "Thinning", "Recipe.pruning": "thinning", "Settings.cell": "activation"}
# Fields that came later count only where they say something: without them a network is what it was.
LATER = {
    "Settings.horizon",
    "Settings.at",
    "TaskSetting.followed",
    "MeasuredSetting.followed",
    "DataSource.options",
}


def describe(value: Any) -> Any:
    """Return a value as plain data: numbers, texts, lists and dicts of them.

    Frozen dataclasses become dicts of their fields with their class under ``is``; a class or function
    becomes its place and, outside of hoplens, the hash of its module's text, so that an edit of it, or of
    what it calls there, counts as another configuration.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1 and 1.0 are equal, and so is what they describe
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [describe(part) for part in value]
    if isinstance(value, dict):
        return {str(name): describe(part) for name, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__qualname__
        told = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        told = {
            name: part for name, part in told.items() if part is not None or f"{kind}.{name}" not in LATER
        }
        fields = {_stored(value, name): describe(part) for name, part in told.items()}
        return {**_place(type(value)), **fields}
    if inspect.isclass(value) or inspect.isfunction(value):
        return _place(value)
    raise UnsupportedModelError(
        f"a study can keep numbers, texts, lists, dataclasses and functions of a module, got {value!r} of "
        f"type {type(value).__name__}; make it a frozen dataclass"
    )


def _stored(value: Any, field: str) -> str:
    """Return what stores call a field."""
    return NAMES_IN_STORES.get(f"{type(value).__qualname__}.{field}", field)


def _place(code: Any) -> dict[str, Any]:
    """Return where a class or function stands, and the hash of its source if it is not of hoplens."""
    if code.__module__.split(".")[0] == "hoplens":
        return {"is": NAMES_IN_STORES.get(code.__qualname__, code.__qualname__)}
    place = {"is": f"{code.__module__}:{code.__qualname__}"}
    if code.__module__.startswith(PREFIX):  # the name holds a hash of the text
        return place
    return {**place, "source": content_hash(_source(code))}


def _source(code: Any) -> str:
    """Return the text of the module that defines something, or of it alone (in a notebook)."""
    for part in (sys.modules.get(code.__module__), code):
        with contextlib.suppress(OSError, TypeError):
            return inspect.getsource(part)  # type: ignore[arg-type]
    return ""


def canonical(data: Any) -> str:
    """Return plain data as JSON that is the same text for the same data."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(data: Any) -> str:
    """Return a hash of plain data, 20 hexadecimal digits."""
    return text_hash(canonical(data))


def text_hash(text: str) -> str:
    """Return the hash of plain data that is canonical JSON already."""
    return hashlib.sha256(f"{FORMAT}\n{text}".encode()).hexdigest()[:20]


__all__ = ["FORMAT", "canonical", "content_hash", "describe", "text_hash"]

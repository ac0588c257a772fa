"""What a run store holds, checked as it is read: a store may be damaged, or not come from hoplens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoplens.errors import FileError
from hoplens.text import printable

if TYPE_CHECKING:
    import pandas as pd

MOST_DIGITS = 18  # of a whole number in JSON: all that fit 64 bits; longer ones are read as floats
NUMBERS = frozenset({"strength", "finished", "created"})
WHOLES = frozenset({"seed", "position", "attempts", "slot", "networks", "rows", "done", "total"})
EMPTY = frozenset({"finished", "tensors"})  # columns that may be NULL


OLD_NAMES = {"test_mse": "test_error"}  # of measures, in stores of earlier versions


def damaged(folder: Path, what: str) -> FileError:
    """Return the error that says what is wrong with a store."""
    return FileError(
        f"the run store {printable(folder)} is damaged ({what}); if a copy exists, take that, else sweep "
        "into another folder"
    )


def check_rows(frame: pd.DataFrame, folder: Path, *, numbers: Iterable[str] = ()) -> pd.DataFrame:
    """Return rows of a store whose columns hold what they should: SQLite keeps any kind of value anywhere."""
    wanted = NUMBERS.union(numbers)
    for name in map(str, frame.columns):
        kind = "number" if name in wanted else "whole number" if name in WHOLES else "text"
        for value in frame[name].tolist():
            if not (value is None and name in EMPTY) and not _IS[kind](value):
                empty = isinstance(value, float) and math.isnan(value) and name in EMPTY
                if not empty:
                    raise damaged(
                        folder, f"{name} holds {printable(repr(value), most=40)}, expected a {kind}"
                    )
    return frame


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_IS: Mapping[str, Callable[[object], bool]] = {
    "number": _is_number,
    "whole number": _is_whole,
    "text": lambda value: isinstance(value, str),
}


def read_json(text: object, folder: Path, what: str) -> Any:
    """Return what a JSON text of a store holds."""
    try:
        return json.loads(str(text), parse_int=_whole)
    except (ValueError, RecursionError):
        raise damaged(folder, f"{what} is no JSON: {printable(text, most=40)}") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def read_object(text: object, folder: Path, what: str) -> dict[str, Any]:
    """Return the JSON object that a text of a store holds, see `read_json`."""
    found = read_json(text, folder, what)
    if not isinstance(found, dict):
        raise damaged(folder, f"{what} is no JSON object: {printable(text, most=40)}")
    return found


def read_measures(text: object, folder: Path) -> dict[str, float | int | str | None]:
    """Return a network's measures: numbers, texts, and None for NaN; see `read_json`."""
    found = read_object(text, folder, "a network's measures")
    for name, value in found.items():
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise damaged(folder, f"the measure {printable(name)} is {printable(repr(value), most=40)}")
    return {OLD_NAMES.get(name, name): value for name, value in found.items()}


def read_keys(text: object, folder: Path) -> list[str]:
    """Return the keys of a shard's networks; see `read_json`."""
    found = read_json(text, folder, "the list of a shard's networks")
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise damaged(folder, f"a shard's networks are {printable(text, most=40)}")
    return found


def spread(texts: pd.Series[str], folder: Path, *, numeric: Iterable[str] = ()) -> pd.DataFrame:
    """Return JSON objects as a table; null is NaN."""
    import pandas as pd

    frame = pd.DataFrame([read_measures(text, folder) for text in texts], index=texts.index)
    asked = set(numeric)
    for name in frame.columns:
        kinds = {isinstance(value, str) for value in frame[name] if value is not None and value == value}
        if len(kinds) > 1 or (name in asked and True in kinds):
            raise damaged(folder, f"the measure {printable(name)} holds texts among its numbers")
        if kinds != {True}:
            frame[name] = pd.to_numeric(frame[name])
    return frame


__all__ = ["check_rows", "damaged", "read_json", "read_keys", "read_measures", "read_object", "spread"]

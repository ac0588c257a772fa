"""What is wrong with a study file, in one line: where, what came, what is allowed."""

from __future__ import annotations

import difflib
import sys
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hoplens.studies.sweeps.lines import line_of

LONGEST = 60  # characters of what came that are shown

# pydantic's kinds of errors, where its own words are not as plain as they could be
WANTED = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "literal_error": "must be {expected}",
    "too_short": "must hold at least {min_length}",
}


def complain(error: ValidationError, model: type[BaseModel], text: str, name: str) -> str:
    """Return the first thing that is wrong with a study, and how many more there are.

    Parameters
    ----------
    error : ValidationError
    model : type
        The model that refused it.
    text : str
        The TOML text.
    name : str
        Of the file.
    """
    places: dict[tuple[str | int, ...], ErrorDetails] = {}
    for found in error.errors(include_url=False):
        places.setdefault(_place(found["loc"]), found)  # the branches of a union complain one by one
    lines = {place: line_of(text, place) for place in places}
    place = min(places, key=lambda place: lines[place] or sys.maxsize)
    first, line = places[place], lines[place]
    where = f"{name}, line {line}" if line is not None else name
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{where}: {_words(place, first, model)}{more}"


def _place(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Return the keys of the file on the way; pydantic puts names of types in between."""
    return tuple(part for part in loc if isinstance(part, int) or part.replace("-", "_").isidentifier())


def _words(place: tuple[str | int, ...], error: ErrorDetails, model: type[BaseModel]) -> str:
    key, kind = _dotted(place), error["type"]
    if kind == "extra_forbidden":
        known = _keys(model, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"unknown key {key}; known here: {', '.join(known)}{hint}"
    if kind == "missing":
        return f"{key} is missing"
    if kind == "value_error":
        said = str(error.get("ctx", {}).get("error", error["msg"]))
        return f"{key}: {said}" if key else said
    wanted = WANTED.get(kind)
    words = wanted.format(**error.get("ctx", {})) if wanted else error["msg"][:1].lower() + error["msg"][1:]
    return f"{key} {words}, got {_short(error['input'])}"


def _dotted(place: tuple[str | int, ...]) -> str:
    """Return a place as a reader counts: tasks 2, name."""
    words = ""
    for part in place:
        words += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def _short(value: Any) -> str:
    try:
        text = repr(list(value) if isinstance(value, tuple) else value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists in lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _keys(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """Return the keys that a table of the file may have."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation such as ``tuple[Annotated[M, ...], ...] | None`` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (tuple, list, Annotated, Union, types.UnionType):
        found = (_model_in(part) for part in get_args(annotation))
        return next((model for model in found if model is not None), None)
    return None


__all__ = ["complain"]

"""Tables of a study file that know all their keys, and what is wrong with one in one line."""

from __future__ import annotations

import difflib
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from hoplens.errors import HoplensError

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


class Strict(BaseModel):
    """A table of the file that knows all its keys; numbers are no texts and texts no numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def as_tuple(value: Any) -> Any:
    """Return a list of the file as a tuple; anything else stays."""
    return tuple(value) if isinstance(value, list) else value


def legal(build: Any) -> None:
    """Build something, and say what is wrong in the way of pydantic."""
    try:
        build()
    except HoplensError as error:
        raise ValueError(str(error)) from None


def complain(error: ValidationError, model: type[BaseModel], name: str) -> str:
    """Return the first thing that is wrong with a table of the named file, and how many more there are."""
    places: dict[tuple[str | int, ...], ErrorDetails] = {}
    for detail in error.errors(include_url=False):
        places.setdefault(_place(detail["loc"]), detail)  # the branches of a union complain one by one
    # a key that is misspelt is missing too: that it is unknown says more
    place, first = min(places.items(), key=lambda item: item[1]["type"] != "extra_forbidden")
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{name}: {_words(place, first, model)}{more}"


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
    """Return a place as a reader counts: tasks[2].name."""
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
        models = (_model_in(part) for part in get_args(annotation))
        return next((model for model in models if model is not None), None)
    return None


__all__ = ["Strict", "as_tuple", "complain", "legal"]

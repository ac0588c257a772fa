"""The base of all tables of a study file."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from hoplens.errors import HoplensError


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


__all__ = ["Strict", "as_tuple", "legal"]

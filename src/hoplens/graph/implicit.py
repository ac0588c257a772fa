"""Functions of networks take models too: these are read first."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from hoplens.errors import ParameterError
from hoplens.graph.pathways import Pathways
from hoplens.lookup import look_up

READ = "hoplens.models.readers.reading:read"  # is built on some of these functions
F = TypeVar("F", bound=Callable[..., Any])


def takes_models(function: F) -> F:
    """Let a function whose first parameter is a `Pathways` take a model too, which is read."""
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if args and not isinstance(args[0], Pathways):
            args = (pathways_of(args[0], function.__name__), *args[1:])
        elif first in kwargs and not isinstance(kwargs[first], Pathways):
            kwargs[first] = pathways_of(kwargs[first], function.__name__)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def pathways_of(model: Any, name: str) -> Pathways:
    """Return a model as the graph that a function needs."""
    if hasattr(model, "hops") and hasattr(model, "values"):  # HopMaps, which these functions make
        raise ParameterError(f"{name} takes a network, got {type(model).__name__}; pass what it was made of")
    net: Pathways = look_up(READ)(model)
    return net
